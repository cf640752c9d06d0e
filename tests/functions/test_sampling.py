"""Choosing tokens through shares: greedy, top-k, and draws whose frequencies are those of the softmax."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trio import Trio
from torch import Tensor

from hush.mpc.errors import UserError
from hush.mpc.functions.sampling import NOISE, Choice, choose, gumbel
from hush.mpc.functions.topk import bitonic_layers, kth_largest, odd_even_layers

BOUND = 16.0


def _scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def _choose(logits: Tensor, choice: Choice, bound: float = BOUND) -> tuple[Tensor, Tensor]:
    """(token, one-hot rows), the cost checked against the prediction."""
    trio = Trio()

    def program(p: Any, x: Any) -> Any:
        return choose(p, x, bound=bound, choice=choice)

    secret = trio.share(logits)
    token, row = trio.run(program, secret)
    assert trio.traffic == trio.predict(program, secret)
    tokens, rows = trio.reveal(token).long(), trio.reveal(row)
    assert torch.equal(rows, torch.nn.functional.one_hot(tokens, logits.shape[-1]).double())
    return tokens, rows


# ---------------------------------------------------------------------- the k-th largest
@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
def test_layers_sort_everything(size: int) -> None:
    """Zeros and ones in every order: a network that sorts these sorts everything [Knuth, 5.3.4]."""
    rows = (torch.arange(1 << size)[:, None] >> torch.arange(size)) & 1
    for layer in odd_even_layers(size):
        rows = _exchanged(rows, layer)
    assert bool((rows[:, :-1] >= rows[:, 1:]).all())


@pytest.mark.parametrize("size", [2, 8, 16])
def test_layers_sort_what_is_bitonic(size: int) -> None:
    falls = [[int(a <= i < b) for i in range(size)] for a in range(size) for b in range(a, size + 1)]
    rows = torch.tensor(falls + [[1 - x for x in row] for row in falls])
    for layer in bitonic_layers(size):
        rows = _exchanged(rows, layer)
    assert bool((rows[:, :-1] >= rows[:, 1:]).all())


def _exchanged(rows: Tensor, layer: list[tuple[int, int]]) -> Tensor:
    rows = rows.clone()
    for i, j in layer:
        rows[:, i], rows[:, j] = torch.maximum(rows[:, i], rows[:, j]), torch.minimum(rows[:, i], rows[:, j])
    return rows


@given(st.integers(1, 40), st.data())
@settings(max_examples=20, deadline=None)
def test_kth_largest_of_any_length(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    units = torch.tensor(data.draw(st.lists(st.integers(-3, 3), min_size=2 * n, max_size=2 * n))).reshape(2, n)
    trio = Trio()
    found = trio.reveal(trio.run(lambda p, x: kth_largest(p, x, k, bound=4.0), trio.share(units.double())))
    assert torch.equal(found[:, 0], units.double().sort(-1, descending=True).values[:, k - 1])


def test_kth_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="does not exist"):
        next(kth_largest(Trio().protocols[0], Trio().share(torch.zeros(3))[0], 4, bound=1.0))


# ---------------------------------------------------------------------- choices
@pytest.mark.parametrize("bound", [BOUND, 2.0**20], ids=["in 32 bits", "too large for 32 bits"])
def test_greedy_takes_the_first_of_the_largest(bound: float) -> None:
    logits = _scores(6, 41)
    logits[0, 7] = logits[0, 30] = 15.0
    tokens, _ = _choose(logits, Choice(), bound)
    assert torch.equal(tokens, logits.argmax(-1))


def test_temperature_and_one_of_one_are_greedy() -> None:
    logits = _scores(5, 17, seed=1)
    assert torch.equal(_choose(logits, Choice(1.0, top_k=1))[0], logits.argmax(-1))
    apart = torch.tensor([[0.0, 8.0, 4.0]]).repeat(50, 1)
    assert bool((_choose(apart, Choice(2.0**-5))[0] == 1).all())  # 128 between them: noise never makes up for it


@pytest.mark.parametrize(
    ("choice", "kept"), [(Choice(1.0), 5), (Choice(0.5), 5), (Choice(2.0), 5), (Choice(1.0, 3), 3)]
)
def test_frequencies_are_those_of_the_softmax(choice: Choice, kept: int) -> None:
    """Chi-square over 6,000 draws: a true softmax passes 26 (4 degrees of freedom) but once in 30,000 runs."""
    logits = torch.tensor([1.5, 0.5, -1.0, 0.0, 2.0], dtype=torch.float64)
    count = 6000
    tokens, _ = _choose(logits.expand(count, 5), choice)
    seen = torch.bincount(tokens, minlength=5).double()
    inside = logits >= logits.sort(descending=True).values[kept - 1]
    expected = count * torch.softmax(torch.where(inside, logits / choice.temperature, -torch.inf), 0)
    assert bool((seen[~inside] == 0).all())
    assert float((((seen - expected) ** 2)[inside] / expected[inside]).sum()) < 26


def test_top_k_keeps_equal_logits_at_its_edge() -> None:
    tokens, _ = _choose(torch.tensor([[3.0, 3.0, 3.0, -9.0]]).repeat(300, 1).double(), Choice(1.0, top_k=2))
    assert set(tokens.tolist()) == {0, 1, 2}


def test_noise_is_within_its_bound_and_standard_gumbel() -> None:
    drawn = gumbel((200_000,))
    assert float(drawn.abs().max()) < NOISE
    assert abs(float(drawn.mean()) - 0.5772) < 0.02
    assert abs(float(drawn.var()) - 1.6449) < 0.05
    assert not torch.equal(gumbel((8,)), gumbel((8,)))


@pytest.mark.parametrize("temperature", [-1.0, 0.001, 65.0, float("nan"), float("inf")])
def test_temperatures_out_of_range_are_refused(temperature: float) -> None:
    with pytest.raises(UserError, match="temperature"):
        Choice(temperature)
