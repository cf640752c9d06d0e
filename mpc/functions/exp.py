"""exp on shares: a polynomial for a root of exp, squared; PUMA's limit formula beside it."""

from __future__ import annotations

import math

import torch

from hush.mpc.functions.declare import declare
from hush.mpc.functions.piecewise import below, beyond, constant_where, window
from hush.mpc.functions.polynomial import RING40, arguments, line
from hush.mpc.protocol import Protocol
from hush.mpc.ring import Ring
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.step import Step, together

CUT = -14.0
_SLACK = 0.5
_FRACTION = 18
_PUMA = "PUMA, arXiv 2307.12533, section 4.3"

# 2 exp(x/2) on [-14, 0.5] as (w + t u + e)(3 w - 2 z + s u + f) + g with u = x + h, z = u^2/128, w = (z + b)^2: all
# that a polynomial of degree 8 can do in three products. In order h, s, b, e, f, g, t: benchmarks/fit_polynomials.py.
_ROOT = (8.50022514, 0.1704445824, 0.2048438702, 0.0497442661, 1.207924283, -0.09379215323, -0.0009132295082)
_SMALL = Ring(34)
_CENTRE = 1.8125  # the last square is formed as (r - c)(r + c) + c^2: r^2 up to 6.6 would wrap


@declare(
    "exp_nonpositive",
    domain=(-64.0, _SLACK),
    error=3e-4,
    outside="0 below -14; wrong above 0.5",
    reference=torch.exp,
)
def exp_nonpositive(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """exp(x) for x <= 0.5 (the room that a softmax's maximum needs), exactly 0 below -14.

    r = 2 exp(x/2) in three products, the first into 2^40, the last into 2^34: rings as small as their values allow;
    r is selected where x >= -14 (between -14 and -13 either way: 1e-6), then squared, which widens. x in 2^64.
    Error: the fit's 1.1e-4 at 0.5, 8e-6 at -4.9 and 4e-6 at -7.6, and rounding of mean 0, at most 1.2e-4.
    Four products of 120, 177, 162 and 267 bits; a comparison to a unit beside them, a select of 136. In all 9 rounds
    and 902 bits an element at bound 64, f = 18.
    """
    if bound <= -CUT:
        r = yield from _root(p, x)
    else:
        outside, r = yield from together(_below_cut(p, x, bound), _root(p.unchecked(), x))
        r = yield from p.select(p.invert(outside), r)
    low, high = p.add_public(r, -_CENTRE), p.add_public(r, _CENTRE)
    square = yield from p.mul(low, high, frac=x.frac - 2, ring=x.ring)
    return p.add_public(square.with_frac(x.frac), _CENTRE**2 / 4)


def _below_cut(p: Protocol, x: Shared, bound: float) -> Step[SharedBits]:
    """[x < -14], where it is below -14 or above -13."""
    return p.negative(p.add_public(x, -CUT), bound=beyond(bound, CUT), drop=x.frac)


def _root(p: Protocol, x: Shared) -> Step[Shared]:
    """2 exp(x/2) at 15 fraction bits in 2^34, for -14 <= x <= 0.5.

    u has 17 fraction bits, z, w and both factors 18 in 2^40, which a product below 4 just fits.
    """
    shift, slope, b, e, f, g, tilt = _ROOT
    u, coarse = yield from arguments(p, p.add_public(x, shift))
    z = yield from p.mul(coarse, coarse.with_frac(coarse.frac + 7), frac=18, ring=RING40)
    root = p.add_public(z, b)
    w, left, right = yield from together(p.mul(root, root, frac=18), line(p, u, tilt, e), line(p, u, slope, f))
    factors = p.affine([w, left], [1, 1]), p.affine([w, z, right], [3, -2, 1])
    r = yield from p.mul(*factors, frac=15, ring=_SMALL)
    return p.add_public(r, g)


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

    Two comparisons, eight products, one select and one bit as a number, all in 2^64: 18 rounds and 2806 bits an element
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
