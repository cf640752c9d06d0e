"""The largest of each row in few rounds: pairs while there are many, then all pairs of a small group at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from hush.mpc.beside import beside, row
from hush.mpc.functions.order import larger
from hush.mpc.protocol import Protocol
from hush.mpc.schedule import LAN, Schedule
from hush.mpc.secret import Shared, SharedBits, concat, join_planes, stack
from hush.mpc.step import Step

_WORD = 64  # elements to a word of a bit plane


def group_size(longest: int, drop: int, schedule: Schedule = LAN) -> int:
    """How many entries meet at once while the longest row has so many left: pairs if `drop` bits are ignored.

    A group of k costs k(k-1)/2 comparisons for k-1 entries less, in the rounds of one comparison, 1 + log2(k) ANDs and
    a selection. Late groups are nearly free: a row of 128 meets as 2, 2, 4 and 8, with a third more comparisons than a
    tournament of pairs and 10 rounds less. How long rows still meet in pairs, where fours would take a comparison more
    for each entry and three rounds less, is the schedule's.
    """
    if drop or longest > schedule.longest_fours:
        return 2
    return longest if longest <= 8 else 4


def largest(p: Protocol, x: Shared, *, bound: float, drop: int) -> Step[Shared]:
    """[..., 1]: the largest of the last dimension, |x| <= bound; entries left over wait for the next level."""
    while (count := x.shape[-1]) > 1:
        size = group_size(count, drop, p.schedule)
        groups = count // size
        members = [x[..., i * groups : (i + 1) * groups] for i in range(size)]
        won = yield from champion(p, members, bound=bound, drop=drop)
        x = concat([won, x[..., size * groups :]], -1) if count % size else won
    return x


def largest_of_rows(p: Protocol, x: Shared, lengths: Tensor, *, bound: float, drop: int) -> Step[Shared]:
    """[L, R]: the largest of each of R rows of these lengths that lie one after the other in x, [L, K]."""
    while (longest := int(lengths.max())) > 1:
        size = group_size(longest, drop, p.schedule)
        leader, meeting, members = _groups(lengths, size)
        won = yield from champion(p, [x[:, places] for places in members], bound=bound, drop=drop)
        x = _place(x[:, leader], won, meeting)
        lengths = (lengths + size - 1) // size
    return x


def _groups(lengths: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """(places of each group's first entry, which groups have more than one, places [size, those] of their members).

    A group that a row's end cuts short meets its last member more than once.
    """
    row = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    within = torch.arange(len(row)) - (lengths.cumsum(0) - lengths)[row]
    leader = (within % size == 0).nonzero().reshape(-1)
    left = (lengths[row] - within)[leader]
    meeting = (left > 1).nonzero().reshape(-1)
    step = torch.minimum(torch.arange(size)[:, None], left[meeting] - 1)
    return leader, meeting, leader[meeting] + step


def _place(x: Shared, new: Shared, where: Tensor) -> Shared:
    """x with the columns `where` replaced by those of `new`."""
    where = beside(where, x.device)
    parts = tuple(t.clone().index_copy_(1, where, n) for t, n in zip(x.parts, new.parts, strict=True))
    return replace(x, parts=parts)


def champion(p: Protocol, members: Sequence[Shared], *, bound: float, drop: int = 0) -> Step[Shared]:
    """The largest of members[0], members[1], ... elementwise, |members| <= bound: always one of them.

    drop > 0 takes two members (comparisons that ignore bits are not transitive) and may miss by 2^drop units.
    """
    count, shape = len(members), members[0].shape
    if count == 2:
        return (yield from larger(p, members[0], members[1], bound=bound, drop=drop))
    flat = _padded(stack(list(members)).reshape(count, -1))
    pairs = tuple(combinations(range(count), 2))
    first, second = (row(side, flat.device) for side in zip(*pairs, strict=True))
    less = yield from p.negative(p.sub(flat[first], flat[second]), bound=2 * bound)
    winners = yield from _winners(p, _as_planes(less, len(pairs)), count)
    gains = p.sub(flat[:-1], flat[-1:].expand(count - 1, flat.shape[1]))
    chosen = [winners.plane(i) for i in range(count - 1)]
    best = p.add(flat[-1], (yield from p.select_sum(chosen, [gains[i] for i in range(count - 1)])))
    return best[: shape.numel()].reshape(*shape)


def _winners(p: Protocol, less: SharedBits, count: int) -> Step[SharedBits]:
    """Plane i, for all members but the last: whether i is larger than those before it and not smaller than the rest."""
    pairs = list(combinations(range(count), 2))
    more = p.invert(less)

    def against(i: int, j: int) -> SharedBits:
        return more.plane(pairs.index((i, j))) if i < j else less.plane(pairs.index((j, i)))

    rows = [join_planes([against(i, (i + step) % count) for i in range(count - 1)]) for step in range(1, count)]
    while len(rows) > 1:
        half = len(rows) // 2
        met = yield from p.both(join_planes(rows[:half]), join_planes(rows[half : 2 * half]))
        parts = [met[k * (count - 1) : (k + 1) * (count - 1)] for k in range(half)]
        rows = parts + rows[2 * half :]
    return rows[0]


def _padded(x: Shared) -> Shared:
    """Rows of whole words, so that the bits of each row are planes of their own."""
    missing = -x.shape[1] % _WORD
    return x if not missing else x.local(lambda t: torch.nn.functional.pad(t, (0, missing)))


def _as_planes(bits: SharedBits, count: int) -> SharedBits:
    """One plane of [count, n] elements as `count` planes of n; n fills its words."""
    shape = torch.Size((bits.numel // count,))
    return SharedBits(tuple(part.reshape(count, -1) for part in bits.parts), shape)
