"""LTSF-Linear: what the three networks are, and their published sizes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from hush.models.ltsf_linear import TINY, DLinear, Linear, LTSFConfig, NLinear
from hush.models.registry import get
from hush.models.series import wave

X = wave(2, 48, 3, 0)


def test_published_sizes() -> None:
    """336 steps to 96: one layer of 336 x 96 + 96, and two."""
    for name, layers in {"linear": 1, "nlinear": 1, "dlinear": 2}.items():
        assert get(f"ltsf-{name}").sizes["paper"].parameters() == layers * (336 * 96 + 96)
    each = LTSFConfig(channels=7, individual=True)
    assert sum(p.numel() for p in DLinear(each).parameters()) == 2 * 7 * (336 * 96 + 96)


def test_a_shared_layer_is_the_same_as_one_for_each_variate_with_its_weights() -> None:
    shared, each = Linear(TINY), Linear(dataclasses.replace(TINY, individual=True))
    for layer in each.Linear.linear:
        layer.load_state_dict(shared.Linear.linear[0].state_dict())
    assert torch.allclose(shared(X), each(X), atol=1e-6)


def test_nlinear_follows_a_shift_of_the_level() -> None:
    network = NLinear(TINY)
    assert torch.allclose(network(X + 5), network(X) + 5, atol=1e-5)
    assert not torch.allclose(Linear(TINY)(X + 5), Linear(TINY)(X) + 5, atol=1e-1)


def test_the_moving_average_repeats_the_ends() -> None:
    series = X.transpose(1, 2)
    trend = DLinear(TINY).trend(series)
    assert trend.shape == series.shape
    assert torch.allclose(trend[..., 20], series[..., 16:25].mean(-1), atol=1e-6)
    first = (5 * series[..., 0] + series[..., 1:5].sum(-1)) / 9
    assert torch.allclose(trend[..., 0], first, atol=1e-6)


def test_dlinear_is_one_layer_of_the_series() -> None:
    """Trend and remainder are linear in the series, so a forecast of zeros is the biases and of sums the sum."""
    network = DLinear(TINY)
    zero = network(torch.zeros_like(X))
    assert torch.allclose(network(X + X.flip(0)) - zero, network(X) - zero + network(X.flip(0)) - zero, atol=1e-5)


@pytest.mark.parametrize("network", [Linear, NLinear, DLinear])
def test_averaging_starts_from_the_mean(network: type[Linear]) -> None:
    made = network(dataclasses.replace(TINY, averaging=True))
    for name, parameter in made.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
    assert torch.allclose(made(torch.ones(1, 48, 3)), torch.ones(1, 12, 3), atol=1e-5)
