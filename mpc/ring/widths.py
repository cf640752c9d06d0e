"""The widths of one truncation, and the bit arithmetic that its roles share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hush.mpc.ring.ring import Ring


@dataclass(frozen=True, slots=True)
class Widths:
    """From ring 2^k to ring 2^k', dropping `shift` = f fraction bits.

    With k' <= k-f every party can shift alone (`local`); else the fused protocol serves, on h = k-1-f high bits and the
    ring 2^e above them, e = k'-h >= 2.
    """

    ring: Ring
    out: Ring
    shift: int

    def __post_init__(self) -> None:
        if not 0 <= self.shift <= self.ring.bits - 2:
            raise ValueError(
                f"cannot drop {self.shift} fraction bits in 2^{self.ring.bits}: at most {self.ring.bits - 2} can go"
            )

    @property
    def local(self) -> bool:
        """Whether a shift of each component is a truncation already (no high part can be lost by a carry)."""
        return self.out.bits <= self.ring.bits - self.shift

    @property
    def high(self) -> int:
        """h: bits of c and r between the dropped ones and the top one."""
        return self.ring.bits - 1 - self.shift

    @property
    def top(self) -> Ring:
        """Z_2^e, where the wrap of c - r is corrected."""
        return Ring(self.out.bits - self.high)

    @property
    def offset(self) -> int:
        """2^(k-2), which makes every valid z non-negative."""
        return 1 << (self.ring.bits - 2)

    @property
    def bits(self) -> tuple[int, int, int]:
        """Bits of the ring, of the output's, and dropped."""
        return self.ring.bits, self.out.bits, self.shift

    def sign(self, element: Tensor) -> Tensor:
        """0 or -1: the element's top bit, spread over the storage."""
        if self.ring.native:
            return element >> (self.ring.bits - 1)
        return -(element >> (self.ring.bits - 1))

    def middle(self, element: Tensor) -> Tensor:
        """The h bits between the dropped ones and the top one, in the output's storage."""
        return (element >> self.shift).bitwise_and_((1 << self.high) - 1).to(self.out.dtype)

    def raise_top(self, element: Tensor) -> Tensor:
        """element * 2^h in the output's storage, not reduced."""
        return element.to(self.out.dtype) << self.high


def flip(element: Tensor, sign: Tensor) -> Tensor:
    """(1 - 2 bit) * element, for sign = -bit."""
    sign = sign.to(element.dtype)
    return torch.bitwise_xor(element, sign).sub_(sign)
