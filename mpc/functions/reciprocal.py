"""1/x of a secret, positive or of either sign."""

from __future__ import annotations

import torch

from hush.mpc.functions.declare import declare
from hush.mpc.functions.normalise import WORKING_FRAC, Normalised, normalise
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together

GOLDSCHMIDT = {"default": 3, "puma": 2}
"""Iterations: each squares the start's relative error of 0.0858."""


@declare(
    "reciprocal",
    domain=(2.0**-10, 2.0**11),
    error=4.5e-6,
    relative=True,
    outside="0 below half the floor, undefined above the bound",
    reference=torch.reciprocal,
    paper="Goldschmidt iteration as in PUMA, arXiv 2307.12533",
)
def reciprocal(
    p: Protocol,
    x: Shared,
    *,
    bound: float,
    floor: float,
    signed: bool = False,
    frac: int | None = None,
    approx: str = "default",
) -> Step[Shared]:
    """1/x at `frac` fraction bits (default: x.frac) by Goldschmidt on the normalised x.

    x = m 2^k, w0 = 2.9142 - 2m, d0 = 1 - m w0, then w <- w (1 + d), d <- d^2; PROTOCOLS 1 publishes 2 iterations.
    Domain: floor <= x <= bound, or |x| if `signed`; bound/floor at most 2^33.
    Error: relative 2^-22 (`default`, 3 iterations) or 6e-5 (`puma`, 2), plus one unit of the result.
    Outside: 0 below half the floor; undefined above the bound.
    Rounds: normalise + (2 + iterations) products, the last one the truncation to `frac`.
    """
    parts = yield from normalise(p, x, bound=bound, floor=floor, signed=signed)
    inverse = yield from _inverse_mantissa(p, parts, GOLDSCHMIDT[approx])
    return (yield from _apply_exponent(p, parts, inverse, x.frac if frac is None else frac))


def _inverse_mantissa(p: Protocol, parts: Normalised, iterations: int) -> Step[Shared]:
    """1/m, m in ±[1/2, 1]: odd in m, so that the sign costs nothing."""
    m, g = parts.signed_mantissa, WORKING_FRAC
    start = p.scale(m, -2)
    if parts.sign is None:
        w = p.add_public(start, 2.9142)
    else:
        w = p.add(start, p.scale(parts.sign, round(2.9142 * 2**g)).with_frac(g))
    d = p.add_public(p.neg((yield from p.mul(m, w, frac=g))), 1.0)
    for _ in range(iterations - 1):
        update, d = yield from together(p.mul(w, d, frac=g), p.mul(d, d, frac=g))
        w = p.add(w, update)
    return p.add(w, (yield from p.mul(w, d, frac=g)))


def _apply_exponent(p: Protocol, parts: Normalised, inverse: Shared, frac: int) -> Step[Shared]:
    """inverse * 2^(e - top), truncated to `frac` where the exact product is finer."""
    g = min(WORKING_FRAC, 60 - parts.depth)
    if g < WORKING_FRAC:
        inverse = yield from p.truncate(inverse, g)
    lift = max(-parts.top, 0)
    power = parts.table(p, [1 << (e + lift) for e in range(parts.depth + 1)], frac=max(parts.top, 0))
    exact = g + power.frac
    result = yield from p.mul(inverse, power, frac=min(frac, exact))
    return p.rescale(result, frac)
