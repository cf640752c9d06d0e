"""The primitives without messages, as they are for a party and for the cost model alike."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from hush.mpc.beside import beside
from hush.mpc.protocol import Protocol, Public
from hush.mpc.ring import RING64, Ring
from hush.mpc.schedule import LAN, Schedule
from hush.mpc.secret import Shared
from hush.protocols.replicated import linear


class LocalPrimitives(Protocol):
    """`zeroth` is the part that holds component 0, to which public summands go (None: neither part does). `device`:
    where parts lie."""

    def __init__(
        self,
        ring: Ring = RING64,
        frac: int = 18,
        schedule: Schedule = LAN,
        *,
        zeroth: int | None = None,
        device: torch.device = linear.MAIN,
    ) -> None:
        self.ring, self.frac, self.schedule, self.zeroth, self.device = ring, frac, schedule, zeroth, device

    @abstractmethod
    def _matmul(self, part: Tensor, matrix: Tensor, ring: Ring) -> Tensor:
        """part @ matrix in the ring."""

    def constant(self, value: Tensor | float, *, frac: int | None = None, ring: Ring | None = None) -> Shared:
        """A public value as component 0, the others zero."""
        return linear.constant(value, self._frac(frac), ring or self.ring, self.zeroth, device=self.device)

    def add(self, x: Shared, y: Shared) -> Shared:
        """x + y."""
        return linear.add(x, y)

    def sub(self, x: Shared, y: Shared) -> Shared:
        """x - y."""
        return linear.sub(x, y)

    def neg(self, x: Shared) -> Shared:
        """-x."""
        return linear.neg(x)

    def add_public(self, x: Shared, value: Public) -> Shared:
        """x + value on component 0."""
        return linear.add_public(x, value, self.zeroth)

    def scale(self, x: Shared, factor: Tensor | int) -> Shared:
        """x * public integers on every component."""
        return linear.scale(x, factor)

    def rescale(self, x: Shared, frac: int) -> Shared:
        """A left shift of every component."""
        return linear.rescale(x, frac)

    def matmul_int(self, x: Shared, matrix: Tensor) -> Shared:
        """x @ public integers on every component."""
        element = beside(linear.integers(matrix, x.ring), x.device)
        return x.local(lambda t: self._matmul(t, element, x.ring))

    def _frac(self, frac: int | None) -> int:
        return self.frac if frac is None else frac
