"""`Replicated`: the primitives at one of three parties."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from hush.mpc.beside import beside
from hush.mpc.cells import Cells
from hush.mpc.fixed_point import encode
from hush.mpc.points import Points
from hush.mpc.protocol import ConvShape, Public
from hush.mpc.ring import RING64, Ring
from hush.mpc.schedule import LAN, Schedule
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.step import Step
from hush.protocols.replicated import (
    boolean,
    compare,
    convert,
    linear,
    lookup,
    opening,
    products,
    public,
    truncate,
    unary,
)
from hush.protocols.replicated import exact as exactly
from hush.protocols.replicated import pick as picking
from hush.protocols.replicated import shuffle as shuffling
from hush.protocols.replicated.contribute import contribute
from hush.protocols.replicated.cost import ReplicatedCost
from hush.protocols.replicated.encoded import Encoded
from hush.protocols.replicated.local import LocalPrimitives
from hush.protocols.replicated.party import Party

__all__ = ["Replicated", "ReplicatedCost"]


class Replicated(LocalPrimitives):
    """Replicated secret sharing among three, semi-honest, as seen by `party`.

    Steps, views, rounds, bits, errors and leakage of each primitive are stated where it delegates to.
    """

    name = "replicated"

    def __init__(
        self,
        party: Party,
        ring: Ring = RING64,
        frac: int = 18,
        schedule: Schedule = LAN,
        encoded: Encoded | None = None,
    ) -> None:
        super().__init__(ring, frac, schedule, zeroth=truncate.zero_part(party.index), device=party.kernels.device)
        self.party, self._encoded = party, Encoded() if encoded is None else encoded

    def _weight(self, value: Tensor, x: Shared, scale: int) -> Tensor:
        """A public weight as ring elements where x is."""
        return beside(self._encoded(value, x.ring, scale), x.device)

    def _matmul(self, part: Tensor, matrix: Tensor, ring: Ring) -> Tensor:
        return self.party.kernels.matmul(part, matrix, ring)

    def affine(
        self, xs: Sequence[Shared], factors: Sequence[int], biases: Sequence[float] = (), *, frac: int | None = None
    ) -> Shared:
        """`linear.affine`."""
        return linear.affine(self.party.kernels, xs, factors, biases, xs[0].frac if frac is None else frac, self.zeroth)

    # ------------------------------------------------------------------ products
    def mul(self, x: Shared, y: Shared, *, frac: int | None = None, ring: Ring | None = None) -> Step[Shared]:
        """`products.mul`."""
        return products.mul(self.party, x, y, self._frac(frac), ring or x.ring)

    def matmul(self, x: Shared, y: Shared, *, frac: int | None = None, ring: Ring | None = None) -> Step[Shared]:
        """`products.matmul`."""
        return products.matmul(self.party, x, y, self._frac(frac), ring or x.ring)

    def matmul_add(
        self, x: Shared, matrix: Shared | Tensor, y: Shared, factor: Shared | Tensor, *, frac: int | None = None
    ) -> Step[Shared]:
        """`products.matmul_add`, or `public.matmul_public` of two terms."""
        if isinstance(matrix, Shared) and isinstance(factor, Shared):
            return products.matmul_add(self.party, x, matrix, y, factor, self._frac(frac))
        assert isinstance(matrix, Tensor)
        assert isinstance(factor, Tensor)
        left, right = (self._weight(w, x, self.frac) for w in (matrix, factor))
        return public.matmul_public(self.party, x, left, self._frac(frac), self.frac, (y, right))

    def conv(self, x: Shared, w: Shared, geometry: ConvShape, *, frac: int | None = None) -> Step[Shared]:
        """`products.conv`."""
        return products.conv(self.party, x, w, geometry, self._frac(frac))

    def mul_public(
        self, x: Shared, value: Public, *, frac: int | None = None, scale: int | None = None
    ) -> Step[Shared]:
        """`public.combine` of one term."""
        return public.combine(self.party, [x], [value], 0.0, self._frac(frac), self._frac(scale))

    def matmul_public(
        self, x: Shared, matrix: Tensor, *, frac: int | None = None, scale: int | None = None
    ) -> Step[Shared]:
        """`public.matmul_public`."""
        weight = self._weight(matrix, x, self._frac(scale))
        return public.matmul_public(self.party, x, weight, self._frac(frac), self._frac(scale))

    def conv_public(
        self, x: Shared, w: Tensor, geometry: ConvShape, *, frac: int | None = None, scale: int | None = None
    ) -> Step[Shared]:
        """`public.conv_public`."""
        kernel = self._weight(w, x, self._frac(scale))
        return public.conv_public(self.party, x, kernel, geometry, self._frac(frac), self._frac(scale))

    def combine(
        self,
        xs: Sequence[Shared],
        factors: Sequence[Public],
        bias: Public = 0.0,
        *,
        frac: int | None = None,
        scale: int | None = None,
    ) -> Step[Shared]:
        """`public.combine`."""
        return public.combine(self.party, xs, factors, bias, self._frac(frac), self._frac(scale))

    def truncate(self, x: Shared, frac: int, *, ring: Ring | None = None, exact: bool = False) -> Step[Shared]:
        """`truncate.shared`, or `exact.shared`."""
        step = exactly.shared if exact else truncate.shared
        return step(self.party, x, frac, ring or x.ring)

    def lookup(self, points: Points, table: Shared | Tensor, *, frac: int | None = None) -> Step[Shared]:
        """`lookup.secret_table`, or `lookup.public_table`."""
        if isinstance(table, Shared):
            return lookup.secret_table(self.party, points, table)
        scale = self._frac(frac)
        rows = beside(self._encoded(table, self.ring, scale), self.device)
        return lookup.public_table(self.party, points, rows, scale, self.ring)

    def pick(self, x: Shared, cells: Cells, tables: Tensor) -> Step[Shared]:
        """`pick.pick`."""
        return picking.pick(self.party, x, cells, tables)

    def pick_product(
        self, x: Shared, y: Shared, offset: float, cells: Cells, tables: Tensor
    ) -> Step[tuple[Shared, Shared]]:
        """`pick.pick_product` of `products.local_product`."""
        z, frac = products.local_product(self.party, x, y), x.frac + y.frac
        return picking.pick_product(self.party, z, frac, int(encode(offset, RING64, frac)), cells, tables)

    def highest(self, x: Shared, row: Tensor, *, shift: int, bins: int) -> Step[Shared]:
        """`unary.highest`."""
        return unary.highest(self.party, x, row, shift, bins)

    # ------------------------------------------------------------------ bits
    def negative(self, x: Shared, *, bound: float, drop: int = 0) -> Step[SharedBits]:
        """`compare.negative`."""
        return compare.negative(self.party, x, bound=bound, drop=drop, schedule=self.schedule)

    def below(self, x: Shared, thresholds: Sequence[float], *, bound: float, drop: int = 0) -> Step[list[SharedBits]]:
        """`compare.below`."""
        return compare.below(self.party, x, thresholds, bound=bound, drop=drop, schedule=self.schedule)

    def is_zero(self, x: Shared, *, bound: float) -> Step[SharedBits]:
        """`compare.is_zero`."""
        return compare.is_zero(self.party, x, bound=bound)

    def to_bits(self, x: Shared, *, planes: int) -> Step[SharedBits]:
        """`convert.to_bits`."""
        return convert.to_bits(self.party, x, planes=planes, schedule=self.schedule)

    def xor(self, a: SharedBits, b: SharedBits) -> SharedBits:
        """`boolean.xor`."""
        return boolean.xor(a, b)

    def invert(self, a: SharedBits) -> SharedBits:
        """`boolean.invert`."""
        return boolean.invert(self.party, a)

    def both(self, a: SharedBits, b: SharedBits) -> Step[SharedBits]:
        """`boolean.both`."""
        return boolean.both(self.party, a, b)

    def from_bits(self, a: SharedBits, *, ring: Ring | None = None) -> Step[Shared]:
        """`convert.from_bits`."""
        return convert.from_bits(self.party, a, ring or self.ring)

    def select(self, bit: SharedBits, x: Shared) -> Step[Shared]:
        """`convert.select`."""
        return convert.select(self.party, bit, x)

    def select_sum(
        self, bits: Sequence[SharedBits], xs: Sequence[Shared], *, frac: int | None = None, ring: Ring | None = None
    ) -> Step[Shared]:
        """`convert.select_sum`."""
        return convert.select_sum(self.party, bits, xs, frac, ring, self.schedule)

    # ------------------------------------------------------------------ order of elements
    def shuffle(self, x: Shared) -> Step[Shared]:
        """`shuffle.shuffle`."""
        return shuffling.shuffle(self.party, x)

    def contribute(
        self,
        make: Callable[[], Tensor],
        shape: tuple[int, ...],
        *,
        dealer: int,
        frac: int | None = None,
        ring: Ring | None = None,
    ) -> Step[Shared]:
        """`contribute.contribute`."""
        return contribute(self.party, make, shape, dealer, self._frac(frac), ring or self.ring)

    def open(self, x: Shared) -> Step[Tensor]:
        """`opening.open_all`."""
        return opening.open_all(self.party, x)
