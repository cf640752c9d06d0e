"""Attention in chunks: the same results as in one piece, at the predicted cost, with no more scores than wanted."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.trio import Trio
from torch import Tensor

from hush.mpc.cost import total
from hush.mpc.functions import chunks, tiles
from hush.mpc.functions.attention import attend
from hush.mpc.functions.chunks import cut, in_pieces
from hush.mpc.functions.gelu import gelu
from hush.mpc.functions.norms import layer_norm
from hush.mpc.functions.scores import Given, Products, Scores, Shifted
from hush.mpc.functions.tiles import Tile
from hush.mpc.ring import RING64
from hush.protocols.replicated.cost import ReplicatedCost, meta

ERROR = 5e-4
T, S = 23, 29
CAUSAL = torch.ones(T, S).tril(S - T).bool()
WINDOW = torch.ones(T, S).tril(3).triu(-6).bool()
HOLES = torch.rand(T, S, generator=torch.Generator().manual_seed(0)) > 0.4
SOME_WHOLLY_MASKED = CAUSAL & (torch.arange(T) % 7 != 2)[:, None]
PER_HEAD = torch.rand(2, 3, 1, S, generator=torch.Generator().manual_seed(1)) > 0.5
ALIBI = -0.25 * (torch.arange(S) - torch.arange(T)[:, None]).abs().float() + torch.where(CAUSAL, 0.0, -1e9)
MASKS: dict[str, Tensor | None] = {
    "none": None,
    "causal": CAUSAL,
    "window": WINDOW,
    "holes": HOLES,
    "rows without a key": SOME_WHOLLY_MASKED,
    "another for each head": PER_HEAD,
    "another for each text": torch.stack([CAUSAL, WINDOW])[:, None],
    "alibi": ALIBI,
    "keys": PER_HEAD[0, 0, 0],
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 1000 scores, and tiles wherever they save one."""
    monkeypatch.setattr(chunks, "MOST", 1000)
    monkeypatch.setattr(tiles, "WORTH", 1)


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    return (x * 2**18).round() / 2**18


