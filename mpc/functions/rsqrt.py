"""1/sqrt(x) of a secret that may range over many orders of magnitude."""

from __future__ import annotations

import math
from functools import cache

import torch

from hush.mpc.cells import Cells
from hush.mpc.functions.chebyshev import evaluate, interpolate
from hush.mpc.functions.declare import declare
from hush.mpc.functions.lines import RSQRT, Lines, affordable, fineness, lines
from hush.mpc.functions.lines import evaluate as evaluate_lines
from hush.mpc.functions.normalise import WORKING_FRAC, Normalised, mantissa_variable, normalise
from hush.mpc.functions.polynomial import powers
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step

_FINE = fineness(RSQRT, 7.2e-7)  # 512 cells to an octave
_LEAST_BITS = 25  # of the smallest result: its units come to less than 2^-23 of it
_ROUNDS_SAVED = 13
PUMA = (4.14285016, -15.47994394, 38.4714796, -49.86605845, 26.02942339)
"""1/sqrt(u) on [1/4, 1/2), lowest power first (PROTOCOLS 1): relative error 8.2e-5."""


@cache
def _coefficients() -> tuple[float, ...]:
    """1/sqrt(m) in t = 4m - 3: relative error 5e-7 on the octave."""
    return interpolate(lambda t: 1 / ((t + 3) / 4).sqrt())


@declare(
    "rsqrt",
    domain=(2.0**-13, 2.0**13),
    error=5e-6,
    relative=True,
    outside="0 below half the floor, undefined above the bound",
    reference=torch.rsqrt,
    paper="normalisation as in PUMA, arXiv 2307.12533; polynomial of degree 7",
)
def rsqrt(
    p: Protocol, x: Shared, *, bound: float, floor: float, frac: int | None = None, approx: str = "default"
) -> Step[Shared]:
    """1/sqrt(x) at `frac` fraction bits (default: x.frac).

    Domain: floor <= x <= bound, bound below 2^(62-x.frac).
    Error: relative 2^-20 (`default`) or 8.5e-5 (`puma`), plus one unit of the result; x's own unit limits it for small
    x, so a variance should come with more fraction bits than the values it is of.
    Outside: 0 below half the floor; undefined above the bound.
    Rounds: those of `scaled_rsqrt` and one truncation.
    """
    wide = yield from scaled_rsqrt(p, x, bound=bound, floor=floor, approx=approx)
    target = x.frac if frac is None else frac
    if wide.frac <= target:
        return p.rescale(wide, target)
    return (yield from p.truncate(wide, target))


def scaled_rsqrt(
    p: Protocol,
    x: Shared,
    *,
    bound: float,
    floor: float,
    factor: float = 1.0,
    headroom: float = 0.0,
    approx: str = "default",
) -> Step[Shared]:
    """factor / sqrt(x) with a relative error of 2^-20 (2^-19.7 by lines) at every magnitude: its scale is fine, nothing
    is cut off.

    The result has the most fraction bits (at most 26 below its largest binade) such that a product with a value of
    `headroom` bits still truncates: headroom = log2 of the largest |product| in units of the other operand. A layer
    norm multiplies by d with |d| factor/sqrt(x) <= sqrt(n), so its headroom is d.frac + log2(sqrt(n)).

    x = m 2^n with n = top - e; 1/sqrt(x) = m^-1/2 * sqrt(2)^[n odd] * 2^-floor(n/2)...; the two last factors are
    tables of e, the first a polynomial of degree 7 in the octave (`puma`: degree 4, as published).
    Rounds: normalise, 4 truncated products, one exact product; or, where the schedule has it so, 4 in all (`lines`).
    """
    found = None if approx == "puma" else rsqrt_lines(p, x.numel, x.frac, bound, floor, factor, headroom)
    if found is not None:
        return (yield from evaluate_lines(p, x, found))
    parts = yield from normalise(p, x, bound=bound, floor=floor)
    halves = [(-n) // 2 for n in parts.exponents()]
    odd = [(-n) % 2 for n in parts.exponents()]
    mantissa, shift = math.frexp(factor * 2.0 ** halves[0])
    g = _fraction_bits(shift, halves[-1] - halves[0], headroom)
    root = [mantissa * math.sqrt(2.0) if o else mantissa for o in odd]
    table = parts.table(p, [round(r * 2**WORKING_FRAC) for r in root], frac=WORKING_FRAC)
    small = yield from (_puma(p, parts, table, g) if approx == "puma" else _default(p, parts, table, g))
    power = parts.table(p, [1 << (h - halves[0]) for h in halves])
    return (yield from p.mul(small, power, frac=g)).with_frac(g - shift)


def rsqrt_lines(
    p: Protocol, count: int, x_frac: int, bound: float, floor: float, factor: float, headroom: float
) -> Lines | None:
    """Lines for `scaled_rsqrt` of so many x at x_frac, with a relative error of 2^-19.7 at every magnitude; None if the
    schedule has other ways, or there are none: their units leave room for a product of `headroom`, or for what fits."""
    low, high = max(1, math.floor(floor * 2.0**x_frac)), math.ceil(bound * 2.0**x_frac)
    if not affordable(p, count, _ROUNDS_SAVED, Cells.covering(low, high, _FINE)):
        return None
    largest = math.frexp(factor / math.sqrt(low * 2.0**-x_frac))[1]
    frac = min(60 - largest, int(61 - headroom) if headroom else 60)
    if factor / math.sqrt(high * 2.0**-x_frac) < 2.0 ** (_LEAST_BITS - frac):
        return None
    return lines(RSQRT, factor, low, high, _FINE, x_frac, frac)


def _fraction_bits(shift: int, span: int, headroom: float) -> int:
    """Fraction bits of m^-1/2 * table, a value below 2, such that neither its own powers nor the product overflow."""
    g = min(WORKING_FRAC, 60 - span, int(61 + shift - headroom) if headroom else WORKING_FRAC)
    if g < 12:
        raise ValueError(f"no room for a relative precision of 12 bits (headroom {headroom:.1f}): lower the bound")
    return g


def _default(p: Protocol, parts: Normalised, table: Shared, frac: int) -> Step[Shared]:
    t = mantissa_variable(p, parts.signed_mantissa)
    return (yield from evaluate(p, t, _coefficients(), factor=table, frac=frac))


def _puma(p: Protocol, parts: Normalised, table: Shared, frac: int) -> Step[Shared]:
    """The published polynomial at u = m/2, times 1/sqrt(2), both folded into its coefficients."""
    g, root = WORKING_FRAC, math.sqrt(0.5)
    xs = yield from powers(p, parts.signed_mantissa, 4, frac=g)
    coefficients = [c * root * 2.0**-k for k, c in enumerate(PUMA)]
    value = yield from p.combine(xs, coefficients[1:], coefficients[0], frac=g, scale=g)
    return (yield from p.mul(value, table, frac=frac))
