"""Fixed point: reals as integers scaled by 2^frac, saturated at the declared range."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from hush.mpc.ring import Ring


def limit(ring: Ring, frac: int) -> float:
    """Largest magnitude that encodes: 2^(k-2-2f), so that a product by a value below one still truncates exactly.

    At k=64, f=18 this is 2^26. A scale too fine for products (2f > k-2: the bias added to a product before it is
    truncated) saturates at 2^(k-3-f) instead, which still truncates: 2^25 at k=64, f=36. At least one unit.
    """
    if 2 * frac > ring.bits - 2:
        return float(2.0 ** max(ring.bits - 3 - frac, -frac))
    return float(2.0 ** (ring.bits - 2 - 2 * frac))


def encode(value: Tensor | float, ring: Ring, frac: int) -> Tensor:
    """Ring elements round(value * 2^frac), saturated at ±`limit`; infinities saturate, NaN becomes 0.

    Callers that must refuse NaN check before (`hush.mpc.errors.RangeError`).
    """
    if isinstance(value, float | int):
        return _encoded_number(float(value), ring, frac)
    return _encoded(value, ring, frac)


@lru_cache(maxsize=4096)
def _encoded_number(value: float, ring: Ring, frac: int) -> Tensor:
    """Numbers come again in every layer; nobody writes to an encoding."""
    return _encoded(torch.tensor(value, dtype=torch.float64), ring, frac)


def _encoded(value: Tensor, ring: Ring, frac: int) -> Tensor:
    real = value.to(torch.float64).detach()  # a Python float as it is, not by way of float32
    top = limit(ring, frac)
    real = torch.nan_to_num(real, nan=0.0, posinf=top, neginf=-top).clamp(-top, top)
    return ring.reduce(torch.round(real * 2.0**frac).to(torch.int64))


def decode(element: Tensor, ring: Ring, frac: int) -> Tensor:
    """Real values (float64) of ring elements in two's complement."""
    return ring.signed(element).to(torch.float64) * 2.0**-frac
