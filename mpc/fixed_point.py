"""Fixed point: reals as integers scaled by 2^frac, saturated at the declared range."""

from __future__ import annotations

import torch
from torch import Tensor

from hush.mpc.ring import Ring


def limit(ring: Ring, frac: int) -> float:
    """Largest magnitude that encodes: 2^(k-2-2f), so that a product by a value below one still truncates exactly.

    At k=64, f=18 this is 2^26. With few ring bits it is at least one unit.
    """
    return float(2.0 ** max(ring.bits - 2 - 2 * frac, -frac))


def encode(value: Tensor | float, ring: Ring, frac: int) -> Tensor:
    """Ring elements round(value * 2^frac), saturated at ±`limit`; infinities saturate, NaN becomes 0.

    Callers that must refuse NaN check before (`hush.mpc.errors.RangeError`).
    """
    real = torch.as_tensor(value).detach().to(torch.float64)
    top = limit(ring, frac)
    real = torch.nan_to_num(real, nan=0.0, posinf=top, neginf=-top).clamp(-top, top)
    return ring.reduce(torch.round(real * 2.0**frac).to(torch.int64))


def decode(element: Tensor, ring: Ring, frac: int) -> Tensor:
    """Real values (float64) of ring elements in two's complement."""
    return ring.signed(element).to(torch.float64) * 2.0**-frac
