"""Flowformer: Wu et al., "Flowformer: Linearizing Transformers with Conservation Flows", ICML 2022, arXiv 2202.06258.

Attention in linear time, read as a network of flows from sources (keys, values) to sinks (queries): capacities are
products of sigmoids; with what flows into each sink held at 1 the sources compete (softmax), with what flows out of
each source held at 1 a sink takes its share (sigmoid). Here the classifier of series (UEA archive).

Checked against the official code (thuml/Flowformer, the core file and the folder of time series): post-norm blocks with
biases everywhere, 1x1 convolutions as feed-forward layer (linear layers here, the same function), a last norm and GELU
before all steps are flattened, embedding times sqrt(d_model), learned positions in the scripts of UEA and sinusoids by
default (`pos_encoding`), padding removed only before the output layer and not in the attention. The core file clamps
the outgoing flow to [-1, 1], the folder does not (`clamp`); the causal form has running sums, flows times positions
(`causal`). `competition` and `allocation` switch either off, to compare. Left out: dropout, and 1e-6 added to sigmoids
and sums, which moves results by about as much.

All flows are written with means in place of sums: I_i = m d i_i where i_i = q_i . mean(k) / d is between 0 and 1,
and the lengths cancel. The same numbers, and no reciprocal of something large, which would be small in fixed point.

Secret: the series, its padding, flows, everything computed of them. Public: lengths, sinusoids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.initial import seeded
from hush.models.positions import sinusoids
from hush.models.registry import Call, Entry, Size, register
from hush.models.series import wave
from hush.models.sketch import Bars


@dataclass(frozen=True, slots=True)
class FlowformerConfig:
    """Sizes; the defaults are those of the code, with UWaveGestureLibrary: three axes, 315 steps, eight gestures."""

    feat_dim: int = 3
    max_len: int = 315
    num_classes: int = 8
    d_model: int = 512
    n_heads: int = 8
    num_layers: int = 2
    d_ff: int = 2048
    pos_encoding: str = "learnable"  # or "fixed"
    clamp: bool = False
    causal: bool = False
    competition: bool = True
    allocation: bool = True


class FlowAttention(nn.Module):
    """Attention by flows; with neither competition nor allocation it is linear attention with sigmoid features."""

    def __init__(self, c: FlowformerConfig) -> None:
        super().__init__()
        self.clamp, self.causal, self.competition, self.allocation = c.clamp, c.causal, c.competition, c.allocation

    def average(self, x: Tensor) -> Tensor:
        """[B, H, L, ...]: the mean over the length, or the mean so far."""
        if not self.causal:
            return x.mean(2, keepdim=True)
        places = torch.arange(1, x.shape[2] + 1, device=x.device).reshape(-1, *[1] * (x.ndim - 3))
        return x.cumsum(2) / places

    def flow(self, to: Tensor, of: Tensor) -> Tensor:
        """[B, H, L, E] and [B, H, S, E] -> [B, H, L, 1]: what goes through each, between 0 and 1 for capacities."""
        mean = self.average(of)
        if self.causal:
            return (to * mean).mean(-1, keepdim=True)
        return to @ mean.transpose(-1, -2) / to.shape[-1]

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B, H, L, E] and twice [B, H, S, E] -> [B, H, L, E]; L = S if causal."""
        sinks, sources = torch.sigmoid(q), torch.sigmoid(k)
        even_sinks = sinks / self.flow(sinks, sources)  # incoming flow 1
        if self.competition:
            even_ratio = sinks.shape[2] / sources.shape[2]
            outgoing = even_ratio * self.flow(sources, even_sinks)
            v = v * self.shares(outgoing.clamp(-1, 1) if self.clamp else outgoing)
        if self.causal:
            mixed = (even_sinks.unsqueeze(-2) @ self.average(sources.unsqueeze(-1) * v.unsqueeze(-2))).squeeze(-2)
        else:
            mixed = even_sinks @ (sources.transpose(-1, -2) @ v / v.shape[2])
        mixed = mixed / q.shape[-1]
        if self.allocation:
            even_sources = sources / self.flow(sources, sinks)  # outgoing flow 1
            mixed = mixed * torch.sigmoid(self.flow(sinks, even_sources))
        return mixed

    def shares(self, outgoing: Tensor) -> Tensor:
        """[B, H, S, 1]: what each source has over the average one, by softmax."""
        if not self.causal:
            return F.softmax(outgoing, 2) * outgoing.shape[2]
        weight = outgoing.exp()
        return weight / self.average(weight)


