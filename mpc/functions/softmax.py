"""Softmax over the last dimension, with public or secret additive masks."""

from __future__ import annotations

import torch
from torch import Tensor

from hush.mpc.functions.declare import Elementwise, declare
from hush.mpc.functions.exp import exp_nonpositive, exp_puma
from hush.mpc.functions.inverse import inverse_between
from hush.mpc.functions.inverse import most as invertible
from hush.mpc.functions.log import log
from hush.mpc.functions.masks import Rows, Whole, settle
from hush.mpc.functions.pivot import ROOM, below, near_maximum
from hush.mpc.functions.reciprocal import reciprocal
from hush.mpc.protocol import Protocol
from hush.mpc.schedule import Schedule
from hush.mpc.secret import Shared
from hush.mpc.step import Step

EXP: dict[str, Elementwise] = {"default": exp_nonpositive, "puma": exp_puma}
LEAST = 0.82
"""exp(-ROOM), with the error of exp: a row sums to at least that, and to at most `most` for each of its entries."""
SILENT = 16.0
"""A score this far below its row's maximum has exp exactly 0 in every set (they cut at -14)."""
FLOOR = -(2.0**24)
"""What log_softmax gives for entries that an infinite mask takes out."""
SPARE_BITS = 4
"""Fraction bits of 1/sum beyond the result's: a flat row of n entries sums to 1 within n 2^-23."""


@declare(
    "softmax",
    domain=(-16.0, 16.0),
    error=3e-3,
    outside="undefined beyond the bound that the caller names",
    reference=lambda x: x.softmax(-1),
)
def softmax(
    p: Protocol, x: Shared, *, bound: float, approx: str = "default", mask: Tensor | None = None
) -> Step[Shared]:
    """softmax(x + mask) over the last dimension, at x.frac, for |x| <= bound and a public additive (or boolean) mask.

    m = row maximum, or near it (`pivot.near_maximum`); e = exp(x - m); e / sum(e) with one reciprocal a row. `puma`:
    the exact maximum, PUMA's exp and reciprocal.
    Error: at most 5e-4 up to 128 entries, 3e-3 up to 2048, reached where one entry stands against all others, equal and
    about 8 below it (`puma`: 0.11 and 0.25 there, published so); usually 1e-4. Rows sum to 1 within n^(1/2) * 2^-16.
    Masks: -1e4, -1e9, finfo.min and -inf all mean "not there" where they lie more than 2*bound + 16 below their
    row's largest entry: the result is exactly 0 there, and work is spent on the other entries only. Smaller masks
    (-100, ALiBi, relative position biases) are added as they are. A row masked everywhere alike gives the softmax of
    its scores. A SECRET mask is part of x: add it before, with a bound that covers it (encoding saturates at 2^26 for
    f=18); a row that it masks everywhere gives the softmax of the scores too.
    Outside: undefined where |x| exceeds the bound.
    Per row of n entries: up to 4n/3 narrow comparisons, n-1 selects, n exp, n truncated products, one reciprocal. For
    rows of 128 of |x| <= 16: 49 rounds and 163 bytes an entry.
    """
    masked = Masked.of(x.shape, mask, bound)
    _, powers, total = yield from exponentials(p, masked.enter(p, x), masked, approx)
    longest, puma = masked.rows.longest, approx == "puma"
    inverse = yield from invert_sums(p, total, longest, frac=x.frac if puma else x.frac + SPARE_BITS, approx=approx)
    shares = yield from p.mul(powers, masked.rows.spread(inverse), frac=x.frac)
    return masked.rows.scatter(shares).reshape(*x.shape)


def most(schedule: Schedule) -> float:
    """The largest exp(x - m), with its error: exp(`pivot.below`), as a literal that every machine reads alike."""
    return 1.62 if below(schedule) > ROOM else 1.22


def invert_sums(p: Protocol, total: Shared, longest: int, *, frac: int, approx: str) -> Step[Shared]:
    """1/total for the sums of rows of at most so many exponentials (`puma`: by PUMA's reciprocal)."""
    peak = most(p.schedule) * longest
    if approx == "puma" or peak > invertible(total.frac):
        return reciprocal(p, total, bound=peak, floor=LEAST, frac=frac, approx=approx)
    return inverse_between(p, total, low=LEAST, high=peak, frac=frac)


