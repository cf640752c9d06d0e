"""Time series to look at: the sample inputs of the networks that forecast."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def wave(batch: int, steps: int, variates: int, seed: int) -> Tensor:
    """[B, steps, variates]: two waves and a slow drift each, periods and phases by the seed; values within ±3."""
    numbers = torch.Generator().manual_seed(seed)

    def drawn(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, 1, variates, generator=numbers)

    time = torch.arange(steps, dtype=torch.float32).reshape(1, -1, 1)
    slow = torch.sin(2 * math.pi * (time / drawn(20, 30) + drawn(0, 1)))
    fast = torch.sin(2 * math.pi * (time / drawn(5, 9) + drawn(0, 1)))
    return drawn(-0.5, 0.5) + slow + 0.5 * fast + drawn(-0.5, 0.5) * time / steps
