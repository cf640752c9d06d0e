"""`Fixed`: ring arithmetic in one process; bit for bit what the parties compute, but for the rounding of truncation."""

from __future__ import annotations

import copy
import math
from typing import Self

import torch
from torch import Tensor

from hush.mpc import fixed_point
from hush.mpc.errors import RangeError
from hush.mpc.protocol import Public
from hush.mpc.ring import RING64, Ring
from hush.mpc.ring.kernels import Kernels
from hush.mpc.secret import Shared
from hush.protocols.fixed.violations import Violation
from hush.protocols.plain.single import Bilinear, Product, SingleProcess, magnitude


class Fixed(SingleProcess):
    """The primitives on one ring tensor per secret (int64 or int32), truncation by floor.

    Linear and boolean primitives equal every other protocol's bit for bit; where others truncate to the floor or one
    more, this one returns the floor. `violations` records what a protocol need not compute correctly: values of
    2^(k-2) units or more before a truncation, results too large for their ring, comparison inputs beyond the declared
    bound, public values that saturate. With `strict` the first of them raises `RangeError`.
    """

    name = "fixed"

    def __init__(
        self, ring: Ring = RING64, frac: int = 18, kernels: Kernels | None = None, *, strict: bool = False
    ) -> None:
        super().__init__(ring, frac, kernels)
        self.strict, self.place = strict, ""
        self.violations: list[Violation] = []

    def unchecked(self) -> Self:
        """The same arithmetic without a record."""
        twin = copy.copy(self)
        twin.strict, twin.violations = False, []
        return twin

    def _ring(self, ring: Ring) -> Ring:
        return ring

    def _encode(self, primitive: str, value: Public, frac: int, ring: Ring) -> Tensor:
        real = torch.as_tensor(value, dtype=torch.float64).detach()
        if real.numel():
            self._check(primitive, float(real.abs().max()), fixed_point.limit(ring, frac), inclusive=True)
        return fixed_point.encode(real, ring, frac)

    def _product(self, op: Bilinear, x: Shared, y: Shared) -> Product:
        element = op.exact(x.parts[0], y.parts[0], x.ring)
        a, b = x.ring.signed(x.parts[0]), y.ring.signed(y.parts[0])
        bound = magnitude(a) * magnitude(b) * op.terms
        return Product(Shared((element,), x.frac + y.frac, x.ring), bound, lambda: op.real(a.double(), b.double()))

    def _settle(self, primitive: str, z: Product, frac: int, ring: Ring, *, exact: bool = False) -> Shared:
        have, source = z.value.frac, z.value.ring
        shift = have - frac
        top = min(math.ldexp(1.0, source.bits - (2 if shift > 0 else 1)), math.ldexp(1.0, ring.bits - 1 + shift))
        # the bound is cheap and nearly always enough; the float product is formed only where it is not
        peak = z.bound if z.bound < top else magnitude(z.real())
        self._check(primitive, math.ldexp(peak, -have), math.ldexp(top, -have))
        signed = source.signed(z.value.parts[0])
        moved = signed >> shift if shift >= 0 else signed << -shift
        return Shared((ring.reduce(moved),), frac, ring)

    def _units(self, x: Shared) -> Tensor:
        return x.ring.signed(x.parts[0])

    def _within(self, primitive: str, x: Shared, bound: float) -> None:
        peak = math.ldexp(magnitude(self._units(x)), -x.frac)
        self._check(primitive, peak, bound, inclusive=True)

    def _check(self, primitive: str, magnitude: float, limit: float, *, inclusive: bool = False) -> None:
        """Record a magnitude that is not below `limit` (not at most, if `inclusive`); NaN never is."""
        if magnitude < limit or (inclusive and magnitude == limit):
            return
        found = Violation(primitive, magnitude, limit, self.place)
        self.violations.append(found)
        if self.strict:
            raise RangeError(f"{found}; widen the declared range, scale the value down, or choose fewer fraction bits")