def log_softmax(
    p: Protocol, x: Shared, *, bound: float, approx: str = "default", mask: Tensor | None = None
) -> Step[Shared]:
    """log(softmax(x + mask)) over the last dimension, at x.frac: x + mask - (m + log sum exp(x + mask - m)).

    Domain and masks as `softmax`; entries that are masked out come back as the mask itself below the row's log sum, cut
    at -2^24. Error: 1e-4 in usual rows; 2e-3 up to 128 entries and 1e-2 up to 2048 where one stands against all others.
    """
    masked = Masked.of(x.shape, mask, bound)
    m, _, total = yield from exponentials(p, masked.enter(p, x), masked, approx)
    spread = yield from log(p, total, bound=most(p.schedule) * masked.rows.longest, floor=LEAST)
    level = masked.rows.per_row(p.add(m, spread), x.shape)
    return p.sub(x if masked.mask is None else p.add_public(x, masked.mask.clamp(min=FLOOR)), level)


def exponentials(p: Protocol, x: Shared, masked: Masked, approx: str) -> Step[tuple[Shared, Shared, Shared]]:
    """(m, exp(x - m), its sums), m each row's maximum, or near it (exactly, for `puma`)."""
    rows = masked.rows
    m = yield from near_maximum(p, x, rows, bound=masked.range / 2, exact=approx == "puma")
    powers = yield from EXP[approx](p, p.sub(x, rows.spread(m)), bound=masked.range + 1.0)
    return m, powers, rows.sum(powers)


class Masked:
    """A public mask settled against the scores' bound: the rows it leaves, what it adds, how far scores then differ."""

    __slots__ = ("mask", "offset", "range", "rows")

    def __init__(self, rows: Rows | Whole, mask: Tensor | None, offset: Tensor | None, bound: float) -> None:
        largest = 0.0 if offset is None else float(offset.abs().max())
        self.rows, self.mask, self.offset = rows, mask, offset if largest else None
        self.range = 2 * bound + largest

    @classmethod
    def of(cls, shape: torch.Size, mask: Tensor | None, bound: float) -> Masked:
        """Split the mask into entries that cannot count and offsets of those that can."""
        if mask is None:
            return cls(Whole(shape[-1]), None, None, bound)
        tail, own = _varying(shape, mask)
        soft = settle(mask.reshape(own)).expand(tail)
        keep = _counts(soft, bound)
        if bool(keep.all()):
            return cls(Whole(shape[-1]), soft, soft, bound)
        rows = Rows.of(keep)
        return cls(rows, soft, soft.reshape(-1)[rows.kept], bound)

    def enter(self, p: Protocol, x: Shared) -> Shared:
        """The entries that count, with their offsets."""
        return self.shift(p, self.rows.gather(x))

    def shift(self, p: Protocol, entries: Shared) -> Shared:
        """Entries that count, gathered already, with their offsets."""
        return entries if self.offset is None else p.add_public(entries, self.offset)


def kept(mask: Tensor | None, bound: float) -> Tensor | None:
    """Which entries of a public mask count beside scores up to `bound`; None: all of them."""
    if mask is None or bool((keep := _counts(settle(mask), bound)).all()):
        return None
    return keep


def _counts(settled: Tensor, bound: float) -> Tensor:
    return settled >= -(2 * bound + SILENT)


def _varying(shape: torch.Size, mask: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The sizes, in the scores and in the mask, of the dimensions from the first that the mask varies over."""
    own = (1,) * (len(shape) - mask.ndim) + tuple(mask.shape)
    if len(own) != len(shape) or any(m not in (1, s) for m, s in zip(own, shape, strict=True)):
        raise ValueError(f"a mask of shape {tuple(mask.shape)} does not broadcast to scores of shape {tuple(shape)}")
    lead = next((i for i, m in enumerate(own[:-1]) if m != 1), len(shape) - 1)
    return tuple(shape[lead:]), own[lead:]
