"""A Transformer encoder with multi-feature Time2Vec: Bui et al., "Transformer Encoder and Multi-features Time2Vec for
Financial Prediction", EUSIPCO 2025, arXiv 2504.13801; Time2Vec: Kazemi et al., arXiv 1907.05321.

Prices that move with the one in question are chosen by their correlation in training; each gets a Time2Vec of its own,
t -> w_0 t + p_0 and sin(w_i t + p_i), i = 1..k, with learnt w, p; a linear layer of all, an encoder, a pool over the
steps, a dense layer to the prices of the next step. There is no public code, and the sizes of the paper were not at
hand: this is the canonical form of what the abstract says (post-norm blocks with ReLU, scale 1 / sqrt(d)), and `PAPER`
has sizes of our choice. What t is differs between published uses of Time2Vec, so there are two networks:

- `time2vec`, mode "index": t is the step in the window. The vectors join the values before the linear layer, which is
  written as one for each, summed: the same function. They depend on weights alone, so their owner computes a table.
- `time2vec-values`, mode "values": t is the value itself, so w_0 t + p_0 carries it. Sines of secrets. Nothing then
  says which step is which, and a mean over the steps would forget their order: this one pools by flattening.

Frequencies start uniform in 0..pi (no wave faster than two steps) for an index, and in -pi..pi for values; the linear
term at most 1 over the window. Ours too.

Secret: prices and forecasts. Public: lengths, the index, and which features were chosen (from training data).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.initial import seeded
from hush.models.registry import Call, Entry, Size, register
from hush.models.series import wave
from hush.models.sketch import Curves, forecast


@dataclass(frozen=True, slots=True)
class Time2VecConfig:
    """Sizes, with `kernel_size` sines a feature; the first `targets` of the features are forecast."""

    seq_len: int = 32
    features: int = 8
    targets: int = 2
    kernel_size: int = 16
    d_model: int = 128
    n_heads: int = 8
    n_layers: int = 4
    d_ff: int = 512
    mode: Literal["index", "values"] = "index"
    pool: Literal["mean", "last", "flatten"] = "mean"


def correlated(series: Tensor, target: int, count: int, lag: int = 0) -> list[int]:
    """The target and the features [T, C] whose values most correlate, in absolute value, with its values `lag` steps
    later: `count` in all."""
    ahead, now = series[lag:, target], series[: len(series) - lag]
    centred, wanted = now - now.mean(0), ahead - ahead.mean()
    strength = (wanted @ centred).abs() / (centred.norm(dim=0) * wanted.norm())
    strength[target] = math.inf
    chosen: list[int] = strength.topk(count).indices.tolist()
    return chosen


class Time2Vec(nn.Module):
    """Of each feature's t: a linear term and sines."""

    def __init__(self, features: int, sines: int, longest: float, negative: bool = False) -> None:
        super().__init__()
        self.w0, self.p0 = (nn.Parameter(torch.empty(features, 1)) for _ in range(2))
        self.w, self.p = (nn.Parameter(torch.empty(features, sines)) for _ in range(2))
        nn.init.uniform_(self.w0, -1 / longest, 1 / longest)
        nn.init.uniform_(self.w, -math.pi if negative else 0.0, math.pi)
        nn.init.zeros_(self.p0)
        nn.init.uniform_(self.p, -math.pi, math.pi)

    def forward(self, t: Tensor) -> Tensor:
        """[..., F], or [..., 1] for the same t -> [..., F, 1 + k]."""
        t = t.unsqueeze(-1)
        return torch.cat([t * self.w0 + self.p0, torch.sin(t * self.w + self.p)], -1)


