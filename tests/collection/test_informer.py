"""Informer is what its paper says: which queries attend, what the others get, shapes, flags, parameters."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import count

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hush.models.informer import (
    PAPER,
    TINY,
    AttentionLayer,
    ConvLayer,
    Encoder,
    FullAttention,
    Informer,
    ProbAttention,
    example,
    ranks,
    top_rows,
)
from hush.models.initial import seeded
from hush.models.registry import get

LENGTH = 48


def tensors(*shape: int, seed: int = 0) -> list[Tensor]:
    numbers = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 4, *shape, generator=numbers) for _ in range(3)]


def made(causal: bool, **changes: int | bool) -> ProbAttention:
    return ProbAttention(replace(TINY, **changes), LENGTH, LENGTH, causal, seed=3)  # type: ignore[arg-type]


def scattered(layer: ProbAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same attention with the chosen rows read and written at their places."""
    places = layer.measure(q, k).topk(layer.u).indices
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    context = v.cumsum(-2) if layer.causal else v.mean(-2, keepdim=True).expand_as(v).clone()
    if layer.causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -math.inf)
    rows = places.unsqueeze(-1)
    chosen = scores.gather(-2, rows.expand(-1, -1, -1, scores.shape[-1])).softmax(-1) @ v
    return context.scatter(-2, rows.expand_as(chosen), chosen)


def test_ranks_count_larger_entries_and_ties_go_to_the_earlier() -> None:
    assert ranks(torch.tensor([[0.5, 2.0, 2.0, -1.0]])).tolist() == [[2, 0, 1, 3]]
    x = tensors(LENGTH)[0]
    assert torch.equal(top_rows(x, 12).argmax(-1), x.topk(12).indices)


