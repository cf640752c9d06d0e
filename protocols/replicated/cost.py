"""`ReplicatedCost`: what the replicated protocol sends, computed from shapes.

The same interface on meta tensors. Interactive primitives yield the `Traffic` of `costs` and `costs_bits` where a party
yields messages; results are meta tensors of the right shape, ring and scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from hush.mpc.cells import Cells
from hush.mpc.cost import Traffic
from hush.mpc.points import Points
from hush.mpc.protocol import ConvShape, Public
from hush.mpc.ring import Ring
from hush.mpc.ring.widths import Widths
from hush.mpc.secret import Shared, SharedBits, words
from hush.mpc.step import Step, together
from hush.protocols.replicated import boolean, costs, costs_bits, linear
from hush.protocols.replicated.convert import deals_mask
from hush.protocols.replicated.costs import Rounds
from hush.protocols.replicated.exact import mask_owner, wide
from hush.protocols.replicated.local import LocalPrimitives
from hush.protocols.replicated.products import operands, widths
from hush.protocols.replicated.public import same
from hush.protocols.replicated.rotation import slices

T = TypeVar("T")


def send(rounds: Iterable[Traffic]) -> Step[None]:
    """Yield the rounds of a formula."""
    yield from rounds


def meta(shape: Sequence[int], frac: int, ring: Ring) -> Shared:
    """A secret without data."""
    part = torch.empty(tuple(shape), dtype=ring.dtype, device="meta")
    return Shared((part, part), frac, ring)


def meta_bits(shape: Sequence[int], planes: int) -> SharedBits:
    """Secret bits without data."""
    size = torch.Size(shape)
    part = torch.empty((planes, words(size.numel())), dtype=torch.int64, device="meta")
    return SharedBits((part, part), size)


def conv_shape(x: torch.Size, w: torch.Size, geometry: ConvShape) -> torch.Size:
    """Shape of a convolution's output."""
    space = [
        (side + 2 * pad - gap * (kernel - 1) - 1) // stride + 1
        for side, kernel, stride, pad, gap in zip(
            x[2:], w[2:], geometry.stride, geometry.padding, geometry.dilation, strict=True
        )
    ]
    return torch.Size((x[0], w[0], *space))


