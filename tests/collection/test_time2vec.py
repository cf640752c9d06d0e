"""The encoder with Time2Vec: the embedding's definition, what each mode knows of order, periods that it learns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from claims.data import standardised, sunspots
from torch import nn

import hush
from hush.models.initial import seeded
from hush.models.registry import get
from hush.models.series import wave
from hush.models.time2vec import TINY, Embedding, Time2Vec, Time2VecConfig, Time2VecTransformer, correlated


def made(c: Time2VecConfig) -> Time2VecTransformer:
    """A network with seed 0."""
    network = seeded(lambda: Time2VecTransformer(c))
    assert isinstance(network, Time2VecTransformer)
    return network


@pytest.mark.parametrize(("model", "pooled"), [("time2vec", 1), ("time2vec-values", 32)])
def test_parameters(model: str, pooled: int) -> None:
    """By hand: the paper publishes no number. F 8, k 16, D 128, inner 512, 4 layers, 2 targets, 32 steps."""
    vectors = 2 * 8 * (1 + 16)
    embedding = 8 * (1 + 16) * 128 + 128 + (8 * 128 if model == "time2vec" else 0)
    block = 4 * (128 * 128 + 128) + (128 * 512 + 512) + (512 * 128 + 128) + 2 * 2 * 128
    assert get(model).sizes["paper"].parameters() == vectors + embedding + 4 * block + pooled * 128 * 2 + 2


def test_time2vec_is_its_formula() -> None:
    layer, t = Time2Vec(3, 4, 10.0).requires_grad_(False), torch.randn(2, 5, 3)
    got = layer(t)
    assert got.shape == (2, 5, 3, 5)
    for f in range(3):
        torch.testing.assert_close(got[..., f, 0], layer.w0[f] * t[..., f] + layer.p0[f])
        for i in range(4):
            torch.testing.assert_close(got[..., f, 1 + i], torch.sin(layer.w[f, i] * t[..., f] + layer.p[f, i]))


def test_two_layers_are_one_of_the_concatenation() -> None:
    embedding, x = Embedding(TINY).requires_grad_(False), torch.randn(2, 32, 4)
    assert embedding.values is not None
    vectors = embedding.time2vec(embedding.steps).flatten(-2).expand(2, -1, -1)
    weight = torch.cat([embedding.values.weight, embedding.times.weight], 1)
    one = nn.functional.linear(torch.cat([x, vectors], -1), weight, embedding.times.bias)
    torch.testing.assert_close(embedding(x), one, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("mode", "pool", "forgets"), [
    ("index", "mean", False), ("values", "mean", True), ("values", "last", False), ("values", "flatten", False)
])  # fmt: skip
def test_what_forgets_the_order_of_steps(mode: str, pool: str, forgets: bool) -> None:
    network, x = made(replace(TINY, mode=mode, pool=pool)), wave(2, 32, 4, 0)  # type: ignore[arg-type]
    assert torch.allclose(network(x), network(x.flip(1)), atol=1e-5) == forgets


def test_the_tables_cost_nothing_and_sines_of_values_do() -> None:
    """Mode "index" computes no sine of a secret; mode "values" one for each value and frequency."""
    small = replace(TINY, seq_len=8, n_layers=1)
    for network, sines in ((made(small), False), (made(replace(small, mode="values")), True)):
        program = hush.compile(network, (wave(1, 8, 4, 0),))
        assert ("aten.sin" in str(program)) == sines


def test_values_a_period_apart_are_alike() -> None:
    """With whole frequencies and no linear term, the values' mode sees angles."""
    network, x = made(replace(TINY, mode="values")), wave(1, 32, 4, 0)
    layer = network.embedding.time2vec
    layer.w0.zero_()
    layer.w.copy_(torch.arange(1, 9).expand(4, -1))
    torch.testing.assert_close(network(x), network(x + 2 * math.pi), atol=1e-4, rtol=0)
    assert (network(x) - network(x + 1)).abs().max() > 1e-3


def test_a_frequency_finds_the_period_of_sunspots() -> None:
    """Time2Vec of the year and one linear layer: the strongest sine is the cycle of about eleven years."""
    torch.manual_seed(0)
    numbers = standardised(sunspots(), 309)
    years = torch.arange(309, dtype=torch.float32)[:, None]
    vec, out = Time2Vec(1, 32, 309.0), nn.Linear(33, 1)
    optimiser = torch.optim.Adam([*vec.parameters(), *out.parameters()], 1e-3)
    for _ in range(400):
        optimiser.zero_grad()
        nn.functional.mse_loss(out(vec(years).flatten(1))[:, 0], numbers).backward()
        optimiser.step()
    strongest = out.weight[0, 1:].abs().argmax()
    assert 10 < 2 * math.pi / vec.w[0, strongest].item() < 12


def test_features_are_chosen_by_correlation_with_what_follows() -> None:
    noise = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0))
    noise[3] = -noise[0].roll(-2) + 0.1 * noise[4]  # the target repeats it, turned over, two steps later
    assert correlated(noise.T, target=0, count=2, lag=2) == [0, 3]
    assert set(correlated(noise[:4].T, target=0, count=2)) != {0, 3}
