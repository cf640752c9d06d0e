"""The ring Z_2^k of a tensor's elements."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ring:
    """Z_2^bits. 64 and 32 are native (two's complement wraps by itself); other widths keep elements in [0, 2^bits).

    Other widths serve exhaustive tests (bits=4) and narrow messages; `reduce` is the identity for the native ones.
    """

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 64:
            raise ValueError(f"ring width {self.bits} is not in 1..64")

    @property
    def dtype(self) -> torch.dtype:
        """Storage: int64 above 32 bits, else int32."""
        return torch.int64 if self.bits > 32 else torch.int32

    @property
    def native(self) -> bool:
        """Whether two's complement arithmetic of the dtype is the ring's."""
        return self.bits in (32, 64)

    def reduce(self, x: Tensor) -> Tensor:
        """The ring element that an integer tensor stands for, in this ring's storage."""
        if self.native:
            return x if x.dtype == self.dtype else x.to(self.dtype)
        return (x & ((1 << self.bits) - 1)).to(self.dtype)

    def settle(self, x: Tensor) -> Tensor:
        """`reduce` of a tensor that is nobody else's, in place where its storage is the ring's already."""
        if self.native or x.dtype != self.dtype:
            return self.reduce(x)
        return x.bitwise_and_((1 << self.bits) - 1)

    def signed(self, x: Tensor) -> Tensor:
        """Two's complement value in [-2^(bits-1), 2^(bits-1)), int64."""
        wide = x.to(torch.int64)
        if self.native:
            return wide
        half = 1 << (self.bits - 1)
        return ((wide + half) & ((1 << self.bits) - 1)) - half

    def shift_right(self, x: Tensor, count: int) -> Tensor:
        """Logical right shift: the element as an unsigned number, divided by 2^count and rounded down."""
        if count == 0:
            return x
        if count >= self.bits:
            return torch.zeros_like(x)
        return (x >> count).bitwise_and_((1 << (self.bits - count)) - 1)


RING64 = Ring(64)
RING32 = Ring(32)