class ReplicatedCost(LocalPrimitives):
    """The cost model of `Replicated`: run a program under it and total what it yields."""

    name = "replicated cost"

    def _matmul(self, part: Tensor, matrix: Tensor, ring: Ring) -> Tensor:
        return part.new_empty(linear.product_shape(part.shape, matrix.shape))

    def constant(self, value: Tensor | float, *, frac: int | None = None, ring: Ring | None = None) -> Shared:
        """A public value as a secret without data."""
        return meta(torch.as_tensor(value).shape, self._frac(frac), ring or self.ring)

    # ------------------------------------------------------------------ products
    def _secret(self, shape: Sequence[int], x: Shared, y: Shared, frac: int | None, out: Ring | None) -> Step[Shared]:
        """A product of secrets of an output shape: `costs.product`."""
        operands(x, y)
        result = meta(shape, self._frac(frac), out or x.ring)
        cut = widths(x.ring, x.frac + y.frac, result.frac, result.ring)
        return self._with(result, costs.product(result.numel, cut))

    def _public(self, shape: Sequence[int], x: Shared, frac: int | None, scale: int | None) -> Step[Shared]:
        """A product with a public value: `costs.shared`."""
        result = meta(shape, self._frac(frac), x.ring)
        cut = widths(x.ring, x.frac + self._frac(scale), result.frac, x.ring)
        return self._with(result, costs.shared(result.numel, cut))

    def mul(self, x: Shared, y: Shared, *, frac: int | None = None, ring: Ring | None = None) -> Step[Shared]:
        """As `products.mul`."""
        return self._secret(linear.broadcast(x.shape, y.shape), x, y, frac, ring)

    def matmul(self, x: Shared, y: Shared, *, frac: int | None = None, ring: Ring | None = None) -> Step[Shared]:
        """As `products.matmul`."""
        return self._secret(linear.product_shape(x.shape, y.shape), x, y, frac, ring)

    def matmul_add(
        self, x: Shared, matrix: Shared | Tensor, y: Shared, factor: Shared | Tensor, *, frac: int | None = None
    ) -> Step[Shared]:
        """As `products.matmul_add`: the product alone."""
        if isinstance(matrix, Shared):
            return self.matmul(x, matrix, frac=frac)
        return self.matmul_public(x, matrix, frac=frac)

    def conv(self, x: Shared, w: Shared, geometry: ConvShape, *, frac: int | None = None) -> Step[Shared]:
        """As `products.conv`."""
        return self._secret(conv_shape(x.shape, w.shape, geometry), x, w, frac, None)

    def mul_public(
        self, x: Shared, value: Public, *, frac: int | None = None, scale: int | None = None
    ) -> Step[Shared]:
        """As `public.combine`."""
        return self.combine([x], [value], frac=frac, scale=scale)

    def matmul_public(
        self, x: Shared, matrix: Tensor, *, frac: int | None = None, scale: int | None = None
    ) -> Step[Shared]:
        """As `public.matmul_public`."""
        return self._public(linear.product_shape(x.shape, matrix.shape), x, frac, scale)

    def conv_public(
        self, x: Shared, w: Tensor, geometry: ConvShape, *, frac: int | None = None, scale: int | None = None
    ) -> Step[Shared]:
        """As `public.conv_public`."""
        return self._public(conv_shape(x.shape, w.shape, geometry), x, frac, scale)

    def combine(
        self,
        xs: Sequence[Shared],
        factors: Sequence[Public],
        bias: Public = 0.0,
        *,
        frac: int | None = None,
        scale: int | None = None,
    ) -> Step[Shared]:
        """As `public.combine`."""
        first = same(xs, factors)
        values = [torch.as_tensor(v).shape for v in (*factors, bias)]
        return self._public(linear.broadcast(*(x.shape for x in xs), *values), first, frac, scale)

    def truncate(self, x: Shared, frac: int, *, ring: Ring | None = None, exact: bool = False) -> Step[Shared]:
        """As `truncate.shared` or `exact.shared`."""
        linear.coarser(x, frac)
        out = ring or x.ring
        cut = widths(x.ring, x.frac, frac, out)
        if exact and cut.shift:
            return self._exact(x, frac, cut)
        return self._with(meta(x.shape, frac, out), costs.shared(x.numel, cut))

    def _exact(self, x: Shared, frac: int, cut: Widths) -> Step[Shared]:
        yield from costs.shared(x.numel, wide(cut))
        yield from together(
            *(send(costs_bits.exceeds(s.numel, cut.shift, mask_owner(s.rotation))) for s in slices(x.numel))
        )
        yield from costs_bits.from_bits(x.numel, 1, cut.out)
        return meta(x.shape, frac, cut.out)

    def _with(self, result: T, rounds: Rounds) -> Step[T]:
        yield from rounds
        return result

    def lookup(self, points: Points, table: Shared | Tensor, *, frac: int | None = None) -> Step[Shared]:
        """As `lookup.secret_table` or `lookup.public_table`."""
        shape, secret = (*points.shape, table.shape[1]), isinstance(table, Shared)
        if isinstance(table, Shared):
            out = meta(shape, table.frac, table.ring)
        else:
            out = meta(shape, self._frac(frac), self.ring)
        return self._with(
            out, costs.reshare(out.numel, out.ring) if secret else costs.public_lookup(out.numel, out.ring)
        )

    def pick(self, x: Shared, cells: Cells, tables: Tensor) -> Step[Shared]:
        """As `pick.pick`."""
        out = meta((len(tables), *x.shape), 0, x.ring)
        return self._with(out, costs.pick(x.numel, cells, len(tables), x.ring))

    def pick_product(
        self, x: Shared, y: Shared, offset: float, cells: Cells, tables: Tensor
    ) -> Step[tuple[Shared, Shared]]:
        """As `pick.pick_product`."""
        z = meta(linear.product_shape(x.shape, y.shape), x.frac + y.frac, x.ring)
        picked = meta((len(tables), *z.shape), 0, x.ring)
        return self._with((z, picked), costs.pick_product(z.numel, cells, len(tables), x.ring))

    def highest(self, x: Shared, row: Tensor, *, shift: int, bins: int) -> Step[Shared]:
        """As `unary.highest`."""
        out = meta((int(row[-1]) + 1,), 0, x.ring)
        return self._with(out, costs.highest(row, bins))

    # ------------------------------------------------------------------ bits
    def negative(self, x: Shared, *, bound: float, drop: int = 0) -> Step[SharedBits]:
        """As `compare.negative`."""
        return self._with(meta_bits(x.shape, 1), self._below(x, bound, drop))

    def below(self, x: Shared, thresholds: Sequence[float], *, bound: float, drop: int = 0) -> Step[list[SharedBits]]:
        """As `compare.below`."""
        found = [meta_bits(x.shape, 1) for _ in thresholds]
        return self._with(found, self._below(x, bound, drop, len(found)))

    def _below(self, x: Shared, bound: float, drop: int, sums: int = 1) -> Rounds:
        return costs_bits.below(x.numel, x.ring, x.frac, bound, drop, sums, self.schedule)

    def is_zero(self, x: Shared, *, bound: float) -> Step[SharedBits]:
        """As `compare.is_zero`."""
        return self._with(meta_bits(x.shape, 1), costs_bits.is_zero(x.numel, x.ring, x.frac, bound))

    def to_bits(self, x: Shared, *, planes: int) -> Step[SharedBits]:
        """As `convert.to_bits`."""
        return self._with(meta_bits(x.shape, planes), costs_bits.to_bits(x.numel, planes, self.schedule))

    def xor(self, a: SharedBits, b: SharedBits) -> SharedBits:
        """As `boolean.xor`."""
        return boolean.xor(a, b)

    def invert(self, a: SharedBits) -> SharedBits:
        """As `boolean.invert`."""
        return a

    def both(self, a: SharedBits, b: SharedBits) -> Step[SharedBits]:
        """As `boolean.both`."""
        result = boolean.xor(a, b)
        return self._with(result, costs_bits.both(result.numel, result.planes))

    def from_bits(self, a: SharedBits, *, ring: Ring | None = None) -> Step[Shared]:
        """As `convert.from_bits`."""
        out = ring or self.ring
        return self._with(meta((a.planes, *a.shape), 0, out), costs_bits.from_bits(a.numel, a.planes, out))

    def select(self, bit: SharedBits, x: Shared) -> Step[Shared]:
        """As `convert.select`."""
        return self.select_sum([bit], [x])

    def select_sum(
        self, bits: Sequence[SharedBits], xs: Sequence[Shared], *, frac: int | None = None, ring: Ring | None = None
    ) -> Step[Shared]:
        """As `convert.select_sum`."""
        x = xs[0]
        scale, out = x.frac if frac is None else frac, ring or x.ring
        widths = None if frac is None else Widths(x.ring, out, x.frac - scale)
        joined = None if widths is None or widths.local else widths
        early = joined is not None and deals_mask(self.schedule, x.numel, joined)
        return self._with(meta(x.shape, scale, out), costs_bits.select(x.numel, x.ring, len(bits), joined, early))

    # ------------------------------------------------------------------ order of elements
    def shuffle(self, x: Shared) -> Step[Shared]:
        """As `shuffle.shuffle`."""
        return self._with(meta(x.shape, x.frac, x.ring), costs_bits.shuffle(x.numel, x.ring))

    def contribute(
        self,
        make: Callable[[], Tensor],
        shape: tuple[int, ...],
        *,
        dealer: int,
        frac: int | None = None,
        ring: Ring | None = None,
    ) -> Step[Shared]:
        """As `contribute.contribute`."""
        out = meta(shape, self._frac(frac), ring or self.ring)
        return self._with(out, costs.contribute(out.numel, out.ring, dealer))

    def open(self, x: Shared) -> Step[Tensor]:
        """As `opening.open_all`."""
        return self._with(x.parts[0], costs.open_all(x.numel, x.ring))
