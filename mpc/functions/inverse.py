"""1/x of a secret between two public positive numbers: its octave by comparisons, then products three deep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from hush.mpc.cells import Cells
from hush.mpc.functions.lines import RECIPROCAL, affordable, evaluate, fineness, lines
from hush.mpc.functions.polynomial import blend
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared, stack
from hush.mpc.step import Step, together

_START = 42  # fraction bits, at most, of the first guess, which is linear in x within each octave
_DEFECT = 19  # fraction bits of 1 - x * guess
_FINE = fineness(RECIPROCAL, 7.7e-6)  # 256 cells to an octave
_ROUNDS_SAVED = 7
_SLACK_BITS = 3  # a comparison may count x as below an edge that it lies up to 1/8 above


@dataclass(frozen=True, slots=True)
class Guess:
    """1/x as intercept - slope x, in units of 2^-frac, slope in units of 2^(x.frac - frac); |1 - x guess| <= defect."""

    intercept: float
    slope: int
    frac: int
    defect: float


def most(frac: int) -> float:
    """The largest x, at so many fraction bits, whose guess has a slope of a few units: 3072 at 18."""
    return 0.75 * 2.0 ** (30 - frac)


def inverse_between(p: Protocol, x: Shared, *, low: float, high: float, frac: int) -> Step[Shared]:
    """1/x at `frac` fraction bits for low <= x <= high, both public, 3/4 <= low, high <= `most(x.frac)`.

    v = the linear guess of x's octave, d = 1 - x v: |d| <= e = 0.1; 1/x = v (1 + d)(a + b d^2), a and b such that the
    rest is the Chebyshev polynomial T4(d/e)/T4(1/e) (the Goldschmidt iteration has a = b = 1 and a rest d^4).
    Error: relative 1.3e-5, and two units of the result. Outside: undefined. x in 2^64.
    For O octaves: O - 1 narrow comparisons and selects side by side, then four products in three levels. In all 11
    rounds (12 beyond 9 octaves), where `reciprocal`, which takes any x, has 18 or more; 4 where the schedule has it so
    (`lines`).
    """
    if not 0.75 <= low <= high <= most(x.frac) or x.ring.bits != 64:
        raise ValueError(f"1/x is known here for x in 2^64 from 3/4 to {most(x.frac):g}, not from {low} to {high}")
    span = math.floor(low * 2.0**x.frac), math.ceil(high * 2.0**x.frac), _FINE
    if affordable(p, x.numel, _ROUNDS_SAVED, Cells.covering(*span)):
        found = lines(RECIPROCAL, 1.0, *span, x.frac, frac)
        if found is not None:
            return (yield from evaluate(p, x, found))
    octaves = max(1, math.ceil(math.log2(high / low)))
    edges = [low * 2.0**j for j in range(octaves)]
    guesses = [_guess(edge, min(2 * edge * (1 + 2.0**-_SLACK_BITS), high), x.frac) for edge in edges]
    v = yield from _select_guess(p, x, guesses, low * 2.0 ** (octaves - 1), high)
    d = p.add_public(p.neg((yield from p.mul(x, v, frac=_DEFECT))), 1.0)
    once, square = yield from together(p.mul(v, p.add_public(d, 1.0), frac=30), p.mul(d, d, frac=20))
    a, b = _economised(max(g.defect for g in guesses))
    return (yield from p.mul(once, blend(p, [square], [b], a, scale=10), frac=frac))


def _select_guess(p: Protocol, x: Shared, guesses: list[Guess], last: float, high: float) -> Step[Shared]:
    """The guess of x's octave; `last`: where the last octave begins."""
    lines = [p.add_public(p.scale(x, -g.slope).with_frac(g.frac), g.intercept) for g in guesses]
    if len(lines) == 1:
        return lines[0]
    count = len(lines) - 1
    aligned = stack([p.scale(x, 1 << (count - 1 - j)) for j in range(count)])  # every edge at `last`
    drop = math.floor(math.log2(last)) + x.frac - _SLACK_BITS
    under = yield from p.negative(p.add_public(aligned, -last), bound=high * 2.0 ** (count - 1), drop=max(drop, 0))
    steps = stack([p.sub(after, before) for before, after in pairwise(lines)])
    taken = yield from p.select(p.invert(under), steps)
    return p.add(lines[0], taken.sum(0))


def _guess(low: float, high: float, frac: int) -> Guess:
    """The line nearest to 1/x on [low, high], in relative error, for x with so many fraction bits."""
    start = min(_START, 60 - frac)
    unit = 2.0 ** (frac - start)
    best = 8 / (low * low + 6 * low * high + high * high)
    slope = max(1, round(best / unit))
    # x (a - s x) peaks at a^2 / 4s and is least at an end: a is found where the two are as far from 1
    below, above = 0.0, 4.0 / low
    for _ in range(60):
        a = (below + above) / 2
        peak, least = a * a / (4 * slope * unit), min(x * (a - slope * unit * x) for x in (low, high))
        below, above = (below, a) if peak + least > 2 else (a, above)
    return Guess(a, slope, start, max(abs(peak - 1), abs(1 - least)))


def _economised(e: float) -> tuple[float, float]:
    """(a, b) with (1 - d^2)(a + b d^2) = 1 - T4(d/e)/T4(1/e)."""
    size = 8 / e**4 - 8 / e**2 + 1
    return 1 - 1 / size, 8 / (e**4 * size)