@pytest.mark.parametrize("causal", [False, True])
def test_one_hot_rows_are_the_gather_and_scatter_of_the_chosen(causal: bool) -> None:
    layer = made(causal)
    assert layer.u == 12 == 3 * math.ceil(math.log(LENGTH))
    given = tensors(LENGTH, 8)
    torch.testing.assert_close(layer(*given), scattered(layer, *given), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_with_all_queries_it_is_full_attention(causal: bool) -> None:
    layer, given = made(causal, factor=12), tensors(LENGTH, 8)
    assert layer.u == LENGTH
    torch.testing.assert_close(layer(*given), FullAttention(causal)(*given), atol=2e-5, rtol=1e-5)


def test_with_every_key_once_the_measure_is_max_less_mean() -> None:
    layer, (q, k, _) = made(False), tensors(LENGTH, 8)
    sampled = layer.select(q, k).sum(-2)
    layer.index_sample = torch.arange(LENGTH).expand(LENGTH, -1)
    scores = q @ k.transpose(-1, -2)
    torch.testing.assert_close(layer.measure(q, k), scores.amax(-1) - scores.mean(-1))
    overlap = ((sampled * layer.select(q, k).sum(-2)).sum() / sampled.sum()).item()
    assert 0.4 < overlap < 1.0  # a sample of 12 of 48 keys: most of the queries, not all


def test_the_sum_over_sampled_keys_is_divided_by_all_keys_as_a_flag() -> None:
    (q, k, _), code, paper = tensors(LENGTH, 8), made(False), made(False, divide_by_keys=False)
    products = torch.einsum("bhle,bhlse->bhls", q, k[:, :, code.index_sample])
    torch.testing.assert_close(code.measure(q, k), products.amax(-1) - products.sum(-1) / LENGTH)
    torch.testing.assert_close(paper.measure(q, k), products.amax(-1) - products.mean(-1))
    assert not torch.equal(code.select(q, k), paper.select(q, k))


def test_sampled_keys_are_public_and_drawn_once_a_layer() -> None:
    network, again = Informer(TINY), Informer(TINY)
    samples = [b for name, b in network.named_buffers() if name.endswith("index_sample")]
    assert [tuple(s.shape) for s in samples] == [(48, 12), (24, 12), (36, 12)]
    assert not [name for name in network.state_dict() if name.endswith("index_sample")]
    pairs = zip(samples, (b for n, b in again.named_buffers() if n.endswith("index_sample")), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    other = Informer(replace(TINY, sample_seed=9)).get_buffer("encoder.attn_layers.0.attention.inner_attention.future")
    assert torch.equal(other, torch.ones(48, 48).triu(1))


def test_a_layer_of_distilling_halves_the_length() -> None:
    c = replace(TINY, e_layers=3)
    x = torch.randn(2, 48, 32, generator=torch.Generator().manual_seed(0))
    assert ConvLayer(32).eval()(x).shape == (2, 24, 32)
    assert ConvLayer(32).eval()(x[:, :47]).shape == (2, 24, 32)
    assert Encoder(c, count(0)).eval()(x).shape == (2, 12, 32)
    assert Encoder(replace(c, distil=False), count(0)).eval()(x).shape == (2, 48, 32)


def test_distilling_goes_around_the_circle() -> None:
    """Steps turned by two are results turned by one, but for the pooling at the two ends."""
    layer, x = ConvLayer(32).eval(), torch.randn(1, 48, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        turned, plain = layer(x.roll(2, 1)), layer(x).roll(1, 1)
    torch.testing.assert_close(turned[:, 2:], plain[:, 2:])


def test_mix_lays_heads_one_after_the_other() -> None:
    x = torch.randn(2, LENGTH, 32, generator=torch.Generator().manual_seed(0))
    mixed = seeded(lambda: AttentionLayer(TINY, FullAttention(True), mix=True))
    plain = AttentionLayer(TINY, FullAttention(True))
    plain.load_state_dict(mixed.state_dict())
    weight, bias = plain.out_projection.weight, plain.out_projection.bias
    heads = torch.linalg.solve(weight, (plain(x, x) - bias).unsqueeze(-1)).squeeze(-1)
    one_after_the_other = heads.unflatten(-1, (4, 8)).transpose(1, 2).reshape(2, LENGTH, 32)
    torch.testing.assert_close(mixed(x, x), F.linear(one_after_the_other, weight, bias), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("flag", [{"mix": False}, {"divide_by_keys": False}, {"attn": "full"}, {"sample_seed": 5}])
def test_flags_change_results(flag: dict[str, bool]) -> None:
    network, call = get("informer").build("tiny", None), example("tiny", 48, 2, 0)
    other = Informer(replace(TINY, **flag)).eval()  # type: ignore[arg-type]
    other.load_state_dict(network.state_dict())
    with torch.inference_mode():
        assert (network(*call) - other(*call)).abs().max() > 1e-4


def test_rows_of_a_batch_are_independent_and_dates_matter() -> None:
    network, (x, mark) = get("informer").build("tiny", None), example("tiny", 48, 3, 0)
    with torch.inference_mode():
        whole = network(x, mark)
        torch.testing.assert_close(whole[1:2], network(x[1:2], mark[1:2]), atol=1e-5, rtol=1e-4)
        assert (network(x, mark.roll(1, 0)) - whole).abs().max() > 1e-3
    assert whole.shape == (3, TINY.pred_len, TINY.c_out)


def test_parameters() -> None:
    """By hand, from the defaults of the official code: 11.33 million."""
    d, f, c = PAPER.d_model, PAPER.d_ff, PAPER.enc_in
    embedding = 3 * c * d + d + 4 * d + d
    attention, feed, norm = 4 * (d * d + d), 2 * d * f + f + d, 2 * d
    encoder = 2 * (attention + feed + 2 * norm) + (3 * d * d + d + norm) + norm
    decoder = 2 * attention + feed + 3 * norm + norm
    assert 2 * embedding + encoder + decoder + d * c + c == 11_330_055
    assert get("informer").sizes["paper"].parameters() == 11_330_055
