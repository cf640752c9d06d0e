"""1/x and 1/sqrt(x) by lines on dealt cells: within their bound over the whole range, in four rounds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.trio import Trio

from hush.mpc.functions.inverse import inverse_between
from hush.mpc.functions.lines import RECIPROCAL, RSQRT, Curve, evaluate, fineness, lines
from hush.mpc.functions.norms import layer_norm, rms_norm
from hush.mpc.functions.rsqrt import rsqrt, scaled_rsqrt
from hush.mpc.schedule import LAN, UNDEALT, WAN, Schedule
from hush.protocols.fixed import Fixed

EAGER = Schedule("eager", WAN.round_bits, WAN.widest_digit, WAN.longest_fours, 1 << 50, True)


def _fixed(schedule: Schedule) -> Fixed:
    p = Fixed(strict=True)
    p.schedule = schedule
    return p


def _run(step: Any) -> Any:
    with pytest.raises(StopIteration) as done:
        next(step)
    return done.value.value


@pytest.mark.parametrize("curve", [RECIPROCAL, RSQRT], ids=lambda c: c.name)
@pytest.mark.parametrize("fine", [3, 6, 9])
def test_every_cell_is_within_its_bound_at_both_ends(curve: Curve, fine: int) -> None:
    """In float64, over each cell's whole reach: its two ends and points between them."""
    found = lines(curve, 1.0, 1, 1 << 24, fine, 12, 40)
    assert found is not None
    cells = found.cells
    values = found.tables[1].double() * 2.0**-found.frac
    slopes = sum(row.double() * 2.0 ** -(found.frac + h) for row, h in zip(found.tables[2:], found.shifts, strict=True))
    for part in (-1.0, -0.5, 0.0, 0.3, 1.0):
        gap = part * cells.reach.double()
        x = cells.centres.double() + gap
        true = torch.from_numpy(curve.value((x.clamp(min=1) * 2.0**-12).numpy()))
        error = ((values + slopes * gap) / true - 1).abs()[x > 0]
        assert float(error.max()) < found.error + 1e-9
    assert bool(((torch.stack(list(found.tables[2:])) != 0).sum(0) <= 1).all()), "one slope for each cell"


def test_fineness_is_the_least_that_serves() -> None:
    for error in (1e-2, 1e-4, 7.2e-7):
        fine = fineness(RSQRT, error)
        assert RSQRT.bend / 4.0 ** (fine + 1) <= error < RSQRT.bend / 4.0**fine


@pytest.mark.parametrize(
    ("bound", "floor", "frac", "headroom"),
    [
        (2.0**15.6, 2.0**-36, 36, 22.8),
        (4.0, 2.0**-30, 36, 22.8),
        (2.0**13, 2.0**-13, 18, 0.0),
        (2.0**24, 2.0**-4, 36, 20.0),
    ],
)
def test_rsqrt_over_its_whole_range(bound: float, floor: float, frac: int, headroom: float) -> None:
    p = _fixed(EAGER)
    x = p.enter(
        torch.logspace(math.log2(floor), math.log2(bound), 4001, base=2, dtype=torch.float64).clamp(max=bound),
        frac=frac,
    )
    made = _run(scaled_rsqrt(p, x, bound=bound, floor=floor, headroom=headroom))
    units = 2.0**-made.frac * p.value_of(x).sqrt()
    error = (p.value_of(made) * p.value_of(x).sqrt() - 1).abs()
    assert float((error - 4 * units).max()) < 1.2e-6


@pytest.mark.parametrize("high", [1.22, 156.0, 2500.0])
def test_inverse_over_its_whole_range(high: float) -> None:
    p = _fixed(EAGER)
    x = p.enter(torch.linspace(0.82, high, 4001, dtype=torch.float64), frac=18)
    made = _run(inverse_between(p, x, low=0.82, high=high, frac=28))
    error = (p.value_of(made) * p.value_of(x) - 1).abs()
    assert float((error - 2 * 2.0**-28 * p.value_of(x)).max()) < 1.3e-5


def test_parties_take_four_rounds_and_agree_with_one_process() -> None:
    trio, found = Trio(schedule=WAN), lines(RSQRT, 1.0, 1 << 10, 1 << 20, 9, 12, 30)
    assert found is not None
    x = torch.logspace(-1.9, 7.9, 300, base=2, dtype=torch.float64)
    secret = trio.share(x, frac=12)
    made = trio.reveal(trio.run(evaluate, secret, found))
    assert float((made * trio.reveal(secret).sqrt() - 1).abs().max()) < found.error + 3 * 2.0**-26
    assert trio.traffic == trio.predict(evaluate, secret, found)
    assert trio.cost.rounds == 4


@pytest.mark.parametrize(
    ("schedule", "rows", "rounds"), [(LAN, 16, 8), (LAN, 128, 23), (UNDEALT, 16, 23), (WAN, 128, 8)]
)
def test_norms_are_as_exact_in_few_rounds(schedule: Schedule, rows: int, rounds: int) -> None:
    torch.manual_seed(5)
    x = torch.randn(rows, 64, dtype=torch.float64) * torch.logspace(-3, 3, rows, base=2, dtype=torch.float64)[:, None]
    trio = Trio(schedule=schedule)
    secret = trio.share(x)
    exact = trio.reveal(secret)
    made = trio.reveal(trio.run(lambda p, a: layer_norm(p, a, bound=64.0), secret))
    unit = 2.0**-18
    wanted = torch.nn.functional.layer_norm(exact, (64,))
    assert float((made - wanted).abs().max()) < 2.0**-19 * 8 + 2 * unit + unit / 0.1
    assert trio.traffic == trio.predict(lambda p, a: layer_norm(p, a, bound=64.0), secret)
    assert trio.cost.rounds == rounds
    made = trio.reveal(trio.run(lambda p, a: rms_norm(p, a, bound=64.0), secret))
    wanted = exact / (exact.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    assert float((made - wanted).abs().max()) < 2.0**-19 * 8 + 2 * unit + unit / 0.1


def test_many_numbers_are_not_worth_their_trees() -> None:
    """The schedule weighs blocks against rounds: so many rows take the comparisons instead."""
    trio = Trio(schedule=WAN)

    def rounds(count: int) -> int:
        return len(trio.predict(lambda p, a: rsqrt(p, a, bound=64.0, floor=2.0**-10), trio.share(torch.ones(count))))

    assert rounds(128) == 6
    assert rounds(60_000) > 12