class AttentionLayer(nn.Module):
    """Projections around flow attention."""

    def __init__(self, c: FlowformerConfig) -> None:
        super().__init__()
        self.n_heads, self.inner_attention = c.n_heads, FlowAttention(c)
        self.query_projection, self.key_projection = nn.Linear(c.d_model, c.d_model), nn.Linear(c.d_model, c.d_model)
        self.value_projection, self.out_projection = nn.Linear(c.d_model, c.d_model), nn.Linear(c.d_model, c.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        parts = self.query_projection, self.key_projection, self.value_projection
        q, k, v = (part(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in parts)
        out: Tensor = self.out_projection(self.inner_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class EncoderLayer(nn.Module):
    """A post-norm block."""

    def __init__(self, c: FlowformerConfig) -> None:
        super().__init__()
        self.attention = AttentionLayer(c)
        self.conv1, self.conv2 = nn.Linear(c.d_model, c.d_ff), nn.Linear(c.d_ff, c.d_model)
        self.norm1, self.norm2 = nn.LayerNorm(c.d_model), nn.LayerNorm(c.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        x = self.norm1(x + self.attention(x))
        out: Tensor = self.norm2(x + self.conv2(F.gelu(self.conv1(x))))
        return out


class FlowformerClassiregressor(nn.Module):
    """Embed steps, encode, flatten, score classes."""

    pe: Tensor

    def __init__(self, c: FlowformerConfig) -> None:
        super().__init__()
        self.config = c
        self.project_inp = nn.Linear(c.feat_dim, c.d_model)
        if c.pos_encoding == "learnable":
            self.pe = nn.Parameter(torch.empty(c.max_len, c.d_model).uniform_(-0.02, 0.02))
        else:
            self.register_buffer("pe", sinusoids(c.max_len, c.d_model), persistent=False)
        self.attn_layers = nn.ModuleList(EncoderLayer(c) for _ in range(c.num_layers))
        self.norm = nn.LayerNorm(c.d_model)
        self.output_layer = nn.Linear(c.d_model * c.max_len, c.num_classes)

    def forward(self, x: Tensor, padding_masks: Tensor | None = None) -> Tensor:
        """[B, L, C], mask [B, L] of real steps -> [B, classes]; the mask is for the output layer only."""
        tokens = self.project_inp(x) * math.sqrt(self.config.d_model) + self.pe
        for block in self.attn_layers:
            tokens = block(tokens)
        tokens = F.gelu(self.norm(tokens))
        if padding_masks is not None:
            tokens = tokens * padding_masks.unsqueeze(-1)
        scores: Tensor = self.output_layer(tokens.flatten(1))
        return scores


PAPER = FlowformerConfig()
TINY = replace(PAPER, feat_dim=3, max_len=48, num_classes=4, d_model=32, n_heads=4, d_ff=64)
CONFIGS = {"tiny": TINY, "paper": PAPER}
SIZES = {
    s: Size(partial(FlowformerClassiregressor, c), seq=c.max_len, longest=c.max_len, fixed=True)
    for s, c in CONFIGS.items()
}


def build(size: str, source: str | None) -> nn.Module:
    """Random weights with seed 0: the paper publishes no checkpoint for series."""
    return seeded(SIZES[size].architecture)


def example(size: str, seq: int, batch: int, seed: int) -> Call:
    """[B, L, C]: waves of other periods and phases for each seed."""
    return (wave(batch, seq, CONFIGS[size].feat_dim, seed),)


def sketch(call: Call, output: Tensor) -> Bars:
    """Scores of the classes."""
    return Bars("Flowformer: scores of classes", [f"class {i}" for i in range(output.shape[-1])], output[0])


register(
    Entry(
        id="flowformer",
        title="Flowformer",
        paper="arXiv 2202.06258",
        task="time series",
        sizes=SIZES,
        build=build,
        example=example,
        err_bound=2e-3,
        sketch=sketch,
    )
)
