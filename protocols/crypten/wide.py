"""Narrow rings' place in a protocol that has only 2^64."""

from __future__ import annotations

import torch
from torch import Tensor

from hush.mpc.ring import Ring


class Wide(Ring):
    """Elements of Z_2^64 that stand where a program asked for Z_2^bits. Equal to the ring whose place it takes.

    A value that fits the narrow ring is the same number in both, and every sum, product and truncation of such values
    is. One that does not fit would have wrapped there and does not here: functions discard it by an exact selection
    (`Protocol.unchecked`), or ask for the wrapped value by `Protocol.wrap`.
    """

    __slots__ = ()

    @property
    def dtype(self) -> torch.dtype:
        """Storage: int64, whatever `bits`."""
        return torch.int64

    @property
    def native(self) -> bool:
        """int64 arithmetic wraps as the elements do."""
        return True

    def reduce(self, x: Tensor) -> Tensor:
        """The same number."""
        return x.to(torch.int64)

    def signed(self, x: Tensor) -> Tensor:
        """The same number."""
        return x

    def shift_right(self, x: Tensor, count: int) -> Tensor:
        """An element here has no unsigned representative of `bits` bits."""
        raise TypeError("elements of a wide ring are not shifted: use Protocol.truncate")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ring) and other.bits == self.bits

    def __hash__(self) -> int:
        return hash((self.bits,))


def widened(ring: Ring) -> Ring:
    """What stands for a ring here."""
    return ring if ring.bits == 64 else Wide(ring.bits)
