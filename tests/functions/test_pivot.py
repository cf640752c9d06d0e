"""The number that a softmax subtracts by unary codes: near the maximum for every bound, ragged rows included."""

from __future__ import annotations

import pytest
import torch
from support.trio import Trio

from hush.mpc.functions.masks import Rows, Whole
from hush.mpc.functions.pivot import ROOM, below, near_maximum
from hush.mpc.functions.softmax import log_softmax, softmax
from hush.mpc.schedule import LAN, WAN


@pytest.mark.parametrize("bound", [1.0, 8.0, 8.5, 20.0])
def test_within_its_room_above_and_below(bound: float) -> None:
    trio = Trio(schedule=WAN)
    x = (torch.rand(60, 50, dtype=torch.float64) * 2 - 1) * bound
    x[0], x[1], x[2, 0], x[3, 0] = bound, -bound, bound, -bound
    secret = trio.share(x)
    made = trio.run(lambda p, a: near_maximum(p, a, Whole(50), bound=bound, exact=False), secret)
    over = trio.reveal(made)[:, 0] - trio.reveal(secret).amax(-1)
    assert made[0].shape == (60, 1)
    assert float(over.max()) <= ROOM + 1e-3
    assert float(over.min()) >= -below(WAN) - 1e-3
    assert below(WAN) < 0.48
    assert len(trio.traffic) == 6


def test_of_ragged_rows() -> None:
    trio = Trio(schedule=WAN)
    keep = torch.ones(24, 24, dtype=torch.bool).tril()
    rows = Rows.of(keep)
    x = torch.randn(3, 300, dtype=torch.float64).clamp(-8, 8)
    made = trio.run(lambda p, a: near_maximum(p, a, rows, bound=8.0, exact=False), trio.share(x))
    best = torch.stack([part.amax(-1) for part in x.split(rows.lengths.tolist(), -1)], -1)
    over = trio.reveal(made) - best
    assert over.shape == (3, 24)
    assert float(over.max()) <= ROOM + 1e-3
    assert float(over.min()) >= -below(WAN) - 1e-3


@pytest.mark.parametrize("width", [2, 7, 31, 200, 300])
def test_softmax_is_as_exact_over_a_slow_network(width: int) -> None:
    """Its declared bound, for rows that are too short, just right and too long for the codes."""
    x = torch.randn(12, width, dtype=torch.float64).mul(4).clamp(-16, 16)
    x[0], x[1, 0], x[1, 1:] = 16.0, 16.0, 8.0
    for schedule in (LAN, WAN):
        trio = Trio(schedule=schedule)
        secret = trio.share(x)
        made = trio.reveal(trio.run(lambda p, a: softmax(p, a, bound=16.0), secret))
        assert float((made - trio.reveal(secret).softmax(-1)).abs().max()) < (5e-4 if width <= 128 else 3e-3)
        made = trio.reveal(trio.run(lambda p, a: log_softmax(p, a, bound=16.0), secret))
        assert float((made - trio.reveal(secret).log_softmax(-1)).abs().max()) < (2e-3 if width <= 128 else 1e-2)
