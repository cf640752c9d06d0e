"""Gateformer: its gates, its order of variates, its parts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from hush.models.gateformer import PAPER, TINY, EncoderLayer, Gate, Gateformer, PatchEmbedding, sinusoids
from hush.models.initial import seeded
from hush.models.registry import get


def network() -> Gateformer:
    made = seeded(lambda: Gateformer(TINY))
    assert isinstance(made, Gateformer)
    return made


def saturate(gate: Gate, value: float) -> None:
    """Make the gate 0 or 1 everywhere."""
    for layer in (gate.first, gate.second):
        layer.weight.zero_()
        layer.bias.fill_(value)


def test_parameters_at_paper_size() -> None:
    """By hand: series 96 x 512, patches 8 x 512, the head 13 patches, four gate layers, 2 + 2 encoder layers of six
    square layers and two norms, the projection; all but the patches with biases."""
    d = 512
    square = d * d + d
    embed = (96 * d + d) + 8 * d + (13 * d * d + d)
    layers = 4 * (6 * square + 4 * d)
    wanted = embed + 4 * square + layers + (d * 96 + 96)
    assert get("gateformer").sizes["paper"].parameters() == wanted == 10_873_952


@pytest.mark.parametrize(("value", "first"), [(40.0, True), (-40.0, False)])
def test_a_saturated_gate_leaves_one_branch(value: float, first: bool) -> None:
    gate, (a, b) = Gate(8).requires_grad_(False), torch.randn(2, 3, 8)
    saturate(gate, value)
    torch.testing.assert_close(gate(a, b), a if first else b)


def test_without_both_branches_a_variate_is_a_linear_layer_of_its_series() -> None:
    module, x = network(), torch.randn(2, 48, 4)
    saturate(module.gate_temporal, 40.0)
    saturate(module.gate_variate, 40.0)
    mean, deviation = x.mean(1, keepdim=True), (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    tokens = module.project_embedding(((x - mean) / deviation).transpose(1, 2))
    wanted = module.projection(tokens).transpose(1, 2) * deviation + mean
    torch.testing.assert_close(module(x), wanted, atol=1e-5, rtol=1e-5)


def test_a_gate_is_the_papers_mixture() -> None:
    gate, (a, b) = Gate(8).requires_grad_(False), torch.randn(2, 5, 8)
    share = torch.sigmoid(gate.first(a) + gate.second(b))
    torch.testing.assert_close(gate(a, b), share * a + (1 - share) * b)


def test_variates_have_no_order() -> None:
    module, x, order = network(), torch.randn(1, 48, 4), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(module(x[..., order]), module(x)[..., order], atol=1e-5, rtol=1e-5)


def test_any_number_of_variates_and_any_scale() -> None:
    module, x = network(), torch.randn(2, 48, 7)
    assert module(x).shape == (2, 12, 7)
    torch.testing.assert_close(module(3 * x + 5), 3 * module(x) + 5, atol=1e-3, rtol=1e-3)


def test_variates_and_time_both_reach_a_forecast() -> None:
    module, x = network(), torch.randn(1, 48, 4)
    other = x.clone()
    other[..., 1:] = torch.randn(1, 48, 3)
    assert (module(x) - module(other))[..., 0].abs().max() > 1e-3
    saturate(module.gate_variate, 40.0)
    torch.testing.assert_close(module(x)[..., 0], module(other)[..., 0])


def test_patches_repeat_the_last_value() -> None:
    embedding = PatchEmbedding(TINY).requires_grad_(False)
    series = torch.randn(1, 2, 48)
    last = series[..., -1:].expand(-1, -1, 8)
    wanted = embedding.value_embedding(last) + sinusoids(7, 32)[-1]
    assert (TINY.patches, PAPER.patches) == (7, 13)
    torch.testing.assert_close(embedding(series)[:, :, -1], wanted)


def test_a_layer_is_pytorchs_with_its_norm_first() -> None:
    c = replace(TINY, d_ff=48)
    ours = EncoderLayer(c).eval().requires_grad_(False)
    theirs = nn.TransformerEncoderLayer(32, 4, 48, 0.0, batch_first=True, norm_first=True).eval()
    names = {"in_proj.": "self_attn.in_proj_", "out_proj.": "self_attn.out_proj."}
    for name, value in ours.state_dict().items():
        for own, official in names.items():
            name = name.replace(own, official)
        theirs.get_parameter(name).data.copy_(value)
    x = torch.randn(2, 7, 32)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
