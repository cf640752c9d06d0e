"""Gateformer: Lan and Oermann, "Gateformer: Advancing Multivariate Time Series Forecasting through Temporal and
Variate-Wise Attention with Gated Representations", 2025, arXiv 2505.00307.

A variate is embedded twice: its whole series through one linear layer (g), and its patches through attention over
time, flattened, through one more (t). A gate between the two, s = sigmoid(W1 g + W2 t), gives the variate's token
t + s (g - t); attention over variates follows, and a gate between what went into it and what came out.

Checked against the official code (nyuolab/Gateformer, `models/Gateformer.py` and its scripts): the mean and the biased
deviation (eps 1e-5) of each variate, patches of 8 steps after the last value is repeated 8 times, PyTorch's encoder
layers with the norm first, ReLU, biases and no last norm, the head's order [d_model, patches], four gate layers with
biases, the sizes of ECL, 96 steps to 96. The repository's copy that we read lacks `layers/Embed.py`; patches without a
bias plus sinusoidal positions, and the series with a bias, are our reading of the library that it is taken from
(thuml/Time-Series-Library). Gates are written with one product, b + s (a - b), the same function.

Secret: the series, its mean and deviation, gates, attention weights, everything computed of them. Public: lengths and
the positions' table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.initial import seeded
from hush.models.positions import sinusoids
from hush.models.registry import Call, Entry, Size, register
from hush.models.series import wave
from hush.models.sketch import Curves, forecast


@dataclass(frozen=True, slots=True)
class GateformerConfig:
    """Sizes; the defaults are those of ECL, 96 steps to 96."""

    seq_len: int = 96
    pred_len: int = 96
    patch_len: int = 8
    stride: int = 8
    d_model: int = 512
    n_heads: int = 8
    e_layers: int = 2  # of each of the two encoders
    d_ff: int = 512
    variates: int = 321  # of the example; the network takes any number

    @property
    def patches(self) -> int:
        """Of a series whose last value is repeated `stride` times more."""
        return (self.seq_len - self.patch_len) // self.stride + 2


class PatchEmbedding(nn.Module):
    """Patches of each series, with their positions."""

    def __init__(self, c: GateformerConfig) -> None:
        super().__init__()
        self.patch_len, self.stride = c.patch_len, c.stride
        self.value_embedding = nn.Linear(c.patch_len, c.d_model, bias=False)
        self.register_buffer("position", sinusoids(c.patches, c.d_model), persistent=False)

    def forward(self, series: Tensor) -> Tensor:
        """[B, N, L] -> [B, N, P, D]."""
        padded = torch.cat([series, series[..., -1:].expand(-1, -1, self.stride)], -1)
        patches = padded.unfold(-1, self.patch_len, self.stride)
        out: Tensor = self.value_embedding(patches) + self.position
        return out


class EncoderLayer(nn.Module):
    """Attention and ReLU layers, each normed before."""

    def __init__(self, c: GateformerConfig) -> None:
        super().__init__()
        self.heads = c.n_heads
        self.in_proj, self.out_proj = nn.Linear(c.d_model, 3 * c.d_model), nn.Linear(c.d_model, c.d_model)
        self.linear1, self.linear2 = nn.Linear(c.d_model, c.d_ff), nn.Linear(c.d_ff, c.d_model)
        self.norm1, self.norm2 = nn.LayerNorm(c.d_model), nn.LayerNorm(c.d_model)

    def attention(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D], every place to every place."""
        parts = self.in_proj(x).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed: Tensor = self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.linear2(F.relu(self.linear1(self.norm2(x))))
        return out


class Gate(nn.Module):
    """What of either of two representations goes on, entry by entry."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """[..., D] twice -> [..., D]: all of `a` where the gate is 1."""
        share = torch.sigmoid(self.first(a) + self.second(b))
        return b + share * (a - b)


class Gateformer(nn.Module):
    """Normalise, embed each variate along time, mix variates, project, bring back."""

    def __init__(self, c: GateformerConfig) -> None:
        super().__init__()
        self.patch_embedding = PatchEmbedding(c)
        self.enc_temporal = nn.Sequential(*(EncoderLayer(c) for _ in range(c.e_layers)))
        self.head = nn.Linear(c.d_model * c.patches, c.d_model)
        self.project_embedding = nn.Linear(c.seq_len, c.d_model)
        self.gate_temporal = Gate(c.d_model)
        self.enc_variate = nn.Sequential(*(EncoderLayer(c) for _ in range(c.e_layers)))
        self.gate_variate = Gate(c.d_model)
        self.projection = nn.Linear(c.d_model, c.pred_len)

    def temporal(self, series: Tensor) -> Tensor:
        """[B, N, L] -> [B, N, D]: attention among the patches of each variate."""
        patches = self.patch_embedding(series)
        encoded = self.enc_temporal(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
        out: Tensor = self.head(encoded.transpose(2, 3).flatten(2))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, N] -> [B, H, N]."""
        series = x.transpose(1, 2)
        mean = series.mean(-1, keepdim=True)
        deviation = torch.sqrt(series.var(-1, keepdim=True, unbiased=False) + 1e-5)
        series = (series - mean) / deviation
        tokens = self.gate_temporal(self.project_embedding(series), self.temporal(series))
        tokens = self.gate_variate(tokens, self.enc_variate(tokens))
        ahead: Tensor = self.projection(tokens) * deviation + mean
        return ahead.transpose(1, 2)


PAPER = GateformerConfig()
TINY = replace(PAPER, seq_len=48, pred_len=12, d_model=32, n_heads=4, e_layers=1, d_ff=32, variates=4)
CONFIGS = {"tiny": TINY, "paper": PAPER}
SIZES = {s: Size(partial(Gateformer, c), seq=c.seq_len, longest=c.seq_len, fixed=True) for s, c in CONFIGS.items()}


def build(size: str, source: str | None) -> nn.Module:
    """Random weights with seed 0: the paper publishes no checkpoint."""
    return seeded(SIZES[size].architecture)


def example(size: str, seq: int, batch: int, seed: int) -> Call:
    """[B, L, N]: waves of other periods and phases for each seed."""
    return (wave(batch, seq, CONFIGS[size].variates, seed),)


def sketch(call: Call, output: Tensor) -> Curves:
    """The first variate with its forecast."""
    return forecast("Gateformer: a series and its forecast", call[0][0, :, 0], output[0, :, 0])


register(
    Entry(
        id="gateformer",
        title="Gateformer",
        paper="arXiv 2505.00307",
        task="time series",
        sizes=SIZES,
        build=build,
        example=example,
        err_bound=1e-3,
        sketch=sketch,
    )
)
