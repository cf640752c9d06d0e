"""Flowformer is what its paper says: flows are conserved, linear and quadratic form agree, flags, parameters."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hush.models.flowformer import PAPER, TINY, FlowAttention, FlowformerClassiregressor, example, sinusoids
from hush.models.initial import seeded
from hush.models.registry import get

SINKS, SOURCES, WIDTH = 30, 48, 8


def tensors(sinks: int = SINKS, sources: int = SOURCES, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    numbers = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, n, WIDTH, generator=numbers) for n in (sinks, sources, sources))
    return scale * q, scale * k, v


def made(**changes: bool) -> FlowAttention:
    return FlowAttention(replace(TINY, **changes))  # type: ignore[arg-type]


def quadratic(q: Tensor, k: Tensor, v: Tensor, clamp: bool) -> Tensor:
    """The definition with the matrix of capacities [L, S], sums as in the paper, no epsilon."""
    capacity = torch.sigmoid(q) @ torch.sigmoid(k).transpose(-1, -2)
    sinks, sources = capacity.shape[-2:]
    incoming, outgoing = capacity.sum(-1, keepdim=True), capacity.sum(-2, keepdim=True)
    into_sinks, out_of_sources = (
        (capacity / outgoing).sum(-1, keepdim=True),
        (capacity / incoming).sum(-2, keepdim=True),
    )
    competing = (out_of_sources.clamp(-1, 1) if clamp else out_of_sources).softmax(-1) * sources
    return torch.sigmoid(into_sinks * sinks / sources) * (capacity / incoming * competing @ v)


def steps(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The causal definition, a position after the other, each from what was there until then."""
    q, k = torch.sigmoid(q), torch.sigmoid(k)
    places = range(1, q.shape[2] + 1)
    into = torch.stack([q[:, :, t - 1] * k[:, :, :t].sum(2) for t in places], 2).sum(-1, keepdim=True)
    out = torch.stack([k[:, :, t - 1] * q[:, :, :t].sum(2) for t in places], 2).sum(-1, keepdim=True)
    place = torch.arange(1, q.shape[2] + 1).unsqueeze(-1)
    even_q, even_k = q * place / into, k * place / out
    sinks = torch.stack([q[:, :, t - 1] * even_k[:, :, :t].mean(2) for t in places], 2).sum(-1, keepdim=True)
    sources = torch.stack([k[:, :, t - 1] * even_q[:, :, :t].mean(2) for t in places], 2).sum(-1, keepdim=True)
    rows = []
    for t in places:
        share = torch.stack([sources[:, :, i].exp() / sources[:, :, : i + 1].exp().mean(2) for i in range(t)], 2)
        weights = q[:, :, t - 1 : t] @ k[:, :, :t].transpose(-1, -2) / into[:, :, t - 1 : t]
        rows.append(weights @ (v[:, :, :t] * share) * torch.sigmoid(sinks[:, :, t - 1 : t]))
    return torch.cat(rows, 2)


@pytest.mark.parametrize("clamp", [False, True])
def test_the_linear_form_is_the_quadratic_one(clamp: bool) -> None:
    given = tensors()
    torch.testing.assert_close(made(clamp=clamp)(*given), quadratic(*given, clamp), atol=2e-6, rtol=1e-5)


def test_the_causal_form_is_the_same_step_by_step() -> None:
    given = tensors(20, 20)
    torch.testing.assert_close(made(causal=True)(*given), steps(*given), atol=1e-5, rtol=1e-4)


def test_the_causal_form_does_not_see_what_comes() -> None:
    layer, (q, k, v) = made(causal=True), tensors(20, 20)
    before = layer(q, k, v)
    for t in (q, k, v):
        t[:, :, 12:] = 5.0
    torch.testing.assert_close(layer(q, k, v)[:, :, :12], before[:, :, :12])


