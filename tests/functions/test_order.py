"""Maximum, minimum, argmax, one-hot vectors and top-k, through shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trio import Trio
from torch import Tensor

from hush.mpc.functions.order import argmax, argmax_one_hot, maximum, minimum, one_hot, top_k_mask

BOUND = 8.0


def scores(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, generator=generator, dtype=torch.float64) * 16 - 8).mul(2**18).round() / 2**18


def secure(program: Callable[..., Any], x: Tensor, frac: int = 18) -> Tensor:
    trio = Trio(seed=4)
    return trio.reveal(trio.run(program, trio.share(x, frac=frac)))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 31, 100, 129])
def test_maximum_and_argmax_of_rows_of_any_length(n: int) -> None:
    x = scores(9, n)
    assert torch.equal(secure(lambda p, a: maximum(p, a, bound=BOUND), x), x.amax(-1))
    assert torch.equal(secure(lambda p, a: minimum(p, a, bound=BOUND), x), x.amin(-1))
    assert torch.equal(secure(lambda p, a: argmax(p, a, bound=BOUND), x), x.argmax(-1).double())


def test_a_million_entries() -> None:
    x = scores(15_625, 64)
    assert torch.equal(secure(lambda p, a: maximum(p, a, bound=BOUND), x), x.amax(-1))


@pytest.mark.parametrize("dim", [0, 1, 2, -2])
def test_other_dimensions(dim: int) -> None:
    x = scores(3, 5, 4)
    kept = secure(lambda p, a: maximum(p, a, dim, bound=BOUND, keepdim=True), x)
    assert torch.equal(kept, x.amax(dim, keepdim=True))
    assert torch.equal(secure(lambda p, a: argmax(p, a, dim, bound=BOUND), x), x.argmax(dim).double())


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=9))
@settings(max_examples=25, deadline=None)
def test_ties_give_exactly_one_winner_the_first(row: list[int]) -> None:
    x = torch.tensor(row, dtype=torch.float64)[None]
    hot = secure(lambda p, a: argmax_one_hot(p, a, bound=BOUND), x)
    expected = torch.zeros(len(row), dtype=torch.float64)
    expected[row.index(max(row))] = 1
    assert torch.equal(hot[0], expected)


@pytest.mark.parametrize("drop", [6, 12])
def test_a_tolerant_maximum_is_an_entry_at_most_one_coarse_unit_a_level_below(drop: int) -> None:
    x = scores(400, 37) * 2.0 ** (drop - 20)  # nearly equal entries: within a few coarse units
    x = (x * 2**18).round() / 2**18
    top = secure(lambda p, a: maximum(p, a, bound=BOUND, drop=drop), x)
    assert (x == top[:, None]).any(-1).all()
    assert (x.amax(-1) - top).max() <= 6 * 2.0 ** (drop - 18)


def test_the_bound_itself_is_ordered() -> None:
    x = torch.tensor([[-BOUND, BOUND], [BOUND, -BOUND], [BOUND, BOUND]], dtype=torch.float64)
    assert secure(lambda p, a: maximum(p, a, bound=BOUND), x).tolist() == [BOUND] * 3
    assert secure(lambda p, a: argmax(p, a, bound=BOUND), x).tolist() == [1, 0, 0]


@pytest.mark.parametrize("classes", [1, 2, 7, 64, 100])
def test_one_hot_of_secret_integers(classes: int) -> None:
    ids = torch.arange(classes).reshape(1, -1)
    hot = secure(lambda p, a: one_hot(p, a, classes), ids.double(), frac=0)
    assert torch.equal(hot, torch.nn.functional.one_hot(ids, classes).double())


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=8), st.data())
@settings(max_examples=25, deadline=None)
def test_top_k_are_exactly_k_and_the_first_of_equals(row: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(row)))
    mask = secure(lambda p, a: top_k_mask(p, a, k, bound=BOUND), torch.tensor([row, row], dtype=torch.float64))
    best = sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]
    assert mask.shape == (2, len(row))
    assert mask[0].nonzero().reshape(-1).tolist() == sorted(best)
    assert torch.equal(mask[0], mask[1])


def test_top_k_of_too_few() -> None:
    trio = Trio()
    with pytest.raises(ValueError, match="top 4 of 3"):
        trio.run(lambda p, a: top_k_mask(p, a, 4, bound=1.0), trio.share(torch.zeros(3)))


@pytest.mark.parametrize(
    "program",
    [
        lambda p, a: maximum(p, a, bound=BOUND),
        lambda p, a: maximum(p, a, 0, bound=BOUND, drop=10),
        lambda p, a: argmax_one_hot(p, a, bound=BOUND),
        lambda p, a: top_k_mask(p, a, 2, bound=BOUND),
    ],
)
@pytest.mark.parametrize("shape", [(1, 2), (7, 13)])
def test_predicted_traffic_is_the_measured_one(program: Callable[..., Any], shape: tuple[int, ...]) -> None:
    trio = Trio()
    trio.run(program, x := trio.share(scores(*shape)))
    measured = trio.traffic
    assert trio.predict(program, x) == measured
    trio.run(program, trio.share(scores(*shape, seed=9)))
    assert trio.traffic == measured
