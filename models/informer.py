"""Informer: Zhou et al., "Informer: Beyond Efficient Transformer for Long Sequence Time-Series Forecasting", AAAI 2021,
arXiv 2012.07436.

ProbSparse attention: of L queries only the u = factor * ceil(ln L) least like a uniform average attend; the others get
the mean of the values, or under a causal mask their running sum. Which ones is told by a measure over U sampled keys.
Encoder layers with a halving of the length between them (distilling); a decoder that answers for all steps ahead at
once, from the last `label_len` values followed by zeros.

Checked against the official code (zhouhaoyi/Informer2020): circular convolutions in embedding and distilling, post-norm
blocks with biases everywhere, the feed-forward layer as two 1x1 convolutions (linear layers here, the same function),
a last norm in encoder and decoder, ELU and max-pooling, and what changes results and is not in the paper's text:
the measure is of products without the factor 1/sqrt(d) and, in the decoder, of keys of the future too; the sum over the
U sampled keys is divided by L_K (`divide_by_keys`; the paper takes the mean of the sample); keys are drawn with
replacement, the same for all heads; under a causal mask the values are summed, not averaged; `mix` lays the heads of
the decoder's self-attention out one after the other before they become features again. The code draws keys anew in
every call; here each layer draws once, from a seeded generator (`sample_seed`). Dates are given once, for the steps
seen and ahead, where the code gives encoder and decoder overlapping parts; the decoder's values come from the series.

Secret: the series, its dates, which queries attend, everything computed of them. Public: lengths, u, U, the sampled
keys (drawn without looking at data), positions. The top u are found by all pairwise comparisons and picked by
one-hot rows, so only u rows of softmax are computed, as the paper wants, and nothing tells which. The choice is exact,
ties go to the earlier query; where two measures differ by less than the fixed point's noise (about 1e-5 at tiny size)
the last query chosen may be another than in plaintext.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import count

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.initial import seeded
from hush.models.positions import sinusoids
from hush.models.registry import Call, Entry, Size, register
from hush.models.series import wave
from hush.models.sketch import Curves, forecast

MARKS = 4  # of hourly series: hour of day, day of week, of month, of year, each in -0.5..0.5


@dataclass(frozen=True, slots=True)
class InformerConfig:
    """Sizes; the defaults are those of the official code, for ETT."""

    enc_in: int = 7
    c_out: int = 7
    seq_len: int = 96
    label_len: int = 48
    pred_len: int = 24
    d_model: int = 512
    n_heads: int = 8
    e_layers: int = 2
    d_layers: int = 1
    d_ff: int = 2048
    factor: int = 5
    attn: str = "prob"  # or "full"
    distil: bool = True
    mix: bool = True
    divide_by_keys: bool = True
    sample_seed: int = 0

    def most(self, length: int) -> int:
        """factor * ceil(ln length), at most the length: queries that attend, or keys that are sampled."""
        return min(length, self.factor * math.ceil(math.log(length)))


def ranks(x: Tensor) -> Tensor:
    """[..., n] -> how many entries are larger, or as large and earlier: each pair compared once."""
    n = x.shape[-1]
    earlier, later = torch.triu_indices(n, n, 1, device=x.device)
    less = (x[..., earlier] < x[..., later]).long()
    # beaten by an earlier entry unless that is less, and by a later one if this is less
    beaten = F.one_hot(earlier, n) - F.one_hot(later, n)
    return less @ beaten + torch.arange(n, device=x.device)


def top_rows(x: Tensor, u: int) -> Tensor:
    """[..., n] -> [..., u, n]: row r has a 1 where the entry of rank r is, and zeros."""
    hot = ranks(x).unsqueeze(-2) == torch.arange(u, device=x.device).unsqueeze(-1)
    return hot.to(x.dtype)


class ProbAttention(nn.Module):
    """Attention of the top u queries; for the others the mean or, if causal, the running sum of the values."""

    index_sample: Tensor
    future: Tensor

    def __init__(self, c: InformerConfig, queries: int, keys: int, causal: bool, seed: int) -> None:
        super().__init__()
        self.u, self.causal, self.divide_by_keys = c.most(queries), causal, c.divide_by_keys
        numbers = torch.Generator().manual_seed(seed)
        sample = torch.randint(keys, (queries, c.most(keys)), generator=numbers, device="cpu")
        self.register_buffer("index_sample", sample, persistent=False)
        self.register_buffer("future", torch.ones(queries, keys).triu(1), persistent=False)

    def measure(self, q: Tensor, k: Tensor) -> Tensor:
        """[B, H, L, E] and [B, H, S, E] -> [B, H, L]: how far from uniform each query's attention is."""
        products = (q.unsqueeze(-2) @ k[:, :, self.index_sample].transpose(-1, -2)).squeeze(-2)
        share = k.shape[-2] if self.divide_by_keys else products.shape[-1]
        return products.amax(-1) - products.sum(-1) / share

    def select(self, q: Tensor, k: Tensor) -> Tensor:
        """[B, H, L, E] and [B, H, S, E] -> [B, H, u, L]: the queries that attend, as one-hot rows."""
        return top_rows(self.measure(q, k), self.u)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B, H, L, E] and twice [B, H, S, E] -> [B, H, L, E]."""
        top = self.select(q, k)
        scores = (top @ q) @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if self.causal:
            scores = scores + (top @ self.future) * -1e9
            context = v.cumsum(-2)
        else:
            context = v.mean(-2, keepdim=True).expand_as(q)
        attended = F.softmax(scores, -1) @ v
        return context + top.transpose(-1, -2) @ (attended - top @ context)


class FullAttention(nn.Module):
    """Softmax attention of all queries."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B, H, L, E] and twice [B, H, S, E] -> [B, H, L, E]."""
        return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)