def test_flows_are_conserved() -> None:
    """With incoming flows at 1, all that leaves the sources is as much as there are sinks, and the other way round."""
    layer, (q, k, _) = made(), tensors()
    sinks, sources = torch.sigmoid(q), torch.sigmoid(k)
    even_sinks = sinks / layer.flow(sinks, sources) / (SOURCES * WIDTH)
    even_sources = sources / layer.flow(sources, sinks) / (SINKS * WIDTH)
    torch.testing.assert_close((even_sinks @ sources.transpose(-1, -2)).sum(-1), torch.ones(2, 4, SINKS))
    torch.testing.assert_close((sinks @ even_sources.transpose(-1, -2)).sum(-2), torch.ones(2, 4, SOURCES))
    out_of_sources = sources @ even_sinks.sum(2, keepdim=True).transpose(-1, -2)
    into_sinks = sinks @ even_sources.sum(2, keepdim=True).transpose(-1, -2)
    torch.testing.assert_close(out_of_sources.sum((2, 3)), torch.full((2, 4), float(SINKS)))
    torch.testing.assert_close(into_sinks.sum((2, 3)), torch.full((2, 4), float(SOURCES)))


def test_without_competition_and_allocation_it_is_linear_attention() -> None:
    q, k, v = tensors()
    weights = torch.sigmoid(q) @ torch.sigmoid(k).transpose(-1, -2)
    expected = weights / weights.sum(-1, keepdim=True) @ v
    torch.testing.assert_close(made(competition=False, allocation=False)(q, k, v), expected, atol=2e-6, rtol=1e-5)


def test_shares_are_positive_and_one_on_average() -> None:
    flows = torch.rand(2, 4, SOURCES, 1, generator=torch.Generator().manual_seed(0))
    shares = made().shares(flows)
    assert shares.min() > 0
    torch.testing.assert_close(shares.mean(2), torch.ones(2, 4, 1))
    running = made(causal=True).shares(flows)
    torch.testing.assert_close(running[:, :, 0], torch.ones(2, 4, 1))
    torch.testing.assert_close(running[:, :, -1], shares[:, :, -1])


def test_steps_in_another_order_give_the_results_in_that_order() -> None:
    layer, given = made(), tensors(SOURCES, SOURCES)
    order = torch.randperm(SOURCES, generator=torch.Generator().manual_seed(0))
    turned = layer(*(t[:, :, order] for t in given))
    torch.testing.assert_close(turned, layer(*given)[:, :, order], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("flag", ["clamp", "causal", "competition", "allocation"])
def test_flags_change_results(flag: str) -> None:
    given = tensors(SOURCES, SOURCES, scale=2.0)
    changed = made(**{flag: not getattr(TINY, flag)})
    assert (made()(*given) - changed(*given)).abs().max() > 1e-3


def test_padding_is_left_out_of_the_output_layer_only() -> None:
    network, (x,) = seeded(lambda: FlowformerClassiregressor(TINY)), example("tiny", 48, 2, 0)
    with torch.inference_mode():
        whole, real = network(x), torch.ones(2, 48)
        torch.testing.assert_close(network(x, real), whole)
        real[:, 40:] = 0.0
        network.output_layer.weight.unflatten(1, (48, 32))[:, 40:] = 0.0  # type: ignore[union-attr,operator]
        torch.testing.assert_close(network(x, real), network(x))
        x[:, 40:] += 1.0
        assert (network(x, real) - whole).abs().max() > 1e-3  # attention sees it all the same


def test_positions_are_learned_or_sinusoids() -> None:
    fixed = FlowformerClassiregressor(replace(TINY, pos_encoding="fixed"))
    assert "pe" not in fixed.state_dict()
    assert torch.equal(fixed.pe, sinusoids(48, 32))
    assert fixed.pe[3, 0].item() == pytest.approx(math.sin(3))
    assert fixed.pe[3, 1].item() == pytest.approx(math.cos(3))
    assert FlowformerClassiregressor(TINY).pe.abs().max() <= 0.02


def test_rows_of_a_batch_are_independent() -> None:
    network, (x,) = get("flowformer").build("tiny", None), example("tiny", 48, 3, 0)
    with torch.inference_mode():
        whole = network(x)
        torch.testing.assert_close(whole[1:2], network(x[1:2]), atol=1e-5, rtol=1e-4)
    assert whole.shape == (3, 4)
    assert F.softmax(whole, -1).isfinite().all()


def test_parameters() -> None:
    """By hand, from the defaults of the official code and the sizes of UWaveGestureLibrary."""
    d, f, c = PAPER.d_model, PAPER.d_ff, PAPER
    layer = 4 * (d * d + d) + 2 * d * f + f + d + 4 * d
    ends = c.feat_dim * d + d + c.max_len * d + 2 * d + d * c.max_len * c.num_classes + c.num_classes
    assert c.num_layers * layer + ends == 7_759_368
    assert get("flowformer").sizes["paper"].parameters() == 7_759_368
