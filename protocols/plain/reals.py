"""The ring of the float reference: it takes a ring's place and neither rounds nor wraps."""

from __future__ import annotations

import torch
from torch import Tensor

from hush.mpc.ring import Ring


class Reals(Ring):
    """float64 numbers in the place of Z_2^bits: elements are value * 2^frac, unrounded.

    Equal to the ring whose place it takes, so that code which compares rings runs unchanged.
    """

    __slots__ = ()

    @property
    def dtype(self) -> torch.dtype:
        """Storage: float64."""
        return torch.float64

    def reduce(self, x: Tensor) -> Tensor:
        """The number itself."""
        return x.to(torch.float64)

    def signed(self, x: Tensor) -> Tensor:
        """The number itself, not rounded."""
        return x

    def shift_right(self, x: Tensor, count: int) -> Tensor:
        """A real number has no unsigned representative."""
        raise TypeError("the float reference has no ring elements to shift: use Protocol.truncate")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ring) and other.bits == self.bits

    def __hash__(self) -> int:
        return hash((self.bits,))
