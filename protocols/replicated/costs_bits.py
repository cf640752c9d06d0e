"""The traffic of each boolean, comparing, converting and shuffling step, as formulas over public sizes.

As in `costs`: one `Traffic` per round, rows are parties, columns (to the next party, to the previous one). A bit plane
of a slice of n elements is 8 ceil(n/64) bytes. Which digits a comparison uses is `adder.layout`'s choice, by number of
elements.
"""

from __future__ import annotations

from collections.abc import Callable

from hush.mpc.cost import Traffic
from hush.mpc.ring import Ring
from hush.mpc.ring.widths import Widths
from hush.mpc.schedule import LAN, Schedule
from hush.mpc.secret import words
from hush.protocols.replicated import adder, compare
from hush.protocols.replicated.costs import Rounds, open_all, rotated
from hush.protocols.replicated.digits import Layout
from hush.protocols.replicated.wire import size


def plane_bytes(numel: int) -> int:
    """Bytes of one bit plane."""
    return 8 * words(numel)


def both(numel: int, planes: int) -> Rounds:
    """One round; party i sends `planes` planes to party i-1."""
    n = planes * plane_bytes(numel)
    return [Traffic(((0, n), (0, n), (0, n)))]


def below(
    numel: int, ring: Ring, frac: int, bound: float, drop: int, sums: int = 1, schedule: Schedule = LAN
) -> Rounds:
    """Dealing and answers for so many thresholds, then the carry tree's ANDs level by level."""
    cut = adder.layout(compare.sign_width(ring, frac, bound, drop) - 1, numel, sums=sums, schedule=schedule)
    levels = [sums * level for level in adder.tree_levels(cut.count)]
    return rotated(numel, _dealt_sum(cut, sums)) + _ands(numel, levels)


def exceeds(numel: int, bits: int, rotation: int) -> Rounds:
    """As `below` without a top bit, unsliced, with role 0 at party `rotation`."""
    cut = adder.layout(bits, numel, tops=0)
    dealt = [traffic.rotate(rotation) for traffic in _dealt_sum(cut)(numel)]
    return dealt + _ands(numel, adder.tree_levels(cut.count))


def is_zero(numel: int, ring: Ring, frac: int, bound: float) -> Rounds:
    """Round 1: P0 deals b planes to P1. Then an AND tree that halves them."""
    width = compare.zero_width(ring, frac, bound)
    levels, left = [], width
    while left > 1:
        levels.append(left // 2)
        left -= left // 2
    dealt = rotated(numel, lambda n: [Traffic(((width * plane_bytes(n), 0), (0, 0), (0, 0)))])
    return dealt + _ands(numel, levels)


def to_bits(numel: int, planes: int, schedule: Schedule = LAN) -> Rounds:
    """Dealing and answers, the prefix network, and one AND for each position inside the digits above the first."""
    cut = adder.layout(planes - 1, numel, every=True, schedule=schedule)
    levels = adder.prefix_levels(cut.count)
    inner = adder.inner_ands(cut)
    return rotated(numel, _dealt_sum(cut)) + _ands(numel, [*levels, inner] if inner else levels)


def from_bits(numel: int, planes: int, ring: Ring) -> Rounds:
    """Round 1: P0 deals an element a bit to P1. Round 2: P1 and P2 exchange one."""
    return rotated(numel, lambda n: _deal_and_exchange(size(planes * n, ring), size(planes * n, ring)))


def select(numel: int, ring: Ring, terms: int = 1, truncated: Widths | None = None, early: bool = False) -> Rounds:
    """Round 1: P0 deals two elements a term to P1. Round 2: P1 and P2 exchange one; or the rounds of a truncation,
    whose mask P0 deals to P2 in round 1 if `early`."""

    def formula(n: int) -> Rounds:
        dealt, exchanged = _deal_and_exchange(2 * terms * size(n, ring), size(n, ring))
        if truncated is None:
            return [dealt, exchanged]
        if not early:
            return [dealt, *_truncate_pair(n, truncated)]
        k, out, top = (size(n, r) for r in (truncated.ring, truncated.out, truncated.top))
        mask = Traffic(((0, out + top), (0, 0), (0, 0)))
        opened, shared = (Traffic(((0, 0), (each, 0), (0, each))) for each in (k, out))
        return [Traffic.merge([dealt, mask]), opened, shared]

    return rotated(numel, formula)


def _truncate_pair(n: int, w: Widths) -> Rounds:
    """Round 1: P2 to P1. Round 2: P1 to P2, an output's component and a top. Round 3: P2 and P0 exchange a top."""
    none, top = (0, 0), size(n, w.top)
    opened, answered = (none, none, (0, size(n, w.ring))), (none, (size(n, w.out) + top, 0), none)
    return [Traffic(opened), Traffic(answered), Traffic(((0, top), none, (top, 0)))]


def shuffle(numel: int, ring: Ring) -> Rounds:
    """Round 1: P0 to P2. Round 2: P1 to P0. Round 3: P2 and P0 exchange. An element each."""
    n = size(numel, ring)
    none = (0, 0)
    return [Traffic(((0, n), none, none)), Traffic((none, (0, n), none)), Traffic(((0, n), none, (n, 0)))]


def permute(numel: int, rows: int, ring: Ring) -> Rounds:
    """A shuffle of the value with one more column, and that column opened."""
    return shuffle(numel + rows, ring) + open_all(rows, ring)


def _dealt_sum(cut: Layout, sums: int = 1) -> Callable[[int], Rounds]:
    """Round 1: P0 deals to P1. Round 2, if anything is asked: P1 and P2 exchange the answers."""

    def formula(numel: int) -> Rounds:
        plane = plane_bytes(numel)
        return _deal_and_exchange(cut.dealt * plane, sums * cut.rows * plane)[: 2 if cut.rows else 1]

    return formula


def _deal_and_exchange(dealt: int, exchanged: int) -> Rounds:
    """Bytes from P0 to P1, then bytes between P1 and P2."""
    return [Traffic(((dealt, 0), (0, 0), (0, 0))), Traffic(((0, 0), (exchanged, 0), (0, exchanged)))]


def _ands(numel: int, levels: list[int]) -> Rounds:
    return [traffic for level in levels for traffic in both(numel, level)]
