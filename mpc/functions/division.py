"""Quotients of secrets."""

from __future__ import annotations

import math

from hush.mpc.functions.normalise import WORKING_FRAC
from hush.mpc.functions.reciprocal import reciprocal
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step


def divide(
    p: Protocol,
    x: Shared,
    y: Shared,
    *,
    bound: float,
    floor: float,
    quotient: float,
    signed: bool = False,
    frac: int | None = None,
    approx: str = "default",
) -> Step[Shared]:
    """x / y, broadcast, at `frac` fraction bits (default: x.frac); y may be smaller than x (one reciprocal per y).

    Domain: floor <= y <= bound (|y| if `signed`), |x/y| <= quotient.
    Error: relative 2^-22 (`default`) or 6e-5 (`puma`), plus |x| units of the reciprocal and one of the result. The
    reciprocal has as many fraction bits as the domain allows.
    Outside: 0 for y below half the floor; undefined above the bound.
    Rounds: reciprocal and one truncated product.
    """
    room = 61 - x.frac - math.ceil(math.log2(max(quotient, 1.0)))
    fine = min(WORKING_FRAC + max(math.ceil(math.log2(bound)), 0), room, 60 + math.floor(math.log2(floor)))
    inverse = yield from reciprocal(p, y, bound=bound, floor=floor, signed=signed, frac=fine, approx=approx)
    return (yield from p.mul(x, inverse, frac=x.frac if frac is None else frac))
