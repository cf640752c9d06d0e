"""Largest entries by groups: exact for rows of every length, ties and ragged rows included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.trio import Trio
from torch import Tensor

from hush.mpc.functions.contest import champion, group_size, largest, largest_of_rows
from hush.mpc.functions.order import maximum
from hush.mpc.ring import RING64, Ring
from hush.mpc.schedule import WAN


def numbers(*shape: int, few: bool, seed: int = 0) -> Tensor:
    """Multiples of 1/8 below 8; `few`: of three values only, so that nearly all tie."""
    generator = torch.Generator().manual_seed(seed)
    if few:
        return torch.randint(-1, 2, shape, generator=generator).double()
    return torch.randint(-63, 64, shape, generator=generator).double() / 8


def secure(program: Any, x: Tensor, ring: Ring, frac: int) -> Tensor:
    trio = Trio(seed=4)
    secret = trio.share(x, frac=frac, ring=ring)
    found = trio.reveal(trio.run(program, secret))
    assert trio.predict(program, secret) == trio.traffic
    return found


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 9, 13, 31, 32, 33, 100, 128])
def test_largest(n: int, few: bool) -> None:
    x = numbers(5, 3, n, few=few)
    found = secure(lambda p, a: largest(p, a, bound=8.0, drop=0), x, Ring(11), 3)
    assert torch.equal(found, x.amax(-1, keepdim=True))


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("lengths", [[1], [3, 1, 8, 5, 2], [9, 40, 1, 17, 33, 4], list(range(1, 30))])
def test_largest_of_ragged_rows(lengths: list[int], few: bool) -> None:
    rows = torch.tensor(lengths)
    x = numbers(2, int(rows.sum()), few=few)
    found = secure(lambda p, a: largest_of_rows(p, a, rows, bound=8.0, drop=0), x, RING64, 18)
    assert torch.equal(found, torch.stack([part.amax(-1) for part in x.split(lengths, -1)], -1))


@pytest.mark.parametrize("count", [2, 3, 4, 6, 8])
def test_every_place_can_win_and_ties_have_one_winner(count: int) -> None:
    """Every order of the members, and every choice of equal ones among them."""
    x = torch.cartesian_prod(*[torch.arange(3.0)] * count).T.double()
    found = secure(lambda p, a: champion(p, [a[i] for i in range(count)], bound=4.0), x, Ring(9), 3)
    assert torch.equal(found, x.amax(0))


def test_comparisons_that_ignore_bits_are_left_to_pairs() -> None:
    """All pairs of a group could then select nobody, or two."""
    assert {group_size(n, 5, WAN) for n in range(2, 100)} == {2}
    x = numbers(4, 50, few=False)
    found = secure(lambda p, a: largest(p, a, bound=8.0, drop=16), x, RING64, 18)
    gap = x.amax(-1, keepdim=True) - found
    assert (gap >= 0).all()
    assert (gap <= 6 * 2.0**-2).all()


def test_fewer_rounds_than_a_tournament_of_pairs() -> None:
    trio = Trio()
    x = trio.share(torch.zeros(12, 128, 128), frac=3, ring=Ring(11))
    grouped = trio.predict(lambda p, a: largest(p, a, bound=17.0, drop=0), x)
    paired = trio.predict(lambda p, a: maximum(p, a, bound=17.0), x)
    assert len(grouped) + 8 <= len(paired)
    sent = [sum(sum(map(sum, r.sent)) for r in rounds) for rounds in (grouped, paired)]
    assert sent[0] < 1.3 * sent[1]
