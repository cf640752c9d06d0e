"""Softmax and log-softmax through shares: rows of every length, masks of every kind, public and secret."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.trio import Trio
from torch import Tensor

from hush.mpc import fixed_point
from hush.mpc.cost import total
from hush.mpc.errors import RangeError
from hush.mpc.functions.declare import declared
from hush.mpc.functions.masks import Rows, settle
from hush.mpc.functions.pivot import tolerance
from hush.mpc.functions.softmax import log_softmax, softmax
from hush.mpc.ring import RING64
from hush.protocols.fixed import Fixed
from hush.protocols.replicated.cost import ReplicatedCost, meta

LOWEST = torch.finfo(torch.float32).min
MASKS = [-1e4, -1e9, LOWEST, -math.inf]
BOUND = 16.0
USUAL = 3e-4  # error of rows of normal scores; the declared one is for the worst rows


def scores(*shape: int, seed: int = 0, deviation: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64) * deviation
    return (x.clamp(-BOUND, BOUND) * 2**18).round() / 2**18


def secure(program: Callable[..., Any], *xs: Tensor) -> Tensor:
    trio = Trio(seed=6)
    return trio.reveal(trio.run(program, *[trio.share(x) for x in xs]))


# ------------------------------------------------------------------ rows
@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 33, 127, 128, 1000, 2047, 2048])
def test_rows_of_any_length(n: int) -> None:
    x = scores(6, n)
    y = secure(lambda p, a: softmax(p, a, bound=BOUND), x)
    assert (y - x.softmax(-1)).abs().max() < USUAL + 4e-7 * n
    assert (y.sum(-1) - 1).abs().max() < math.sqrt(n) * 2.0**-16
    assert y.min() > -(2.0**-17)


def test_a_million_scores() -> None:
    x = scores(7813, 128)
    y = secure(lambda p, a: softmax(p, a, bound=BOUND), x)
    assert (y - x.softmax(-1)).abs().max() < USUAL


@pytest.mark.parametrize(("n", "error"), [(2, 1e-4), (16, 2e-4), (128, 4.5e-4), (2048, 3e-3)])
def test_the_worst_rows_stay_within_the_declared_error(n: int, error: float) -> None:
    """One entry against all others, equal and at every distance."""
    gap = torch.linspace(-18, 0, 181, dtype=torch.float64)
    x = gap[:, None].expand(-1, n).clone()
    x[:, 0] = 0
    y = secure(lambda p, a: softmax(p, a, bound=18.0), x)
    assert (y - x.softmax(-1)).abs().max() < error <= declared(softmax).error


@pytest.mark.parametrize("step", [0.0, 2.0**-18, 2.0**-12, 2.0**-4])
def test_equal_and_nearly_equal_scores(step: float) -> None:
    """The row maximum is sought among coarse scores, so what is exponentiated may lie above 0."""
    x = 5 - step * torch.arange(100, dtype=torch.float64).expand(20, 100)
    x = torch.stack([row[torch.randperm(100, generator=torch.Generator().manual_seed(i))] for i, row in enumerate(x)])
    y = secure(lambda p, a: softmax(p, a, bound=BOUND), x)
    assert (y - x.softmax(-1)).abs().max() < USUAL


@pytest.mark.parametrize("bound", [0.5, 100.0, 2.0**12, 2.0**22])
def test_bounds_narrow_and_wide(bound: float) -> None:
    x = scores(20, 33) * min(1.0, bound / BOUND)
    x[:, 0], x[::2, 1] = bound, -bound
    y = secure(lambda p, a: softmax(p, a, bound=bound), x)
    assert (y - x.softmax(-1)).abs().max() < USUAL


def test_puma_is_as_coarse_as_published() -> None:
    x = scores(400, 16)
    y = secure(lambda p, a: softmax(p, a, bound=BOUND, approx="puma"), x)
    assert 4e-3 < (y - x.softmax(-1)).abs().max() < 5e-2


# ------------------------------------------------------------------ public masks
@pytest.mark.parametrize("value", MASKS)
def test_causal_masks(value: float) -> None:
    """Rows of 1 to T entries in one tensor."""
    x, mask = scores(2, 3, 45, 45), torch.full((45, 45), value).triu(1)
    y = secure(lambda p, a: softmax(p, a, bound=BOUND, mask=mask), x)
    assert (y - (x + mask).softmax(-1)).abs().max() < USUAL
    assert (y[..., mask != 0] == 0).all()


@pytest.mark.parametrize("value", MASKS)
def test_padding_masks_that_differ_by_row_of_the_batch(value: float) -> None:
    x, mask = scores(3, 2, 5, 40), torch.zeros(3, 1, 1, 40)
    mask[0, ..., 20:], mask[1, ..., 1:] = value, value
    y = secure(lambda p, a: softmax(p, a, bound=BOUND, mask=mask), x)
    assert (y - (x + mask).softmax(-1)).abs().max() < USUAL


@pytest.mark.parametrize("value", MASKS)
def test_a_row_masked_everywhere_is_the_softmax_of_its_scores(value: float) -> None:
    x, mask = scores(4, 9, 30), torch.zeros(9, 30)
    mask[2], mask[5, 3:] = value, value
    y = secure(lambda p, a: softmax(p, a, bound=BOUND, mask=mask), x)
    assert torch.isfinite(y).all()
    assert (y.sum(-1) - 1).abs().max() < 1e-4
    assert (y[:, 2] - x[:, 2].softmax(-1)).abs().max() < USUAL
    others = [i for i in range(9) if i != 2]
    assert (y[:, others] - (x + mask).softmax(-1)[:, others]).abs().max() < USUAL


def test_masks_that_only_weaken_stay_exact() -> None:
    """Swin's -100, ALiBi's slopes, relative position biases, all at once."""
    x = scores(2, 4, 49, 49)
    slopes = 2.0 ** -torch.arange(1, 5)[:, None, None] * (torch.arange(49) - torch.arange(49)[:, None])
    windows = torch.zeros(49, 49)
    windows[:20, 20:], windows[20:, :20] = -100, -100
    bias = scores(4, 49, 49, seed=3) / 4
    mask = slopes + windows + bias
    y = secure(lambda p, a: softmax(p, a, bound=BOUND, mask=mask), x)
    assert (y - (x + mask).softmax(-1)).abs().max() < USUAL
    weak = torch.full((49,), 0.0)
    weak[7:] = -20.0  # less than the scores' own range: nothing may be left out
    y = secure(lambda p, a: softmax(p, a, bound=BOUND, mask=weak), x)
    assert (y - (x + weak).softmax(-1)).abs().max() < USUAL


def test_the_entry_that_a_mask_leaves_may_have_the_lowest_score() -> None:
    x = torch.full((4, 8), BOUND, dtype=torch.float64)
    x[:, 3] = -BOUND
    for value in (*MASKS, -2 * BOUND - 16.5, -2 * BOUND - 15.5):
        mask = torch.full((8,), value)
        mask[3] = 0.0
        y = secure(lambda p, a, m=mask: softmax(p, a, bound=BOUND, mask=m), x)
        assert (y - (x + mask).softmax(-1)).abs().max() < USUAL


def test_boolean_masks_keep_where_true() -> None:
    x, keep = scores(3, 10, 10), torch.ones(10, 10).tril().bool()
    y = secure(lambda p, a: softmax(p, a, bound=BOUND, mask=keep), x)
    assert (y - x.masked_fill(~keep, -math.inf).softmax(-1)).abs().max() < USUAL


@pytest.mark.parametrize("shape", [(3,), (2, 5, 1), (4, 5)])
def test_masks_that_do_not_broadcast(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="does not broadcast"):
        secure(lambda p, a: softmax(p, a, bound=BOUND, mask=torch.zeros(shape)), scores(5, 4))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_masks_that_are_none(value: float) -> None:
    with pytest.raises(RangeError, match="NaN or"):
        settle(torch.tensor([0.0, value]))


def test_masked_entries_cost_nothing() -> None:
    trio = Trio()
    x = trio.share(torch.zeros(4, 64, 64))
    mask = torch.full((64, 64), -math.inf).triu(1)

    def sent(mask: Tensor | None) -> int:
        return sum(sum(map(sum, r.sent)) for r in trio.predict(lambda p, a: softmax(p, a, bound=8.0, mask=mask), x))

    assert sent(mask) < 0.6 * sent(None)


# ------------------------------------------------------------------ secret masks
@pytest.mark.parametrize("value", MASKS)
@pytest.mark.parametrize("n", [5, 128])
def test_secret_masks(value: float, n: int) -> None:
    """A secret mask is added before; it saturates when encoded, and the bound covers it."""
    x, mask = scores(8, n), torch.zeros(8, n)
    for row in range(7):
        mask[row, 1 + row % (n - 1) :] = value
    mask[7] = value  # masked everywhere
    bound = fixed_point.limit(RING64, 18) + BOUND
    y = secure(lambda p, a, m: softmax(p, p.add(a, m), bound=bound), x, mask)
    assert (y[:7] - (x + mask).softmax(-1)[:7]).abs().max() < USUAL
    assert torch.isfinite(y).all()
    assert (y[7] - x[7].softmax(-1)).abs().max() < USUAL
    assert (y.sum(-1) - 1).abs().max() < 1e-4


def test_a_secret_and_a_public_mask_together() -> None:
    x, secret = scores(2, 12, 12), torch.zeros(2, 1, 12)
    secret[0, 0, 8:], causal = -1e9, torch.full((12, 12), -math.inf).triu(1)
    bound = fixed_point.limit(RING64, 18) + BOUND
    y = secure(lambda p, a, m: softmax(p, p.add(a, m), bound=bound, mask=causal), x, secret)
    assert (y - (x + secret + causal).softmax(-1)).abs().max() < USUAL


# ------------------------------------------------------------------ log-softmax
@pytest.mark.parametrize("n", [1, 3, 100, 1000])
def test_log_softmax(n: int) -> None:
    x = scores(8, n)
    y = secure(lambda p, a: log_softmax(p, a, bound=BOUND), x)
    assert (y - x.log_softmax(-1)).abs().max() < 3e-4 + 1e-6 * n


@pytest.mark.parametrize("value", MASKS)
def test_log_softmax_with_a_mask(value: float) -> None:
    x, mask = scores(3, 20, 20), torch.full((20, 20), value).triu(1)
    y = secure(lambda p, a: log_softmax(p, a, bound=BOUND, mask=mask), x)
    keep = mask == 0
    assert (y - (x + mask).log_softmax(-1))[:, keep].abs().max() < 3e-4
    assert (y[:, ~keep] < -1e3).all()


def test_log_softmax_of_the_worst_rows() -> None:
    gap = torch.linspace(-16, 0, 65, dtype=torch.float64)
    x = gap[:, None].expand(-1, 2048).clone()
    x[:, 0] = 0
    y = secure(lambda p, a: log_softmax(p, a, bound=BOUND), x)
    assert (y - x.log_softmax(-1)).abs().max() < 1e-2


# ------------------------------------------------------------------ cost and range
def test_rounds_and_bytes_that_the_docstring_states() -> None:
    scores_of_heads = meta((12, 128, 128), 18, RING64)
    cost = total(softmax(ReplicatedCost(RING64, 18), scores_of_heads, bound=BOUND))
    assert cost.rounds == 49
    assert sum(cost.bytes_sent) / scores_of_heads.numel == pytest.approx(163, abs=0.5)


@pytest.mark.parametrize("approx", ["default", "puma"])
@pytest.mark.parametrize("bound", [8.0, 2.0**27])
@pytest.mark.parametrize("masked", [False, True])
def test_predicted_traffic_is_the_measured_one(approx: str, bound: float, masked: bool) -> None:
    mask = torch.full((7, 7), -math.inf).triu(1) if masked else None

    def program(p: Any, a: Any) -> Any:
        return softmax(p, a, bound=bound, approx=approx, mask=mask)

    trio = Trio()
    trio.run(program, x := trio.share(scores(3, 7, 7)))
    measured = trio.traffic
    assert trio.predict(program, x) == measured
    trio.run(program, trio.share(scores(3, 7, 7, seed=1)))
    assert trio.traffic == measured


@pytest.mark.parametrize("bound", [BOUND, 2.0**20, 2.0**26 + BOUND])
def test_nothing_leaves_its_range(bound: float) -> None:
    p = Fixed(strict=True)
    x = scores(5, 37)
    x[0, 0], x[1, 1] = min(bound, 2.0**25), -min(bound, 2.0**25)
    for mask in (None, torch.full((37,), -1e9).index_fill_(0, torch.tensor([0, 4]), 0.0)):
        assert list(softmax(p, p.enter(x), bound=bound, mask=mask)) == []
        assert list(log_softmax(p, p.enter(x), bound=bound, mask=mask)) == []


def test_ragged_rows_put_entries_back() -> None:
    keep = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 1]]).bool()
    rows = Rows.of(keep)
    p = Fixed()
    x = p.enter(torch.arange(18.0).reshape(2, 3, 3) - 9)
    entries = rows.gather(x)
    assert entries.shape == (2, 6)
    assert torch.equal(p.value_of(rows.scatter(entries)).reshape(2, 3, 3), p.value_of(x) * keep)
    assert torch.equal(p.value_of(rows.sum(entries)), (p.value_of(x) * keep).sum(-1))
    with pytest.raises(StopIteration) as stop:
        next(rows.maximum(p, entries, bound=16.0, drop=0))
    assert torch.equal(p.value_of(stop.value.value), p.value_of(x).masked_fill(~keep, -99).amax(-1))


def test_tolerance_leaves_room_for_every_level() -> None:
    for n in (1, 2, 3, 128, 2048):
        levels = max(1, math.ceil(math.log2(n)))
        assert levels * 2.0 ** (tolerance(18, n) - 18) <= 0.1875


def test_long_rows_at_a_finer_scale() -> None:
    """There the sum may be too large for the cheaper reciprocal."""
    p = Fixed(frac=20, strict=True)
    x = scores(3, 2048)
    with pytest.raises(StopIteration) as stop:
        next(softmax(p, p.enter(x), bound=BOUND))
    assert (p.value_of(stop.value.value) - x.softmax(-1)).abs().max() < USUAL