def expected(scores: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return scores.softmax(-1) @ values
    if mask.dtype != torch.bool:
        return (scores + mask).softmax(-1) @ values
    masked = scores.masked_fill(~mask, -math.inf)
    return torch.where(mask.any(-1, keepdim=True), masked, scores).softmax(-1) @ values


def deferred(p: Any, q: Any, k: Any) -> Products:
    return Products(q, k, lambda a, b: p.matmul(a, b), p.frac)


# ------------------------------------------------------------------ results
@pytest.mark.parametrize("width", [5, 40], ids=["divided late", "divided early"])
@pytest.mark.parametrize("name", MASKS)
def test_chunks_give_what_torch_gives_at_the_predicted_cost(small: None, name: str, width: int) -> None:
    q, k, v = random(2, 3, T, 4), random(2, 3, 4, S, seed=1), random(2, 3, S, width, seed=2)
    mask = MASKS[name]

    def program(p: Any, a: Any, b: Any, c: Any) -> Any:
        return attend(p, deferred(p, a, b), c, bound=16.0, value_bound=8.0, mask=mask)

    trio = Trio()
    secrets = [trio.share(x) for x in (q, k, v)]
    y = trio.reveal(trio.run(program, *secrets))
    assert (y - expected(q @ k, v, mask)).abs().max() < ERROR
    assert trio.predict(program, *secrets) == trio.traffic


def test_smaller_chunks_give_the_same_in_more_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    x, v = random(6, T, S, scale=3.0), random(6, S, 5, seed=1)
    found = []
    for most in (1 << 21, 1000, 200):
        monkeypatch.setattr(chunks, "MOST", most)
        trio = Trio()
        shares = trio.share(x), trio.share(v)
        run = trio.run(lambda p, a, b: attend(p, a, b, bound=16.0, value_bound=8.0, mask=CAUSAL), *shares)
        found.append((trio.reveal(run), trio.cost))
    for y, _ in found[1:]:
        assert (y - found[0][0]).abs().max() < ERROR
    rounds = [cost.rounds for _, cost in found]
    assert rounds[0] < rounds[1] < rounds[2]


def test_a_query_of_all_heads_may_have_more_scores_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then heads are taken apart too, with their part of values and masks that broadcast or do not."""
    monkeypatch.setattr(chunks, "MOST", 60)
    q, k, v = random(4, 3, 2, 4), random(1, 3, 4, S, seed=1), random(4, 1, S, 5, seed=2)
    for mask in (None, torch.rand(4, 1, 2, S) > 0.5):
        trio = Trio()
        secrets = [trio.share(x) for x in (q, k, v)]

        def program(p: Any, a: Any, b: Any, c: Any, keep: Tensor | None = mask) -> Any:
            return attend(p, deferred(p, a, b), c, bound=16.0, value_bound=8.0, mask=keep)

        y = trio.reveal(trio.run(program, *secrets))
        assert (y - expected(q @ k, v, mask)).abs().max() < ERROR
        assert trio.predict(program, *secrets) == trio.traffic


def test_secret_and_public_addends_and_one_query(small: None) -> None:
    """A secret padding mask of the keys, a public bias of the heads; then a decode step's single query."""
    k, v = random(2, 3, 4, S, seed=1), random(2, 3, S, 5, seed=2)
    padding, bias = torch.zeros(2, 1, 1, S, dtype=torch.float64), random(3, 1, S, seed=4)
    padding[0, ..., 20:], padding[1, ..., :9] = -64.0, -64.0
    for queries in (T, 1):
        q, trio = random(2, 3, queries, 4), Trio()
        secrets = [trio.share(x) for x in (q, k, v, padding)]

        def program(p: Any, a: Any, b: Any, c: Any, m: Any) -> Any:
            scores = Shifted(Shifted(deferred(p, a, b), m), bias)
            return attend(p, scores, c, bound=128.0, value_bound=8.0)

        y = trio.reveal(trio.run(program, *secrets))
        assert (y - expected(q @ k + padding + bias, v, None)).abs().max() < ERROR
        assert trio.predict(program, *secrets) == trio.traffic


# ------------------------------------------------------------------ memory and cost
class Watching(ReplicatedCost):
    """A cost model that notes how many elements the largest operation works on."""

    largest = 0

    def _with(self, result: Any, rounds: Any) -> Any:
        self.largest = max(self.largest, result.numel)
        return super()._with(result, rounds)


@pytest.mark.parametrize("mask", [None, "causal", "padded"])
def test_no_operation_works_on_more_scores_than_a_chunk(mask: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPT-2's 12 heads of 1024 queries: 12.6 million scores, at most two of them at a time."""
    heads, length = 12, 1024
    keep = torch.ones(length, length).bool().tril() if mask else None
    if keep is not None and mask == "padded":
        keep[:, :100] = False
        keep[torch.arange(100), torch.arange(100)] = True
    p = Watching(RING64, 18)
    q, k, v = (meta(shape, 18, RING64) for shape in ((heads, length, 64), (heads, 64, length), (heads, length, 64)))
    cost = total(attend(p, deferred(p, q, k), v, bound=32.0, value_bound=8.0, mask=keep))
    assert p.largest <= chunks.MOST
    assert cost.rounds < (4 if mask else 7) * 75
    monkeypatch.setattr(chunks, "MOST", 1 << 30)
    whole = total(attend(p, deferred(p, q, k), v, bound=32.0, value_bound=8.0, mask=keep))
    assert p.largest > 5e6
    assert sum(cost.bytes_sent) < 1.02 * sum(whole.bytes_sent)


def test_a_query_of_many_heads_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decode step of a large batch: 28,800 scores, at most 10,000 at a time."""
    monkeypatch.setattr(chunks, "MOST", 10_000)
    p = Watching(RING64, 18)
    q, k, v = (meta((8, 12, *matrix), 18, RING64) for matrix in ((1, 64), (64, 300), (300, 64)))
    cost = total(attend(p, deferred(p, q, k), v, bound=32.0, value_bound=8.0))
    assert p.largest <= 10_000
    assert 3 * 60 < cost.rounds < 5 * 75


def test_masked_products_are_not_computed() -> None:
    """Half of q @ k under a causal mask: with ready scores the softmax alone is halved."""
    heads, length, width = 12, 256, 64
    q, k = meta((heads, length, width), 18, RING64), meta((heads, width, length), 18, RING64)
    v, mask = meta((heads, length, width), 18, RING64), torch.ones(length, length).bool().tril()

    def sent(scores: Scores) -> int:
        return sum(total(attend(p, scores, v, bound=32.0, value_bound=8.0, mask=mask)).bytes_sent)

    p = ReplicatedCost(RING64, 18)
    product = sum(total(p.matmul(q, k)).bytes_sent)
    ready = sent(Given(meta((heads, length, length), 18, RING64)))
    saved = (ready + product - sent(deferred(p, q, k))) / product
    assert 0.35 < saved < 0.5


# ------------------------------------------------------------------ geometry
def test_spans_of_masks() -> None:
    assert tiles.spans(None, 2, 5) == [(0, 5), (0, 5)]
    keep = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]).bool()
    assert tiles.spans(keep, 3, 4) == [(0, 3), (1, 2), (3, 4)]
    assert tiles.spans(torch.tensor([0, 1, 1, 0]).bool(), 2, 4) == [(1, 3), (1, 3)]
    per_head = torch.stack([keep, keep.flip(-1)])[:, None]
    assert tiles.spans(per_head, 3, 4) == [(0, 4), (1, 3), (0, 4)]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5), st.integers(1, 300), st.integers(1, 60), st.data())
def test_tiles_cover_what_counts_once_in_chunks_of_bounded_size(
    queries: int, keys: int, heads: int, most: int, worth: int, data: st.DataObject
) -> None:
    keep = torch.rand(queries, keys, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99)))) > 0.5
    keep &= torch.ones(queries, keys).tril(data.draw(st.integers(-5, 40))).bool()
    keep[:, 0] |= ~keep.any(-1)
    made = tiles.chunks(tiles.spans(keep, queries, keys), heads, most, worth)
    covered = torch.zeros(queries, keys, dtype=torch.int64)
    for tile in (t for chunk in made for t in chunk):
        covered[tile.rows[0] : tile.rows[1], tile.keys[0] : tile.keys[1]] += 1
    assert int(covered.max()) == 1
    assert bool((covered[keep] == 1).all())
    edges = [tiles.hull(chunk).rows for chunk in made]
    assert edges[0][0] == 0
    assert edges[-1][1] == queries
    assert all(a[1] == b[0] for a, b in pairwise(edges))
    for chunk in made:
        assert heads * sum(t.area for t in chunk) <= most or tiles.hull(chunk).height == 1


def test_chunks_are_as_few_as_fit_and_about_equal() -> None:
    made = tiles.chunks(tiles.spans(torch.ones(1024, 1024).tril().bool(), 1024, 1024), 12, 1 << 21, 1 << 14)
    sizes = [12 * sum(t.area for t in chunk) for chunk in made]
    assert len(sizes) == 4
    assert max(sizes) < 1.2 * min(sizes)


def test_cut_leaves_what_broadcasts() -> None:
    x = torch.arange(24).reshape(2, 3, 4)
    assert torch.equal(cut(x, -2, 1, 3), x[:, 1:3])
    assert cut(x[:, :1], -2, 1, 3).shape == (2, 1, 4)
    assert torch.equal(cut(x[0, 0], -2, 1, 3), x[0, 0])
    assert Tile((2, 5), (1, 9)).area == 24


# ------------------------------------------------------------------ elementwise work
def test_large_elementwise_work_runs_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x = random(7, 5, 31, scale=3.0)

    def program(p: Any, a: Any) -> Any:
        return in_pieces(lambda piece: gelu(p, piece, bound=16.0), a)

    def normal(p: Any, a: Any) -> Any:
        return in_pieces(lambda piece: layer_norm(p, piece, bound=16.0), a, whole=1)

    cases = (program, torch.nn.functional.gelu(x)), (normal, torch.nn.functional.layer_norm(x, (31,)))
    for step, plain in cases:
        costs = []
        for most in (1 << 21, 400, 124):
            monkeypatch.setattr(chunks, "MOST", most)
            trio = Trio()
            y = trio.reveal(trio.run(step, trio.share(x)))
            assert (y - plain).abs().max() < 1e-3
            assert trio.predict(step, trio.share(x)) == trio.traffic
            costs.append(trio.cost.rounds)
        assert costs == [costs[0], 3 * costs[0], 9 * costs[0]]
