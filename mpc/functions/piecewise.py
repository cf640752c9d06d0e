"""Pieces of a function on shares: comparisons with public thresholds, and selections by their bits.

Selections are exact (a bit is an integer), so a branch that is not selected may hold anything, wrapped values included.
"""

from __future__ import annotations

import math

from hush.mpc.functions import coefficients
from hush.mpc.functions.polynomial import octic, odd
from hush.mpc.protocol import Protocol
from hush.mpc.ring import RING32
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.step import Step, together

GRID = 7
"""Fraction bits that a comparison at a continuous break point looks at: x may count as beyond a threshold that it
misses by less than MARGIN. Approximations hold that far beyond their thresholds."""
MARGIN = 2.0 ** (1 - GRID)
_HEADROOM = 29  # |value| 2^frac <= 2^29: a bit below what truncates in 2^32
_FINE = 25  # the most fraction bits that values up to 8 may have there, one bit to spare


def beyond(bound: float, threshold: float) -> float:
    """A bound of |x - threshold|, rounded up to a power of two (comparisons cost by the bit)."""
    return float(2.0 ** math.ceil(math.log2(bound + abs(threshold) + MARGIN)))


def below(p: Protocol, x: Shared, threshold: float, *, bound: float, exact: bool = False) -> Step[SharedBits]:
    """[x < threshold], one plane; within MARGIN of the threshold either answer, unless `exact`."""
    drop = 0 if exact else max(0, x.frac - GRID)
    return p.negative(p.add_public(x, -threshold), bound=beyond(bound, threshold), drop=drop)


def window(
    p: Protocol, x: Shared, low: float, high: float, *, bound: float, exact: bool = False
) -> Step[tuple[SharedBits, SharedBits]]:
    """([low <= x < high], [high <= x]), in the rounds of one comparison."""
    drop = 0 if exact else max(0, x.frac - GRID)
    most = max(beyond(bound, low), beyond(bound, high))
    under, within = yield from p.below(x, (low, high), bound=most, drop=drop)
    return p.xor(under, within), p.invert(within)


def clamp(p: Protocol, x: Shared, low: float, high: float, *, bound: float) -> Step[Shared]:
    """min(max(x, low), high), exact: two comparisons, a select, one bit as a number."""
    inside, above = yield from window(p, x, low, high, bound=bound, exact=True)
    kept, bits = yield from together(p.select(inside, p.add_public(x, -low)), p.from_bits(above, ring=x.ring))
    return p.add_public(p.add(kept, constant_where(p, bits, high - low, kept)), low)


def constant_where(p: Protocol, bits: Shared, value: float, like: Shared) -> Shared:
    """value where a bit (as a number) is set, 0 elsewhere; shape and scale of `like`."""
    return p.scale(bits.reshape(*like.shape), round(value * 2.0**like.frac)).with_frac(like.frac)


def rectified(p: Protocol, x: Shared, name: str, *, bound: float) -> Step[Shared]:
    """0 below -cut, x above cut, x/2 and the `octic` `name` between; the polynomial alone if bound <= cut.

    x in 2^64. Two narrow comparisons of one dealt code beside the polynomial in 2^32; a sum of two selections; one
    truncation, which widens. In 2^32 throughout where the bound leaves a fraction bit more than x has (up to 2^10 at
    f = 18), else x is selected apart, in 2^64. In all 11 rounds and 950 bits an element at bound 64, f = 18.
    """
    if x.ring.bits != 64:
        raise ValueError(f"{name} of a secret in 2^{x.ring.bits}: widen it to 2^64 first (truncate with ring=)")
    cut, q = coefficients.CUT[name], p.unchecked()
    frac = min(_FINE, _HEADROOM - math.ceil(math.log2(max(bound, cut))))
    joint = frac > x.frac
    if not joint:
        frac = _FINE
    narrow = yield from q.truncate(x, x.frac, ring=RING32)  # local, exact while x fits
    half = [(narrow, 1 << (frac - narrow.frac - 1))]
    middle = octic(q, x, coefficients.OCTIC[name], frac=frac, more=half)
    if bound <= cut:
        return (yield from p.truncate((yield from middle), x.frac, ring=x.ring))
    (inside, above), value = yield from together(window(p, x, -cut, cut, bound=bound), middle)
    outer = q.scale(narrow, 1 << (frac - x.frac)).with_frac(frac) if joint else x
    if joint:
        return (yield from p.select_sum([inside, above], [value, outer], frac=x.frac, ring=x.ring))
    rounded = p.select_sum([inside], [value], frac=x.frac, ring=x.ring)
    kept, line = yield from together(rounded, p.select(above, outer))
    return p.add(kept, line)


def saturated(p: Protocol, x: Shared, name: str, *, top: float, bound: float) -> Step[Shared]:
    """-top below -cut, top above cut, the odd polynomial `name` between; the polynomial alone if bound <= cut.

    x in 2^64. Two narrow comparisons beside the polynomial (`polynomial.odd`), then a select and a bit as a number in
    the same rounds, all in 2^32, and one truncation, which widens. In all 12 rounds and 1478 bits an element at bound
    64, f = 18.
    """
    cut = coefficients.CUT[name]
    middle = odd(p.unchecked(), x, coefficients.ODD[name], factor=coefficients.FACTOR[name])
    if bound <= cut:
        return (yield from p.truncate((yield from middle), x.frac, ring=x.ring))
    (inside, above), value = yield from together(window(p, x, -cut, cut, bound=bound), middle)
    kept, bits = yield from together(p.select(inside, p.add_public(value, top)), p.from_bits(above, ring=value.ring))
    total = p.add(kept, constant_where(p, bits, 2 * top, kept))
    return p.add_public((yield from p.truncate(total, x.frac, ring=x.ring)), -top)
