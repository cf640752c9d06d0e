"""What the two single-process references share: one local tensor per secret, no messages, bits packed as everywhere.

`Plain` and `Fixed` differ in four things only: how a public value becomes an element, how a bilinear product is formed,
how a product is brought to its scale, and whether a value may be out of range.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from secrets import SystemRandom

import torch
from torch import Tensor

from hush.mpc import fixed_point
from hush.mpc.cells import Cells
from hush.mpc.points import Points
from hush.mpc.protocol import ConvShape, Protocol, Public
from hush.mpc.ring import RING64, Ring, backends
from hush.mpc.ring.kernels import Kernels
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.step import Step, done


@dataclass(frozen=True, slots=True)
class Bilinear:
    """A bilinear operation: its name, its form in a ring and in floats, and how many products one output sums."""

    name: str
    exact: Callable[[Tensor, Tensor, Ring], Tensor]
    real: Callable[[Tensor, Tensor], Tensor]
    terms: int


@dataclass(frozen=True, slots=True)
class Product:
    """A value before its truncation. |unreduced value| <= `bound` units; `real` computes the unreduced values."""

    value: Shared
    bound: float
    real: Callable[[], Tensor]


class SingleProcess(Protocol):
    """The primitives on one tensor per secret. Every step returns at once: no rounds, no bytes."""

    def __init__(self, ring: Ring, frac: int, kernels: Kernels | None = None) -> None:
        self.ring, self.frac = self._ring(ring), frac
        self.kernels = backends.get() if kernels is None else kernels

    # ------------------------------------------------------------------ what differs
    @abstractmethod
    def _ring(self, ring: Ring) -> Ring:
        """The ring that results carry where the caller names `ring`."""

    @abstractmethod
    def _encode(self, primitive: str, value: Public, frac: int, ring: Ring) -> Tensor:
        """Elements of public values at a scale, saturated."""

    @abstractmethod
    def _product(self, op: Bilinear, x: Shared, y: Shared) -> Product:
        """The product at scale x.frac + y.frac."""

    @abstractmethod
    def _settle(self, primitive: str, z: Product, frac: int, ring: Ring, *, exact: bool = False) -> Shared:
        """A product brought to the scale `frac` (coarser or finer) in `ring`."""

    @abstractmethod
    def _units(self, x: Shared) -> Tensor:
        """int64: the integers that stand for x at its scale."""

    @abstractmethod
    def _within(self, primitive: str, x: Shared, bound: float) -> None:
        """Note values beyond a declared bound."""

    # ------------------------------------------------------------------ entry and exit
    def enter(self, value: Public, *, frac: int | None = None, ring: Ring | None = None) -> Shared:
        """A secret input. Saturates at the encodable range."""
        return self.constant(value, frac=frac, ring=ring)

    def value_of(self, x: Shared) -> Tensor:
        """The float64 values of a secret."""
        return fixed_point.decode(x.parts[0], x.ring, x.frac)

    def bits_of(self, a: SharedBits) -> Tensor:
        """int64 [planes, *shape]: every bit as 0 or 1."""
        return self.kernels.spread(a.parts[0], a.numel, RING64).reshape(a.planes, *a.shape)

    # ------------------------------------------------------------------ local
    def constant(self, value: Public, *, frac: int | None = None, ring: Ring | None = None) -> Shared:
        """A public value as a secret."""
        scale = self.frac if frac is None else frac
        kind = self.ring if ring is None else self._ring(ring)
        return Shared((self._encode("constant", value, scale, kind),), scale, kind)

    def add(self, x: Shared, y: Shared) -> Shared:
        """x + y."""
        _alike(x, y, scales=True)
        return replace(x, parts=(x.ring.reduce(x.parts[0] + y.parts[0]),))

    def sub(self, x: Shared, y: Shared) -> Shared:
        """x - y."""
        _alike(x, y, scales=True)
        return replace(x, parts=(x.ring.reduce(x.parts[0] - y.parts[0]),))

    def neg(self, x: Shared) -> Shared:
        """-x."""
        return x.local(lambda t: x.ring.reduce(-t))

    def add_public(self, x: Shared, value: Public) -> Shared:
        """x + value, encoded at x's scale."""
        return x.local(lambda t: x.ring.reduce(t + self._encode("add_public", value, x.frac, x.ring)))

    def scale(self, x: Shared, factor: Tensor | int) -> Shared:
        """x times public integers."""
        return x.local(lambda t: x.ring.reduce(t * x.ring.reduce(torch.as_tensor(factor))))

    def rescale(self, x: Shared, frac: int) -> Shared:
        """The same value at a finer scale."""
        if frac < x.frac:
            raise ValueError(f"rescale goes to a finer scale only: {x.frac} to {frac} fraction bits needs truncate")
        return replace(self.scale(x, 1 << (frac - x.frac)), frac=frac)

    def matmul_int(self, x: Shared, matrix: Tensor) -> Shared:
        """x @ integer matrix."""
        integers = Shared((x.ring.reduce(matrix),), 0, x.ring)
        return self._product(self._matmul("matmul_int", x.shape[-1]), x, integers).value

    # ------------------------------------------------------------------ products
    def mul(self, x: Shared, y: Shared, *, frac: int | None = None, ring: Ring | None = None) -> Step[Shared]:
        """x * y."""
        return done(self._multiply(_elementwise("mul"), x, y, frac, ring))

    def matmul(self, x: Shared, y: Shared, *, frac: int | None = None, ring: Ring | None = None) -> Step[Shared]:
        """x @ y."""
        return done(self._multiply(self._matmul("matmul", x.shape[-1]), x, y, frac, ring))

    def conv(self, x: Shared, w: Shared, geometry: ConvShape, *, frac: int | None = None) -> Step[Shared]:
        """Convolution with a secret kernel."""
        return done(self._multiply(self._conv("conv", w.shape, geometry), x, w, frac, None))

    def mul_public(
        self, x: Shared, value: Public, *, frac: int | None = None, scale: int | None = None
    ) -> Step[Shared]:
        """x * public reals."""
        factor = self._operand("mul_public", x, value, scale)
        return done(self._multiply(_elementwise("mul_public"), x, factor, frac, None))

    def matmul_public(
        self, x: Shared, matrix: Tensor, *, frac: int | None = None, scale: int | None = None
    ) -> Step[Shared]:
        """x @ public real matrix."""
        factor = self._operand("matmul_public", x, matrix, scale)
        return done(self._multiply(self._matmul("matmul_public", x.shape[-1]), x, factor, frac, None))

    def conv_public(
        self, x: Shared, w: Tensor, geometry: ConvShape, *, frac: int | None = None, scale: int | None = None
    ) -> Step[Shared]:
        """Convolution with a public real kernel."""
        factor = self._operand("conv_public", x, w, scale)
        return done(self._multiply(self._conv("conv_public", w.shape, geometry), x, factor, frac, None))

    def combine(
        self,
        xs: Sequence[Shared],
        factors: Sequence[Public],
        bias: Public = 0.0,
        *,
        frac: int | None = None,
        scale: int | None = None,
    ) -> Step[Shared]:
        """sum_i factors[i] * xs[i] + bias with one truncation."""
        first, op = xs[0], _elementwise("combine")
        terms = []
        for x, factor in zip(xs, factors, strict=True):
            _alike(first, x, scales=True)
            terms.append(self._product(op, x, self._operand("combine", x, factor, scale)))
        wide = terms[0].value.frac
        offset = self._encode("combine", bias, wide, first.ring)
        element = first.ring.reduce(sum((t.value.parts[0] for t in terms), offset))
        shift = first.ring.signed(offset)
        z = Product(
            Shared((element,), wide, first.ring),
            sum(t.bound for t in terms) + magnitude(shift),
            lambda: sum((t.real() for t in terms), shift.to(torch.float64)),
        )
        return done(self._settle("combine", z, self.frac if frac is None else frac, first.ring))

    def truncate(self, x: Shared, frac: int, *, ring: Ring | None = None, exact: bool = False) -> Step[Shared]:
        """x at a coarser scale."""
        if frac > x.frac:
            raise ValueError(f"truncate goes to a coarser scale only: {x.frac} to {frac} fraction bits needs rescale")
        signed = x.ring.signed(x.parts[0])
        z = Product(x, magnitude(signed), lambda: signed.to(torch.float64))
        kind = x.ring if ring is None else self._ring(ring)
        return done(self._settle("truncate", z, frac, kind, exact=exact))

    def lookup(self, points: Points, table: Shared | Tensor, *, frac: int | None = None) -> Step[Shared]:
        """The rows themselves."""
        source = table if isinstance(table, Shared) else self.constant(table, frac=frac)
        return done(source.local(lambda t: t[points.parts[0][..., 0].long()]))

    def pick(self, x: Shared, cells: Cells, tables: Tensor) -> Step[Shared]:
        """The entries at the cell that ends at its centre."""
        units = torch.ceil(x.parts[0]).to(torch.int64) if x.parts[0].is_floating_point() else self._units(x)
        chosen = tables[:, cells.find(units)]
        return done(Shared((chosen.to(x.parts[0].dtype),), 0, x.ring))

    def highest(self, x: Shared, row: Tensor, *, shift: int, bins: int) -> Step[Shared]:
        """The largest floor itself."""
        self._within("highest", x, math.ldexp(bins, shift - x.frac))
        empty = torch.zeros(int(row[-1]) + 1, dtype=torch.int64)
        found = empty.scatter_reduce(0, row, self._units(x) >> shift, "amax")
        return done(Shared((found.to(x.parts[0].dtype),), 0, x.ring))

    # ------------------------------------------------------------------ bits
    def negative(self, x: Shared, *, bound: float, drop: int = 0) -> Step[SharedBits]:
        """[x < 0], exact at any `drop`."""
        self._within("negative", x, bound)
        return done(self._pack(x.ring.signed(x.parts[0]) < 0))

    def is_zero(self, x: Shared, *, bound: float) -> Step[SharedBits]:
        """[x == 0]; a float is zero where it is less than half a unit."""
        self._within("is_zero", x, bound)
        return done(self._pack(x.ring.signed(x.parts[0]).abs() < 0.5))

    def to_bits(self, x: Shared, *, planes: int) -> Step[SharedBits]:
        """The low bits of x's integers."""
        return done(SharedBits((self.kernels.to_planes(self._units(x), planes, RING64),), x.shape))

    def xor(self, a: SharedBits, b: SharedBits) -> SharedBits:
        """a ^ b."""
        return replace(a, parts=(a.parts[0] ^ b.parts[0],))

    def invert(self, a: SharedBits) -> SharedBits:
        """~a."""
        return replace(a, parts=(~a.parts[0],))

    def both(self, a: SharedBits, b: SharedBits) -> Step[SharedBits]:
        """a & b."""
        return done(replace(a, parts=(a.parts[0] & b.parts[0],)))

    def from_bits(self, a: SharedBits, *, ring: Ring | None = None) -> Step[Shared]:
        """Each bit as an integer."""
        kind = self.ring if ring is None else self._ring(ring)
        return done(Shared((kind.reduce(self.bits_of(a)),), 0, kind))

    def select(self, bit: SharedBits, x: Shared) -> Step[Shared]:
        """bit * x."""
        chosen = self.bits_of(bit).reshape(x.shape).bool()
        return done(x.local(lambda t: torch.where(chosen, t, torch.zeros_like(t))))

    # ------------------------------------------------------------------ order of elements
    def shuffle(self, x: Shared) -> Step[Shared]:
        """The rows in an order drawn from the system's generator."""
        order = torch.tensor(SystemRandom().sample(range(x.shape[0]), x.shape[0]), dtype=torch.int64)
        return done(x.local(lambda t: t[order]))

    def contribute(
        self,
        make: Callable[[], Tensor],
        shape: tuple[int, ...],
        *,
        dealer: int,
        frac: int | None = None,
        ring: Ring | None = None,
    ) -> Step[Shared]:
        """The values that the one process makes."""
        return done(self.constant(make().reshape(shape), frac=frac, ring=ring))

    def open(self, x: Shared) -> Step[Tensor]:
        """The elements themselves."""
        return done(x.parts[0])

    # ------------------------------------------------------------------ helpers
    def _multiply(self, op: Bilinear, x: Shared, y: Shared, frac: int | None, ring: Ring | None) -> Shared:
        _alike(x, y)
        kind = x.ring if ring is None else self._ring(ring)
        return self._settle(op.name, self._product(op, x, y), self.frac if frac is None else frac, kind)

    def _operand(self, primitive: str, x: Shared, value: Public, scale: int | None) -> Shared:
        bits = self.frac if scale is None else scale
        return Shared((self._encode(primitive, value, bits, x.ring),), bits, x.ring)

    def _matmul(self, name: str, inner: int) -> Bilinear:
        return Bilinear(name, self.kernels.matmul, torch.matmul, inner)

    def _conv(self, name: str, kernel: torch.Size, g: ConvShape) -> Bilinear:
        real = torch.conv1d if len(kernel) == 3 else torch.conv2d
        return Bilinear(
            name,
            lambda x, w, ring: self.kernels.conv(x, w, g.stride, g.padding, g.dilation, g.groups, ring),
            lambda x, w: real(x, w, None, g.stride, g.padding, g.dilation, g.groups),
            math.prod(kernel[1:]),
        )

    def _pack(self, bits: Tensor) -> SharedBits:
        return SharedBits((self.kernels.to_planes(bits.to(torch.int64), 1, RING64),), bits.shape)


def _elementwise(name: str) -> Bilinear:
    return Bilinear(name, lambda x, y, ring: ring.reduce(x * y), torch.mul, 1)


def _alike(x: Shared, y: Shared, *, scales: bool = False) -> None:
    """Refuse operands of different rings (or scales, where they are added)."""
    if x.ring != y.ring:
        raise ValueError(f"operands in different rings: 2^{x.ring.bits} and 2^{y.ring.bits}")
    if scales and x.frac != y.frac:
        raise ValueError(f"operands at different scales: {x.frac} and {y.frac} fraction bits; rescale one of them")


def magnitude(signed: Tensor) -> float:
    """Largest magnitude of signed integers or floats, as a float; 0 for an empty tensor."""
    if not signed.numel():
        return 0.0
    low, high = torch.aminmax(signed)
    return max(abs(float(low)), abs(float(high)))
