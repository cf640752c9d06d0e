"""Pieces of a function on shares: comparisons with public thresholds, and selections by their bits.

Selections are exact (a bit is an integer), so a branch that is not selected may hold anything, wrapped values included.
"""

from __future__ import annotations

import math

from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.step import Step, together

GRID = 7
"""Fraction bits that a comparison at a continuous break point looks at: x may count as beyond a threshold that it
misses by less than MARGIN. Approximations hold that far beyond their thresholds."""
MARGIN = 2.0 ** (1 - GRID)


def beyond(bound: float, threshold: float) -> float:
    """A bound of |x - threshold|, rounded up to a power of two (comparisons cost by the bit)."""
    return float(2.0 ** math.ceil(math.log2(bound + abs(threshold) + MARGIN)))


def below(p: Protocol, x: Shared, threshold: float, *, bound: float, exact: bool = False) -> Step[SharedBits]:
    """[x < threshold], one plane; within MARGIN of the threshold either answer, unless `exact`."""
    drop = 0 if exact else max(0, x.frac - GRID)
    return p.negative(p.add_public(x, -threshold), bound=beyond(bound, threshold), drop=drop)


def window(p: Protocol, x: Shared, low: float, high: float, *, bound: float) -> Step[tuple[SharedBits, SharedBits]]:
    """([low <= x < high], [high <= x]), in the rounds of one comparison."""
    under, within = yield from together(below(p, x, low, bound=bound), below(p, x, high, bound=bound))
    return p.xor(under, within), p.invert(within)


def rectified(p: Protocol, x: Shared, middle: Step[Shared], *, cut: float, bound: float) -> Step[Shared]:
    """0 below -cut, `middle` (computed in the rounds of the comparisons) between, x above cut."""
    if bound <= cut:
        return (yield from middle)
    (inside, above), value = yield from together(window(p, x, -cut, cut, bound=bound), middle)
    parts = yield from together(p.select(inside, value), p.select(above, x))
    return p.add(*parts)


def saturated(p: Protocol, x: Shared, middle: Step[Shared], *, cut: float, top: float, bound: float) -> Step[Shared]:
    """-top below -cut, `middle` between, top above cut; `top` times 2^frac is an integer."""
    if bound <= cut:
        return (yield from middle)
    (inside, above), value = yield from together(window(p, x, -cut, cut, bound=bound), middle)
    # -top + top inside + 2 top above
    kept, bits = yield from together(p.select(inside, p.add_public(value, top)), p.from_bits(above, ring=x.ring))
    beyond_cut = p.scale(bits.reshape(*x.shape), round(2 * top * 2.0**x.frac)).with_frac(x.frac)
    return p.add_public(p.add(kept, beyond_cut), -top)
