"""iTransformer: Liu et al., "iTransformer: Inverted Transformers Are Effective for Time Series Forecasting", ICLR 2024,
arXiv 2310.06625.

A token is a whole variate: its series through one linear layer. Attention is over variates, so nothing has a position
and the network takes any number of them. Checked against the official code (thuml/iTransformer): each variate is
normalised by its mean and biased standard deviation (eps 1e-5) and the forecast brought back; post-norm blocks with
biases everywhere, the feed-forward layer as two 1x1 convolutions (linear layers here, the same function), a last norm,
a linear layer to the forecast. The code can append time stamps as further tokens; here a caller who has such series
passes them as variates, since a token is made alike of either, and drops their forecasts.

Secret: the series, its mean and deviation, attention weights, everything computed of them. Public: lengths.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.initial import seeded
from hush.models.registry import Call, Entry, Size, register
from hush.models.series import wave
from hush.models.sketch import Curves, forecast


@dataclass(frozen=True, slots=True)
class ITransformerConfig:
    """Sizes; the defaults are those of ECL, 96 steps to 96."""

    seq_len: int = 96
    pred_len: int = 96
    d_model: int = 512
    n_heads: int = 8
    e_layers: int = 3
    d_ff: int = 512
    use_norm: bool = True
    variates: int = 321  # of the example; the network takes any number


class Attention(nn.Module):
    """Full attention over variates."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_projection, self.key_projection = nn.Linear(width, width), nn.Linear(width, width)
        self.value_projection, self.out_projection = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        parts = self.query_projection, self.key_projection, self.value_projection
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed: Tensor = self.out_projection(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


class EncoderLayer(nn.Module):
    """A post-norm block."""

    def __init__(self, c: ITransformerConfig) -> None:
        super().__init__()
        self.attention = Attention(c.d_model, c.n_heads)
        self.conv1, self.conv2 = nn.Linear(c.d_model, c.d_ff), nn.Linear(c.d_ff, c.d_model)
        self.norm1, self.norm2 = nn.LayerNorm(c.d_model), nn.LayerNorm(c.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        x = self.norm1(x + self.attention(x))
        out: Tensor = self.norm2(x + self.conv2(F.gelu(self.conv1(x))))
        return out


class ITransformer(nn.Module):
    """Normalise, embed variates, encode, project, bring back."""

    def __init__(self, c: ITransformerConfig) -> None:
        super().__init__()
        self.config = c
        self.value_embedding = nn.Linear(c.seq_len, c.d_model)
        self.attn_layers = nn.ModuleList(EncoderLayer(c) for _ in range(c.e_layers))
        self.norm = nn.LayerNorm(c.d_model)
        self.projector = nn.Linear(c.d_model, c.pred_len)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, N] -> [B, H, N]."""
        series = x.transpose(1, 2)
        if self.config.use_norm:
            mean = series.mean(-1, keepdim=True)
            deviation = torch.sqrt(series.var(-1, keepdim=True, unbiased=False) + 1e-5)
            series = (series - mean) / deviation
        tokens = self.value_embedding(series)
        for block in self.attn_layers:
            tokens = block(tokens)
        ahead: Tensor = self.projector(self.norm(tokens))
        if self.config.use_norm:
            ahead = ahead * deviation + mean
        return ahead.transpose(1, 2)


PAPER = ITransformerConfig()
TINY = replace(PAPER, seq_len=48, pred_len=12, d_model=32, n_heads=4, e_layers=2, d_ff=32, variates=4)
CONFIGS = {"tiny": TINY, "paper": PAPER}
SIZES = {s: Size(partial(ITransformer, c), seq=c.seq_len, longest=c.seq_len, fixed=True) for s, c in CONFIGS.items()}


def build(size: str, source: str | None) -> nn.Module:
    """Random weights with seed 0: the paper publishes no checkpoint."""
    return seeded(SIZES[size].architecture)


def example(size: str, seq: int, batch: int, seed: int) -> Call:
    """[B, L, N]: waves of other periods and phases for each seed."""
    return (wave(batch, seq, CONFIGS[size].variates, seed),)


def sketch(call: Call, output: Tensor) -> Curves:
    """The first variate with its forecast."""
    return forecast("iTransformer: a series and its forecast", call[0][0, :, 0], output[0, :, 0])


register(
    Entry(
        id="itransformer",
        title="iTransformer",
        paper="arXiv 2310.06625",
        task="time series",
        sizes=SIZES,
        build=build,
        example=example,
        err_bound=1e-3,
        sketch=sketch,
    )
)
