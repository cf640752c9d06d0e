"""Outside a run: two additive shares of ring elements, and back."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor


def deal(elements: Tensor) -> tuple[Tensor, Tensor]:
    """Shares (r, x - r) in 2^64, r from the system's generator."""
    wide = elements.to(torch.int64)
    size = 8 * wide.numel()
    mask = (
        torch.frombuffer(bytearray(os.urandom(size)), dtype=torch.int64) if size else torch.empty(0, dtype=torch.int64)
    )
    mask = mask.reshape(wide.shape)
    return mask, wide - mask


def reconstruct(shares: Sequence[Tensor]) -> Tensor:
    """The elements. Fractions are then decoded by `fixed_point.decode`: CrypTen's decoder is off by one unit on some
    negative numbers."""
    first, second = shares
    return first + second
