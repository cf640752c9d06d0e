"""Functions of one positive secret a row by lines on dealt cells: four rounds, whatever the range.

The cell of x is as fine, relative to x, at every magnitude, so that a straight line within it serves: its centre, value
and slope are looked up at once (`Protocol.pick`), and one truncated product follows. Where normalisation, a polynomial
and the way back take 17 rounds, this takes 4, and more local work: a schedule in which rounds are dear asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hush.mpc.cells import Cells
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together

Reals = NDArray[np.float64]
_SLOPE_BITS = 23  # a slope's rounding moves no value by more than 2^-23 of it,
_LEAST_SLOPE_BITS = 21  # or 2^-21 near the end of the range, where products would not fit else
_ROOM = 61  # log2 of the largest untruncated product


@dataclass(frozen=True, slots=True)
class Curve:
    """A convex function of positive numbers. `bend`: at most x^2 f''(x) / f(x).

    `value` in operations that IEEE 754 rounds correctly (+ - * / sqrt), so that all parties have the same tables.
    """

    name: str
    bend: float
    value: Callable[[Reals], Reals]


RECIPROCAL = Curve("1/x", 2.0, lambda x: 1.0 / x)
RSQRT = Curve("1/sqrt(x)", 0.75, lambda x: 1.0 / np.sqrt(x))


@dataclass(frozen=True, slots=True)
class Lines:
    """Tables of centres, values (at `frac`) and, for each of `shifts`, slopes at that many fraction bits: a slope of
    one binade cannot have the scale of another's, so each cell has its slope in one of the tables and 0 in the others.
    `error`: of the lines, relative; beside it one unit, and one for each table of slopes.
    """

    cells: Cells
    tables: Tensor
    shifts: tuple[int, ...]
    frac: int
    error: float


def fineness(curve: Curve, error: float) -> int:
    """log2 of the cells to an octave for which lines have a relative error up to this: bend / 4^(fine + 1)."""
    return max(1, math.frexp(math.sqrt(curve.bend / error) / 2)[1])


@cache
def lines(curve: Curve, factor: float, low: int, high: int, fine: int, x_frac: int, frac: int) -> Lines | None:
    """factor * curve(x) at `frac` fraction bits for x of low..high units of 2^-x_frac; None if slopes do not fit."""
    cells = Cells.covering(low, high, fine)
    centres, reach = (t.numpy().astype(np.float64) for t in (cells.centres, cells.reach))
    unit = 2.0**-x_frac
    due = np.where(reach > 0, centres + reach > low, centres >= low) & (centres > reach)  # cells of numbers in range

    def value(x: Reals) -> Reals:
        return np.where(due, curve.value(np.where(due, x, 1.0) * unit) * factor, 0.0)

    middle, left, right = (value(centres + side * reach) for side in (0.0, -1.0, 1.0))
    # of a convex function's chord and tangent, the line half way between is the nearest
    values = np.ldexp((middle + (left + right) / 2) / 2, frac)
    slopes = np.divide(right - left, 2 * reach, out=np.zeros_like(reach), where=reach > 0)
    slopes = np.ldexp(slopes, frac)  # units of the result for each unit of x
    if values.max() >= 2.0**62:
        return None
    groups = _groups(cells, reach, values, slopes)
    if groups is None:
        return None
    rows = [cells.centres, _integers(values)]
    for narrowest, widest, bits in groups:
        rows.append(_integers(np.where((reach >= narrowest) & (reach <= widest), np.ldexp(slopes, bits), 0)))
    error = curve.bend / 4.0 ** (cells.fine + 1) + 2.0**-_LEAST_SLOPE_BITS
    return Lines(cells, torch.stack(rows), tuple(h for *_, h in groups), frac, error)


def evaluate(p: Protocol, x: Shared, found: Lines) -> Step[Shared]:
    """The curve at x, at `found.frac`; x in 2^64.

    Error: `found.error`, relative, one unit, and one for each of its shifts. Outside: 0 above and below the cells.
    Rounds: `pick` and one truncated product.
    """
    picked = yield from p.pick(x.with_frac(0), found.cells, found.tables)
    return (yield from _along(p, x, picked, found))


def evaluate_dot(p: Protocol, x: Shared, y: Shared, offset: float, found: Lines) -> Step[Shared]:
    """The curve at x @ y + offset, a round earlier than by a product and `evaluate`."""
    product, picked = yield from p.pick_product(x, y, offset, found.cells, found.tables)
    return (yield from _along(p, product, picked, found))


def _along(p: Protocol, x: Shared, picked: Shared, found: Lines) -> Step[Shared]:
    if not found.shifts:
        return picked[1].with_frac(found.frac)
    gap = p.sub(x.with_frac(0), picked[0])
    slopes = [picked[2 + i].with_frac(shift) for i, shift in enumerate(found.shifts)]
    moved = yield from together(*(p.mul(gap, slope, frac=0) for slope in slopes))
    total = picked[1]
    for move in moved:
        total = p.add(total, move)
    return total.with_frac(found.frac)


def affordable(p: Protocol, count: int, rounds: int, cells: Cells) -> bool:
    """Whether growing trees for so many numbers costs less than so many rounds."""
    return cells.blocks * count <= rounds * p.schedule.round_blocks


def _groups(cells: Cells, reach: Reals, values: Reals, slopes: Reals) -> list[tuple[float, float, int]] | None:
    """(narrowest reach, widest, fraction bits of the slopes): as few as there can be, widest cells first."""
    groups: list[tuple[float, float, int, int]] = []  # narrowest, widest, fewest bits, most bits
    for width in cells.widths:
        if width == 0:
            break
        own, size = reach == 2.0**width, 2.0**width
        steep, least = math.frexp(float(np.abs(slopes[own]).max()))[1], math.frexp(_least(values[own]))[1]
        most = min(62, _ROOM - width - steep)
        if most < max(1, width - least + _LEAST_SLOPE_BITS):
            return None
        fewest = min(most, max(1, width - least + _SLOPE_BITS))
        if groups and max(fewest, groups[-1][2]) <= min(most, groups[-1][3]):
            _, widest, a, b = groups[-1]
            groups[-1] = (size, widest, max(fewest, a), min(most, b))
        else:
            groups.append((size, size, fewest, most))
    return [(narrow, wide, fewest) for narrow, wide, fewest, _ in groups]


def _least(values: Reals) -> float:
    """The smallest of those that are there; 1 if none is."""
    return float(np.min(values, where=values > 0, initial=np.inf if (values > 0).any() else 1.0))


def _integers(values: Reals) -> Tensor:
    return torch.from_numpy(np.rint(values).astype(np.int64))