class AttentionLayer(nn.Module):
    """Projections around an attention; `mix`: heads one after the other, then cut into rows of features."""

    def __init__(self, c: InformerConfig, attention: nn.Module, mix: bool = False) -> None:
        super().__init__()
        self.n_heads, self.mix, self.inner_attention = c.n_heads, mix, attention
        self.query_projection, self.key_projection = nn.Linear(c.d_model, c.d_model), nn.Linear(c.d_model, c.d_model)
        self.value_projection, self.out_projection = nn.Linear(c.d_model, c.d_model), nn.Linear(c.d_model, c.d_model)

    def forward(self, x: Tensor, cross: Tensor) -> Tensor:
        """Queries [B, L, D], keys and values [B, S, D] -> [B, L, D]."""
        parts = (self.query_projection(x), self.key_projection(cross), self.value_projection(cross))
        q, k, v = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in parts)
        heads: Tensor = self.inner_attention(q, k, v)
        joined = heads if self.mix else heads.transpose(1, 2)
        out: Tensor = self.out_projection(joined.reshape(x.shape))
        return out


class EncoderLayer(nn.Module):
    """A post-norm block."""

    def __init__(self, c: InformerConfig, attention: nn.Module) -> None:
        super().__init__()
        self.attention = AttentionLayer(c, attention)
        self.conv1, self.conv2 = nn.Linear(c.d_model, c.d_ff), nn.Linear(c.d_ff, c.d_model)
        self.norm1, self.norm2 = nn.LayerNorm(c.d_model), nn.LayerNorm(c.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        x = self.norm1(x + self.attention(x, x))
        out: Tensor = self.norm2(x + self.conv2(F.gelu(self.conv1(x))))
        return out


class ConvLayer(nn.Module):
    """Distilling: a convolution around the circle of steps, then of every three steps the largest, every second one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.downConv = nn.Conv1d(width, width, 3, padding=1, padding_mode="circular")
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, (L + 1) // 2, D]."""
        steps = F.elu(self.norm(self.downConv(x.transpose(1, 2))))
        return F.max_pool1d(steps, 3, stride=2, padding=1).transpose(1, 2)


class Encoder(nn.Module):
    """Layers, distilling between them, a last norm."""

    def __init__(self, c: InformerConfig, seeds: Iterator[int]) -> None:
        super().__init__()
        halvings = range(c.e_layers - 1 if c.distil else 0)
        lengths = [c.seq_len]
        for _ in range(c.e_layers - 1):
            lengths.append((lengths[-1] + 1) // 2 if c.distil else c.seq_len)
        self.attn_layers = nn.ModuleList(EncoderLayer(c, attention(c, n, False, next(seeds))) for n in lengths)
        self.conv_layers = nn.ModuleList(ConvLayer(c.d_model) for _ in halvings)
        self.norm = nn.LayerNorm(c.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, S, D], S being L halved between layers."""
        for i, layer in enumerate(self.attn_layers):
            x = layer(x)
            if i < len(self.conv_layers):
                x = self.conv_layers[i](x)
        out: Tensor = self.norm(x)
        return out


class DecoderLayer(nn.Module):
    """A post-norm block with causal self-attention, full attention to the encoder, and a feed-forward layer."""

    def __init__(self, c: InformerConfig, own: nn.Module) -> None:
        super().__init__()
        self.self_attention = AttentionLayer(c, own, c.mix)
        self.cross_attention = AttentionLayer(c, FullAttention(False))
        self.conv1, self.conv2 = nn.Linear(c.d_model, c.d_ff), nn.Linear(c.d_ff, c.d_model)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(c.d_model) for _ in range(3))

    def forward(self, x: Tensor, cross: Tensor) -> Tensor:
        """[B, L, D] and [B, S, D] -> [B, L, D]."""
        x = self.norm1(x + self.self_attention(x, x))
        x = self.norm2(x + self.cross_attention(x, cross))
        out: Tensor = self.norm3(x + self.conv2(F.gelu(self.conv1(x))))
        return out


class DataEmbedding(nn.Module):
    """Values by a convolution around the circle of steps, plus positions, plus dates by a linear layer."""

    pe: Tensor

    def __init__(self, c: InformerConfig, length: int) -> None:
        super().__init__()
        self.value_embedding = nn.Conv1d(c.enc_in, c.d_model, 3, padding=1, padding_mode="circular")
        nn.init.kaiming_normal_(self.value_embedding.weight, mode="fan_in", nonlinearity="leaky_relu")
        self.temporal_embedding = nn.Linear(MARKS, c.d_model)
        self.register_buffer("pe", sinusoids(length, c.d_model), persistent=False)

    def forward(self, x: Tensor, mark: Tensor) -> Tensor:
        """[B, L, C] and [B, L, 4] -> [B, L, D]."""
        values: Tensor = self.value_embedding(x.transpose(1, 2)).transpose(1, 2)
        dates: Tensor = self.temporal_embedding(mark)
        return values + self.pe + dates


def attention(c: InformerConfig, length: int, causal: bool, seed: int) -> nn.Module:
    """The self-attention that the configuration asks for."""
    return ProbAttention(c, length, length, causal, seed) if c.attn == "prob" else FullAttention(causal)


class Informer(nn.Module):
    """Encoder, and a decoder that forecasts in one pass."""

    def __init__(self, c: InformerConfig) -> None:
        super().__init__()
        self.config = c
        seeds, length = count(c.sample_seed), c.label_len + c.pred_len
        self.enc_embedding, self.dec_embedding = DataEmbedding(c, c.seq_len), DataEmbedding(c, length)
        self.encoder = Encoder(c, seeds)
        self.decoder = nn.ModuleList(
            DecoderLayer(c, attention(c, length, True, next(seeds))) for _ in range(c.d_layers)
        )
        self.norm = nn.LayerNorm(c.d_model)
        self.projection = nn.Linear(c.d_model, c.c_out)

    def forward(self, x: Tensor, mark: Tensor) -> Tensor:
        """Values [B, L, C] and dates [B, L + H, 4] -> [B, H, C]."""
        c = self.config
        cross = self.encoder(self.enc_embedding(x, mark[:, : c.seq_len]))
        known = F.pad(x[:, c.seq_len - c.label_len :], (0, 0, 0, c.pred_len))
        y = self.dec_embedding(known, mark[:, c.seq_len - c.label_len :])
        for layer in self.decoder:
            y = layer(y, cross)
        out: Tensor = self.projection(self.norm(y))
        return out[:, -c.pred_len :]


PAPER = InformerConfig()
TINY = replace(
    PAPER, enc_in=3, c_out=3, seq_len=48, label_len=24, pred_len=12, d_model=32, n_heads=4, d_ff=64, factor=3
)
CONFIGS = {"tiny": TINY, "paper": PAPER}
SIZES = {s: Size(partial(Informer, c), seq=c.seq_len, longest=c.seq_len, fixed=True) for s, c in CONFIGS.items()}


def marks(start: datetime, steps: int) -> Tensor:
    """[steps, 4]: the dates of hours from `start` on, as the network takes them."""
    hours = [start + timedelta(hours=i) for i in range(steps)]
    rows = [[t.hour / 23, t.weekday() / 6, (t.day - 1) / 30, (t.timetuple().tm_yday - 1) / 365] for t in hours]
    return torch.tensor(rows) - 0.5


def build(size: str, source: str | None) -> nn.Module:
    """Random weights with seed 0: the paper publishes no checkpoint."""
    return seeded(SIZES[size].architecture)


def example(size: str, seq: int, batch: int, seed: int) -> Call:
    """Waves [B, L, C] of other periods and phases for each seed, from another hour of 2016 on [B, L + H, 4]."""
    c, numbers = CONFIGS[size], torch.Generator().manual_seed(seed)
    hours = torch.randint(8000, (batch,), generator=numbers).tolist()
    dates = [marks(datetime(2016, 7, 1) + timedelta(hours=h), seq + c.pred_len) for h in hours]
    return wave(batch, seq, c.enc_in, seed), torch.stack(dates)


def sketch(call: Call, output: Tensor) -> Curves:
    """The first variate with its forecast."""
    return forecast("Informer: a series and its forecast", call[0][0, :, 0], output[0, :, 0])


register(
    Entry(
        id="informer",
        title="Informer",
        paper="arXiv 2012.07436",
        task="time series",
        sizes=SIZES,
        build=build,
        example=example,
        err_bound=5e-4,
        sketch=sketch,
    )
)
