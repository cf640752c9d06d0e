"""iTransformer: tokens are variates, so their order and number do not matter; a series' level and scale come back."""

from __future__ import annotations

import dataclasses

import torch

from hush.models.initial import seeded
from hush.models.itransformer import TINY, ITransformer, ITransformerConfig
from hush.models.registry import get
from hush.models.series import wave

NETWORK = seeded(lambda: ITransformer(TINY))
X = wave(2, 48, 4, 0)


def test_size_of_the_ecl_network() -> None:
    """Embedding 96x512+512, three blocks of 6 matrices 512x512 with biases and two norms, a norm, 512x96+96."""
    block = 6 * (512 * 512 + 512) + 2 * 2 * 512
    assert get("itransformer").sizes["paper"].parameters() == 96 * 512 + 512 + 3 * block + 2 * 512 + 512 * 96 + 96


def test_size_of_the_ett_network() -> None:
    """The official script for ETTh1 has two blocks of 256: about 0.84 million."""
    c = ITransformerConfig(d_model=256, d_ff=256, e_layers=2)
    assert round(sum(p.numel() for p in ITransformer(c).parameters()) / 1e6, 2) == 0.84


def test_variates_have_no_order() -> None:
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(NETWORK(X[..., order]), NETWORK(X)[..., order], atol=1e-5)


def test_other_numbers_of_variates() -> None:
    assert NETWORK(wave(1, 48, 9, 1)).shape == (1, 12, 9)


def test_level_and_scale_of_each_variate_come_back() -> None:
    scale, level = torch.tensor([2.0, 0.5, 3.0, 1.5]), torch.tensor([1.0, -2.0, 0.5, 4.0])
    assert torch.allclose(NETWORK(X * scale + level), NETWORK(X) * scale + level, atol=2e-4)
    raw = seeded(lambda: ITransformer(dataclasses.replace(TINY, use_norm=False)))
    assert not torch.allclose(raw(X * scale + level), raw(X) * scale + level, atol=1e-1)