class Attention(nn.Module):
    """Full attention over steps."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        parts = self.query, self.key, self.value
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


class EncoderLayer(nn.Module):
    """A post-norm block."""

    def __init__(self, c: Time2VecConfig) -> None:
        super().__init__()
        self.attention = Attention(c.d_model, c.n_heads)
        self.linear1, self.linear2 = nn.Linear(c.d_model, c.d_ff), nn.Linear(c.d_ff, c.d_model)
        self.norm1, self.norm2 = nn.LayerNorm(c.d_model), nn.LayerNorm(c.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        x = self.norm1(x + self.attention(x))
        out: Tensor = self.norm2(x + self.linear2(F.relu(self.linear1(x))))
        return out


class Embedding(nn.Module):
    """Features and their Time2Vec, concatenated, through a linear layer."""

    steps: Tensor

    def __init__(self, c: Time2VecConfig) -> None:
        super().__init__()
        indexed = c.mode == "index"
        self.time2vec = Time2Vec(c.features, c.kernel_size, c.seq_len if indexed else 1.0, negative=not indexed)
        self.times = nn.Linear(c.features * (1 + c.kernel_size), c.d_model)
        self.values = nn.Linear(c.features, c.d_model, bias=False) if indexed else None
        self.register_buffer("steps", torch.arange(c.seq_len, dtype=torch.float32)[:, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, F] -> [B, L, D]."""
        vectors = self.time2vec(x if self.values is None else self.steps)
        embedded: Tensor = self.times(vectors.flatten(-2))
        return embedded if self.values is None else self.values(x) + embedded


class Time2VecTransformer(nn.Module):
    """Embed, encode, pool, forecast the next step."""

    def __init__(self, c: Time2VecConfig) -> None:
        super().__init__()
        self.pool = c.pool
        self.embedding = Embedding(c)
        self.layers = nn.ModuleList(EncoderLayer(c) for _ in range(c.n_layers))
        self.dense = nn.Linear(c.d_model * (c.seq_len if c.pool == "flatten" else 1), c.targets)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, F] -> [B, T]."""
        tokens = self.embedding(x)
        for layer in self.layers:
            tokens = layer(tokens)
        pooled = {"mean": lambda: tokens.mean(1), "last": lambda: tokens[:, -1], "flatten": lambda: tokens.flatten(1)}
        ahead: Tensor = self.dense(pooled[self.pool]())
        return ahead


PAPER = Time2VecConfig()
TINY = replace(PAPER, features=4, kernel_size=8, d_model=32, n_heads=4, n_layers=2, d_ff=64)


def _configs(tiny: Time2VecConfig, paper: Time2VecConfig) -> dict[str, Time2VecConfig]:
    return {"tiny": tiny, "paper": paper}


NETWORKS = {
    "time2vec": _configs(TINY, PAPER),
    "time2vec-values": _configs(*(replace(c, mode="values", pool="flatten") for c in (TINY, PAPER))),
}


def build(sizes: dict[str, Size], size: str, source: str | None) -> nn.Module:
    """Random weights with seed 0: the paper publishes no checkpoint."""
    return seeded(sizes[size].architecture)


def example(configs: dict[str, Time2VecConfig], size: str, seq: int, batch: int, seed: int) -> Call:
    """[B, L, F]: waves of other periods and phases for each seed."""
    return (wave(batch, seq, configs[size].features, seed),)


def sketch(call: Call, output: Tensor) -> Curves:
    """The first feature with its next value."""
    return forecast("Time2Vec encoder: a price and its next value", call[0][0, :, 0], output[0, :1])


for name, configs in NETWORKS.items():
    sizes = {
        s: Size(partial(Time2VecTransformer, c), seq=c.seq_len, longest=c.seq_len, fixed=True)
        for s, c in configs.items()
    }
    register(
        Entry(
            id=name,
            title="Transformer encoder with Time2Vec" + {"time2vec": "", "time2vec-values": " of values"}[name],
            paper="arXiv 2504.13801",
            task="time series",
            sizes=sizes,
            build=partial(build, sizes),
            example=partial(example, configs),
            err_bound={"time2vec": 4e-5, "time2vec-values": 2e-4}[name],
            sketch=sketch,
        )
    )
