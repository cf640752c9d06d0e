"""exp on shares: a polynomial for exp(x/8), squared three times; PUMA's limit formula beside it."""

from __future__ import annotations

import math

import torch

from hush.mpc.functions.declare import declare
from hush.mpc.functions.piecewise import below, constant_where, window
from hush.mpc.protocol import Protocol
from hush.mpc.ring import RING32
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together

CUT = -14.0
_SLACK = 0.5
_FRACTION = 18
_PUMA = "PUMA, arXiv 2307.12533, section 4.3"

# exp(v) on [-14/8, 0.5/8] as `_quartic` (k, b, d, e) of u = LEAD v.
# Weighted for the error of its eighth power over exp(0.4 x). From benchmarks/fit_polynomials.py.
_LEAD = 51  # in units of 2^-7
_QUARTIC = (0.7272148934994136, 0.7343061725021507, 1.1438893793727194, 0.1600428508967976)
_CENTRE = 0.875  # the last square is formed as (r - c)(r + c) + c^2, so that r^2 up to 1.76 fits 32 bits


@declare(
    "exp_nonpositive",
    domain=(-64.0, _SLACK),
    error=3e-4,
    outside="0 below -14; wrong above 0.5",
    reference=torch.exp,
)
def exp_nonpositive(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """exp(x) for x <= 0.5 (the room that a softmax's maximum needs), exactly 0 below -14.

    q = quartic(x/8) in two products, r = q^4 in two squares (the second into 2^32), selected where x >= -14, then r^2.
    Three products in 2^64 of 279 to 294 bits and one of 96; a narrow comparison beside them, a 32-bit select, a
    widening square. In all 11 rounds and 1418 bits an element at bound 64, f = 18.
    """
    outside, r = yield from together(below(p, x, CUT, bound=bound), _fourth_power(p.unchecked(), x))
    r = yield from p.select(p.invert(outside), r)
    low, high = p.add_public(r, -_CENTRE), p.add_public(r, _CENTRE)
    square = yield from p.mul(low, high, frac=x.frac, ring=x.ring)
    return p.add_public(square, _CENTRE**2)


def _fourth_power(p: Protocol, x: Shared) -> Step[Shared]:
    """exp(x/2) at 15 fraction bits in 2^32."""
    x = yield from _coarse(p, x)
    u = p.scale(x, _LEAD).with_frac(x.frac + 10)
    q = yield from _quartic(p, u, _QUARTIC, frac=u.frac)
    q2 = yield from p.mul(q, q, frac=23)
    return (yield from p.mul(q2, q2, frac=15, ring=RING32))


def _coarse(p: Protocol, x: Shared) -> Step[Shared]:
    """x at no more than 18 fraction bits: the quartics have room for no more."""
    return x if x.frac <= _FRACTION else (yield from p.truncate(x, _FRACTION))


def _quartic(p: Protocol, u: Shared, knuth: tuple[float, float, float, float], *, frac: int) -> Step[Shared]:
    """(z + u + b)(z + d) + e with z = u (u + k): a monic quartic in two products (Knuth, TAOCP 2, 4.6.4)."""
    k, b, d, e = knuth
    z = yield from p.mul(u, p.add_public(u, k), frac=u.frac)
    q = yield from p.mul(p.add(z, p.add_public(u, b)), p.add_public(z, d), frac=frac)
    return p.add_public(q, e)


# exp(v) on [-14/64, 12/64], the same form, weighted for the relative error of its 64th power
_FINE_LEAD = 29  # in units of 2^-6
_FINE_QUARTIC = (0.39872035143593765, 0.4191175298504022, 1.4583109142510553, 0.38879636698376874)
_TOP = 12.0
_SCALES = (28, 28, 28, 26, 21)  # of the powers 2 to 32: the next square stays below 2^62


@declare(
    "exp",
    domain=(-64.0, _TOP),
    error=2e-4,
    relative=True,
    outside="0 below -14, exp(12) above 12",
    reference=torch.exp,
)
def exp(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """exp(x) for x of either sign, 0 below -14 and exp(12) above 12: quartic(x/64) in two products, six squares.

    Two comparisons, eight products, one select and one bit as a number, all in 2^64: 18 rounds and 2859 bits an element
    at bound 64, f = 18.
    """
    (inside, above), power = yield from together(
        window(p, x, CUT, _TOP, bound=bound), _sixty_fourth_power(p.unchecked(), x)
    )
    kept, saturated = yield from together(p.select(inside, power), p.from_bits(above, ring=x.ring))
    return p.add(kept, constant_where(p, saturated, math.exp(_TOP), kept))


def _sixty_fourth_power(p: Protocol, x: Shared) -> Step[Shared]:
    """exp(x) for -14 <= x <= 12."""
    frac, x = x.frac, (yield from _coarse(p, x))
    u = p.scale(x, _FINE_LEAD).with_frac(x.frac + 12)
    q = yield from _quartic(p, u, _FINE_QUARTIC, frac=_SCALES[0])
    for scale in (*_SCALES, frac):
        q = yield from p.mul(q, q, frac=scale)
    return q


@declare(
    "exp_nonpositive (PUMA)",
    domain=(-64.0, 0.0),
    error=9e-3,
    outside="0 below -14; (1 + x/32)^32 above 0",
    reference=torch.exp,
    paper=_PUMA,
)
def exp_puma(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """0 if x < -14 else (1 + x/2^5)^(2^5), as published. One comparison, five squares, one select."""
    outside, power = yield from together(below(p, x, CUT, bound=bound, exact=True), _limit_power(p.unchecked(), x))
    return (yield from p.select(p.invert(outside), power))


def _limit_power(p: Protocol, x: Shared) -> Step[Shared]:
    power = p.add_public(x.with_frac(x.frac + 5), 1.0)
    for _ in range(5):
        power = yield from p.mul(power, power, frac=x.frac)
    return power
