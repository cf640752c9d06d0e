"""Square root of a secret."""

from __future__ import annotations

import math
from functools import cache

import torch

from hush.mpc.functions.chebyshev import evaluate, interpolate
from hush.mpc.functions.declare import declare
from hush.mpc.functions.normalise import WORKING_FRAC, mantissa_variable, normalise
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step


@cache
def _coefficients() -> tuple[float, ...]:
    """sqrt(m) in t = 4m - 3: error 6e-8 on the octave."""
    return interpolate(lambda t: ((t + 3) / 4).sqrt())


@declare(
    "sqrt",
    domain=(0.0, 2.0**14),
    error=1e-5,
    outside="undefined above the bound",
    reference=torch.sqrt,
)
def sqrt(p: Protocol, x: Shared, *, bound: float, floor: float | None = None, frac: int | None = None) -> Step[Shared]:
    """sqrt(x) at `frac` fraction bits (default: x.frac); x = m 2^n, sqrt(m) by a polynomial, 2^(n/2) by a table.

    Domain: floor <= x <= bound; the floor may stay at its default of one unit of x.
    Error: relative 2^-21 plus one unit of the result.
    Outside: 0 below half the floor, so sqrt(0) = 0; undefined above the bound.
    Rounds: normalise and 4 truncated products.
    """
    parts = yield from normalise(p, x, bound=bound, floor=2.0**-x.frac if floor is None else floor)
    scale = min(WORKING_FRAC, 59 - WORKING_FRAC - parts.top // 2)
    units = [_root_of_power(n, scale) for n in parts.exponents()]
    factor = parts.table(p, units, frac=scale)
    t = mantissa_variable(p, parts.signed_mantissa)
    root = yield from evaluate(p, t, _coefficients())
    return (yield from p.mul(root, factor, frac=x.frac if frac is None else frac))


def _root_of_power(exponent: int, frac: int) -> int:
    """round(2^(exponent/2) * 2^frac)."""
    return round(math.sqrt(2.0) ** (exponent % 2) * 2.0 ** (exponent // 2 + frac))
