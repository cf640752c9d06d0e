"""A number near each row's maximum, which a softmax subtracts: by a tournament, or by unary codes in six rounds."""

from __future__ import annotations

import math

from hush.mpc.functions.masks import Rows, Whole
from hush.mpc.protocol import Protocol
from hush.mpc.ring import Ring
from hush.mpc.schedule import Schedule
from hush.mpc.secret import Shared
from hush.mpc.step import Step

COARSE_FRAC = 3
"""Fraction bits of the scores that a maximum is sought among: rounding moves each by at most 1.5 * 2^-3."""
ROOM = 0.1875
"""How far above the row's maximum the number may lie, and in a tournament below: the default exp is good up to 0.5."""
_LIFT = 2  # bits by which the maximum is raised, for a truncation that widens it and takes them off again
_BINS = 3  # bins to a unit of the scores, of which two may hold the maximum: it lies within ROOM above or 0.48 below
_LONGEST = 255  # entries of a row whose maximum can be sought by unary codes
_ROUNDS_SAVED = 14  # of a tournament of some dozens of entries, at least


def below(schedule: Schedule) -> float:
    """How far below the row's maximum the number may lie."""
    return 2 / _BINS - ROOM if schedule.deals else ROOM


def near_maximum(p: Protocol, x: Shared, rows: Rows | Whole, *, bound: float, exact: bool) -> Step[Shared]:
    """Each row's maximum, |x| <= bound, or a number at most ROOM above it and `below(p.schedule)` below.

    The scores' coarse form in the smallest ring that holds it costs nothing to make, and selections there cost a sixth
    of those in 2^64; what is found is widened, one element a row. Scores too large for 2^32 (a secret mask's) stay in
    2^64, and comparisons drop low bits instead. Where the schedule has rounds so dear: `Protocol.highest`.
    """
    bins = _bins(bound)
    if not exact and _affordable(p, x, rows, bins):
        return (yield from _unary(p, x, rows, bound, bins))
    largest = bound + 1.0
    shift, width = x.frac - COARSE_FRAC, math.ceil(math.log2(largest)) + COARSE_FRAC + _LIFT + 2
    if exact or shift < 0 or width > min(32, x.ring.bits - shift):
        drop = 0 if exact else tolerance(x.frac, rows.longest)
        return (yield from rows.maximum(p, x, bound=bound, drop=drop))
    coarse = yield from p.truncate(x, COARSE_FRAC, ring=Ring(width))
    found = yield from rows.maximum(p, coarse, bound=largest, drop=0)
    wide = yield from p.truncate(p.rescale(found, COARSE_FRAC + _LIFT), COARSE_FRAC, ring=x.ring)
    return p.rescale(wide, x.frac)


def tolerance(frac: int, entries: int) -> int:
    """The low bits that a tournament of so many entries may ignore to miss the maximum by at most ROOM."""
    levels = max(1, math.ceil(math.log2(entries)))
    return max(0, frac + math.floor(math.log2(ROOM / levels)))


def _unary(p: Protocol, x: Shared, rows: Rows | Whole, bound: float, bins: int) -> Step[Shared]:
    """From y = 3 (x + bound) + 1 >= 1: its bin c holds no entry above c + 2, and the largest lies no lower than c."""
    flat, row = rows.flat(x)
    y = p.add_public(p.scale(flat, _BINS), 1.0 + _BINS * bound)
    found = yield from p.highest(y, row, shift=x.frac, bins=bins)
    third = p.scale(found, round(2.0**x.frac / _BINS)).with_frac(x.frac)
    return rows.unflat(p.add_public(third, ROOM - 1.0 / _BINS - bound), x.shape)


def _bins(bound: float) -> int:
    """A power of two above 3 * 2 bound + 1."""
    return max(8, 1 << math.floor(2 * _BINS * bound + 1).bit_length())


def _affordable(p: Protocol, x: Shared, rows: Rows | Whole, bins: int) -> bool:
    """Whether codes of so many bytes an entry cost less than the rounds that they save."""
    if rows.longest < 8 or rows.longest > _LONGEST or x.ring.bits != 64 or not p.schedule.deals:
        return False
    entries, digits = x.numel * bins, 36 * (bins.bit_length() + 4) + 16
    bits = 8 * entries + digits * bins * rows.count(x)
    return bits <= _ROUNDS_SAVED * p.schedule.round_bits and entries >> 4 <= _ROUNDS_SAVED * p.schedule.round_blocks
