"""The primitives every protocol gives a meaning to.

Functions (`hush.mpc.functions`) and compiled programs are written in these alone. One implementation per meaning:
`plain` (float), `fixed` (one-process ring arithmetic), `replicated` (three parties) and its cost model, which yields
`Traffic` where a party yields messages. A protocol object is passed in; nothing here knows a protocol.

Local primitives are plain methods and cost nothing. Interactive ones are steps (`hush.mpc.step`). A "public" operand is
a torch tensor or a number that everyone knows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from hush.mpc.cells import Cells
from hush.mpc.points import Points
from hush.mpc.ring import Ring
from hush.mpc.schedule import LAN, Schedule
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.step import Step, together

Public = Tensor | float | int


@dataclass(frozen=True, slots=True)
class ConvShape:
    """Public geometry of a convolution, per spatial dimension; `groups` as in torch."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1


class Protocol(ABC):
    """A protocol as seen by one party. `frac` and `ring` are the defaults of results; by `schedule` steps trade rounds
    for bits."""

    name: str
    ring: Ring
    frac: int
    schedule: Schedule = LAN

    def unchecked(self) -> Self:
        """This protocol for a branch that a selection discards wherever its values leave their range: a protocol that
        records such values does not record these."""
        return self

    # ------------------------------------------------------------------ local: no messages
    @abstractmethod
    def constant(self, value: Tensor | float, *, frac: int | None = None, ring: Ring | None = None) -> Shared:
        """A public value as a (trivially shared) secret; saturates at the encodable range."""

    @abstractmethod
    def add(self, x: Shared, y: Shared) -> Shared:
        """x + y, broadcast. Same ring and scale, else ValueError."""

    @abstractmethod
    def sub(self, x: Shared, y: Shared) -> Shared:
        """x - y, broadcast. Same ring and scale, else ValueError."""

    @abstractmethod
    def neg(self, x: Shared) -> Shared:
        """-x."""

    @abstractmethod
    def add_public(self, x: Shared, value: Public) -> Shared:
        """x + value, broadcast; the value is encoded at x's scale."""

    @abstractmethod
    def scale(self, x: Shared, factor: Tensor | int) -> Shared:
        """x * factor for public INTEGERS (broadcast), exact: scale unchanged, nothing truncated."""

    def affine(
        self, xs: Sequence[Shared], factors: Sequence[int], biases: Sequence[float] = (), *, frac: int | None = None
    ) -> Shared:
        """sum_i factors[i] * xs[i] of ring elements, read at `frac` (default: that of the first), plus public reals
        encoded there. Local and exact; the xs have one shape and ring, and what scales they like."""
        scale = xs[0].frac if frac is None else frac
        terms = [self.scale(x, factor).with_frac(scale) for x, factor in zip(xs, factors, strict=True)]
        total = terms[0]
        for term in terms[1:]:
            total = self.add(total, term)
        for bias in biases:
            total = self.add_public(total, bias)
        return total

    @abstractmethod
    def rescale(self, x: Shared, frac: int) -> Shared:
        """The same value at a finer scale (frac >= x.frac), exact."""

    def wrap(self, x: Shared) -> Shared:
        """x modulo 2^(k - x.frac), in [-2^(k-1), 2^(k-1)) units, for periodic functions. Nothing to do in a ring; a
        protocol whose elements do not wrap does it here."""
        return x

    @abstractmethod
    def matmul_int(self, x: Shared, matrix: Tensor) -> Shared:
        """x @ matrix for a public INTEGER matrix, exact (pooling, one-hot to value)."""

    # ------------------------------------------------------------------ products
    @abstractmethod
    def mul(self, x: Shared, y: Shared, *, frac: int | None = None, ring: Ring | None = None) -> Step[Shared]:
        """x * y elementwise, broadcast, truncated to `frac` (default: the protocol's) with an error in [0, 1) ulp above
        the exact quotient's floor; exact if frac == x.frac + y.frac. `ring`: output ring (default: x's); into one of at
        most k - f bits, f those dropped, the result is within 1.5 units of the quotient instead."""

    @abstractmethod
    def matmul(self, x: Shared, y: Shared, *, frac: int | None = None, ring: Ring | None = None) -> Step[Shared]:
        """x @ y, batched and broadcast as torch.matmul (both at least 2-D), one truncation per output."""

    def matmul_add(
        self, x: Shared, matrix: Shared | Tensor, y: Shared, factor: Shared | Tensor, *, frac: int | None = None
    ) -> Step[Shared]:
        """x @ matrix + y * factor with one truncation to `frac`: matrix and factor both secret, or both public reals
        (at the protocol's scale). y has the result's shape and x's scale; factor broadcasts, and has matrix's scale."""
        if isinstance(matrix, Shared) and isinstance(factor, Shared):
            exact = x.frac + matrix.frac
            product, scaled = yield from together(
                self.matmul(x, matrix, frac=exact), self.mul(y, factor, frac=y.frac + factor.frac)
            )
        else:
            assert isinstance(matrix, Tensor)
            assert isinstance(factor, Tensor)
            exact = x.frac + self.frac
            product, scaled = yield from together(
                self.matmul_public(x, matrix, frac=exact), self.mul_public(y, factor, frac=y.frac + self.frac)
            )
        return (yield from self.truncate(self.add(product, scaled), self.frac if frac is None else frac))

    @abstractmethod
    def conv(self, x: Shared, w: Shared, geometry: ConvShape, *, frac: int | None = None) -> Step[Shared]:
        """1-D or 2-D convolution, x [N, C, *space], w [O, C/groups, *kernel], one truncation per output."""

    @abstractmethod
    def mul_public(
        self, x: Shared, value: Public, *, frac: int | None = None, scale: int | None = None
    ) -> Step[Shared]:
        """x * value, the value encoded with `scale` fraction bits (default: the protocol's), truncated to `frac`."""

    @abstractmethod
    def matmul_public(
        self, x: Shared, matrix: Tensor, *, frac: int | None = None, scale: int | None = None
    ) -> Step[Shared]:
        """x @ matrix for a public real matrix."""

    @abstractmethod
    def conv_public(
        self, x: Shared, w: Tensor, geometry: ConvShape, *, frac: int | None = None, scale: int | None = None
    ) -> Step[Shared]:
        """Convolution with a public real kernel."""

    @abstractmethod
    def combine(
        self,
        xs: Sequence[Shared],
        factors: Sequence[Public],
        bias: Public = 0.0,
        *,
        frac: int | None = None,
        scale: int | None = None,
    ) -> Step[Shared]:
        """sum_i factors[i] * xs[i] + bias for public reals, ONE truncation: a polynomial from its powers.

        The xs share shape (after broadcast) and scale.
        """

    @abstractmethod
    def truncate(self, x: Shared, frac: int, *, ring: Ring | None = None, exact: bool = False) -> Step[Shared]:
        """x at the coarser scale `frac` <= x.frac: floor or one more; exactly the floor if `exact`."""

    @abstractmethod
    def lookup(self, points: Points, table: Shared | Tensor, *, frac: int | None = None) -> Step[Shared]:
        """[*points.shape, D]: the rows of a table [V, D], secret or public real, at secret places, exact. The scale is
        the secret table's, or `frac` of a public one (default: the protocol's)."""

    def pick(self, x: Shared, cells: Cells, tables: Tensor) -> Step[Shared]:
        """[T, *x.shape] (frac 0): the entries of public tables, int64 [T, cells.count], at the cell of x, a positive
        number of x.ring = Z_2^64; 0 out of the cells' range."""
        raise ValueError(
            f"the protocol {self.name!r} deals no trees: give it the schedule UNDEALT, which asks for none"
        )

    def pick_product(
        self, x: Shared, y: Shared, offset: float, cells: Cells, tables: Tensor
    ) -> Step[tuple[Shared, Shared]]:
        """(z, `pick` of z) for z = x @ y + offset, not truncated: at the sum of their scales."""
        exact = yield from self.matmul(x, y, frac=x.frac + y.frac)
        z = self.add_public(exact, offset)
        return z, (yield from self.pick(z, cells, tables))

    def highest(self, x: Shared, row: Tensor, *, shift: int, bins: int) -> Step[Shared]:
        """[R] (frac 0): of each row the largest floor(x / 2^shift) units of its entries, or one less; x [N] in Z_2^64,
        2^shift <= x < bins 2^shift units, bins a power of two from 8, `row` [N] sorted, from 0, without gaps."""
        raise ValueError(
            f"the protocol {self.name!r} deals no codes: give it the schedule UNDEALT, which asks for none"
        )

    # ------------------------------------------------------------------ bits
    @abstractmethod
    def negative(self, x: Shared, *, bound: float, drop: int = 0) -> Step[SharedBits]:
        """[x < 0], one plane, given |x| <= bound (a public real). `drop` low bits are ignored: x within 2^drop units of
        0 may fall on either side. drop=0 is exact."""

    def below(self, x: Shared, thresholds: Sequence[float], *, bound: float, drop: int = 0) -> Step[list[SharedBits]]:
        """[x < t] for public thresholds t, a plane each, given |x - t| <= bound for all: as `negative` of each x - t,
        and in its rounds."""
        gaps = [self.add_public(x, -t) for t in thresholds]
        return list((yield from together(*(self.negative(gap, bound=bound, drop=drop) for gap in gaps))))

    @abstractmethod
    def is_zero(self, x: Shared, *, bound: float) -> Step[SharedBits]:
        """[x == 0], one plane, exact, given |x| <= bound."""

    @abstractmethod
    def to_bits(self, x: Shared, *, planes: int) -> Step[SharedBits]:
        """The low `planes` bits of x's ring element, exact (A2B)."""

    @abstractmethod
    def xor(self, a: SharedBits, b: SharedBits) -> SharedBits:
        """a ^ b; planes equal, or one of them a single plane. Local."""

    @abstractmethod
    def invert(self, a: SharedBits) -> SharedBits:
        """~a. Local."""

    @abstractmethod
    def both(self, a: SharedBits, b: SharedBits) -> Step[SharedBits]:
        """a & b; planes equal, or one of them a single plane."""

    @abstractmethod
    def from_bits(self, a: SharedBits, *, ring: Ring | None = None) -> Step[Shared]:
        """Each bit as an integer 0 or 1 (frac=0), shape [planes, *shape] (B2A per bit)."""

    @abstractmethod
    def select(self, bit: SharedBits, x: Shared) -> Step[Shared]:
        """bit * x, exact at any scale: x where the one-plane bit is set, 0 elsewhere. Same shape."""

    def select_sum(
        self, bits: Sequence[SharedBits], xs: Sequence[Shared], *, frac: int | None = None, ring: Ring | None = None
    ) -> Step[Shared]:
        """sum_i bits[i] * xs[i], exact; one shape, ring and scale. In the rounds of one selection. With `frac`,
        truncated to it in `ring` (default: theirs), as `truncate` would, in no more rounds and bits than both take."""
        terms = yield from together(*(self.select(bit, x) for bit, x in zip(bits, xs, strict=True)))
        total = terms[0]
        for term in terms[1:]:
            total = self.add(total, term)
        return total if frac is None else (yield from self.truncate(total, frac, ring=ring))

    # ------------------------------------------------------------------ order of elements
    @abstractmethod
    def shuffle(self, x: Shared) -> Step[Shared]:
        """The rows of x (dimension 0) in a uniformly random order that no party knows."""

    # ------------------------------------------------------------------ what a party brings
    @abstractmethod
    def contribute(
        self,
        make: Callable[[], Tensor],
        shape: tuple[int, ...],
        *,
        dealer: int,
        frac: int | None = None,
        ring: Ring | None = None,
    ) -> Step[Shared]:
        """Real values of a shape that party `dealer` alone makes, by `make`, from its own private randomness, shared;
        nobody else learns them, and nobody else calls `make`."""

    @abstractmethod
    def open(self, x: Shared) -> Step[Tensor]:
        """The ring elements of x, to all parties. For values that are uniform or meant to be public."""
