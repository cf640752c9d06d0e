"""`Plain`: a program's primitives in float64. What it returns is "float with approximations"."""

from __future__ import annotations

import torch
from torch import Tensor

from hush.mpc import fixed_point
from hush.mpc.protocol import Public
from hush.mpc.ring import RING64, Ring
from hush.mpc.ring.kernels import Kernels
from hush.mpc.secret import Shared
from hush.protocols.plain.reals import Reals
from hush.protocols.plain.single import Bilinear, Product, SingleProcess


class Plain(SingleProcess):
    """The primitives without rounding and without wrap-around, on float64 in one process.

    An element is value * 2^frac, not rounded, so that `Shared.with_frac`, `rescale` and `scale` keep their meaning;
    powers of two are exact in float64. Truncation does not round unless `exact` asks for the floor itself. `to_bits`
    gives the bits of floor(value * 2^frac). Public values saturate where they would in the ring; nothing else does.
    """

    name = "plain"

    def __init__(self, ring: Ring = RING64, frac: int = 18, kernels: Kernels | None = None) -> None:
        super().__init__(ring, frac, kernels)

    def _ring(self, ring: Ring) -> Ring:
        return Reals(ring.bits)

    def _encode(self, primitive: str, value: Public, frac: int, ring: Ring) -> Tensor:
        top = fixed_point.limit(Ring(ring.bits), frac)
        real = torch.as_tensor(value, dtype=torch.float64).detach()
        return torch.nan_to_num(real, nan=0.0, posinf=top, neginf=-top).clamp(-top, top) * 2.0**frac

    def wrap(self, x: Shared) -> Shared:
        """The value that the ring of this width would hold, unrounded."""
        period = 2.0**x.ring.bits
        return x.local(lambda t: t - period * torch.floor(t / period + 0.5))

    def _product(self, op: Bilinear, x: Shared, y: Shared) -> Product:
        element = op.real(x.parts[0], y.parts[0])
        return Product(Shared((element,), x.frac + y.frac, x.ring), 0.0, lambda: element)

    def _settle(self, primitive: str, z: Product, frac: int, ring: Ring, *, exact: bool = False) -> Shared:
        element = z.value.parts[0] * 2.0 ** (frac - z.value.frac)
        return Shared((torch.floor(element) if exact else element,), frac, ring)

    def _units(self, x: Shared) -> Tensor:
        return torch.floor(x.parts[0]).to(torch.int64)

    def _within(self, primitive: str, x: Shared, bound: float) -> None:
        """A float has no range to leave."""
