"""`Replicated`: the primitives at one of three parties."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hush.mpc.protocol import ConvShape, Public
from hush.mpc.ring import RING64, Ring
from hush.mpc.secret import Shared
from hush.mpc.step import Step
from hush.protocols.replicated import opening, products, public, truncate
from hush.protocols.replicated.cost import ReplicatedCost
from hush.protocols.replicated.local import LocalPrimitives
from hush.protocols.replicated.party import Party

__all__ = ["Replicated", "ReplicatedCost"]


class Replicated(LocalPrimitives):
    """Replicated secret sharing among three, semi-honest, as seen by `party`.

    Steps, views, rounds, bits, errors and leakage of each primitive are stated where it delegates to.
    """

    name = "replicated"

    def __init__(self, party: Party, ring: Ring = RING64, frac: int = 18) -> None:
        super().__init__(ring, frac, truncate.zero_part(party.index))
        self.party = party

    def _matmul(self, part: Tensor, matrix: Tensor, ring: Ring) -> Tensor:
        return self.party.kernels.matmul(part, matrix, ring)

    # ------------------------------------------------------------------ products
    def mul(self, x: Shared, y: Shared, *, frac: int | None = None, ring: Ring | None = None) -> Step[Shared]:
        """`products.mul`."""
        return products.mul(self.party, x, y, self._frac(frac), ring or x.ring)

    def matmul(self, x: Shared, y: Shared, *, frac: int | None = None, ring: Ring | None = None) -> Step[Shared]:
        """`products.matmul`."""
        return products.matmul(self.party, x, y, self._frac(frac), ring or x.ring)

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
        return public.matmul_public(self.party, x, matrix, self._frac(frac), self._frac(scale))

    def conv_public(
        self, x: Shared, w: Tensor, geometry: ConvShape, *, frac: int | None = None, scale: int | None = None
    ) -> Step[Shared]:
        """`public.conv_public`."""
        return public.conv_public(self.party, x, w, geometry, self._frac(frac), self._frac(scale))

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
        """`truncate.shared`."""
        return truncate.shared(self.party, x, frac, ring or x.ring)

    def open(self, x: Shared) -> Step[Tensor]:
        """`opening.open_all`."""
        return opening.open_all(self.party, x)
