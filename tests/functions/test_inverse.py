"""1/x between two public numbers: error over the whole range, cost, range, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.trio import Trio
from torch import Tensor

from hush.mpc.functions.inverse import inverse_between, most
from hush.mpc.functions.reciprocal import reciprocal
from hush.mpc.ring import RING32
from hush.protocols.fixed import Fixed

LOW = 0.82
HIGHS = [0.9, 1.3, 2.5, 20.0, 160.0, 700.0, 3000.0]


def points(high: float, count: int = 20_000) -> Tensor:
    return torch.logspace(math.log10(LOW), math.log10(high * (1 - 2.0**-18)), count, dtype=torch.float64)


@pytest.mark.parametrize("high", HIGHS)
@pytest.mark.parametrize("frac", [18, 22, 30])
def test_relative_error_and_two_units(high: float, frac: int) -> None:
    trio = Trio(seed=2)
    secret = trio.share(points(high))
    x = trio.reveal(secret)

    def program(p: Any, a: Any) -> Any:
        return inverse_between(p, a, low=LOW, high=high, frac=frac)

    y = trio.reveal(trio.run(program, secret))
    assert ((y - 1 / x).abs() <= 1.3e-5 / x + 2.0 ** (1 - frac)).all()
    assert trio.predict(program, secret) == trio.traffic


@pytest.mark.parametrize("high", HIGHS)
@pytest.mark.parametrize("frac", [14, 16, 18, 20])
def test_nothing_leaves_its_range(high: float, frac: int) -> None:
    if high > most(frac):
        pytest.skip("refused, see below")
    p = Fixed(frac=frac, strict=True)
    x = p.enter(points(high))
    with pytest.raises(StopIteration) as stop:
        next(inverse_between(p, x, low=LOW, high=high, frac=24))
    assert (p.value_of(stop.value.value) * p.value_of(x) - 1).abs().max() < 1.3e-5 + high * 2.0**-23


def test_fewer_rounds_than_for_any_x() -> None:
    trio = Trio()
    x = trio.share(torch.full((1536,), 3.0))
    known = trio.predict(lambda p, a: inverse_between(p, a, low=LOW, high=156.0, frac=22), x)
    general = trio.predict(lambda p, a: reciprocal(p, a, bound=156.0, floor=LOW, frac=22), x)
    assert len(known) == 11
    assert len(general) == 18
    assert sum(sum(map(sum, r.sent)) for r in known) < sum(sum(map(sum, r.sent)) for r in general)


@pytest.mark.parametrize(("low", "high"), [(0.5, 3.0), (2.0, 1.0), (1.0, 2.0**12), (math.nan, 1.0)])
def test_ranges_that_are_refused(low: float, high: float) -> None:
    p = Fixed()
    with pytest.raises(ValueError, match="from 3/4 to"):
        next(inverse_between(p, p.enter(torch.ones(3)), low=low, high=high, frac=20))


def test_narrow_rings_are_refused() -> None:
    p = Fixed()
    with pytest.raises(ValueError, match="2\\^64"):
        next(inverse_between(p, p.enter(torch.ones(3), frac=12, ring=RING32), low=1.0, high=2.0, frac=20))
