"""EntroPE: Abeywickrama et al., "EntroPE: Entropy-Guided Dynamic Patch Encoder for Time Series Forecasting", 2025,
arXiv 2509.26157.

A small frozen GPT reads a series as tokens and says at every step how uncertain the next one is; where its entropy is
among the largest, a patch ends. Patches of any length are pooled, refined by attention to tokens, mixed by a
transformer, and handed back to the tokens, whose representations one linear layer turns into the forecast. Each variate
is a series of its own.

Checked against the official code (Sachithx/EntroPE, its first version): RevIN with weights; tokens by the mean of |x|
and uniform bins, ids from 5 on; nanoGPT without biases, output tied to embedding; a boundary after a step whose entropy
is above the series' own quantile, be it the last step, after which an empty patch comes; patches cut at
`max_patch_length`; RMS norms, rotary positions, SwiGLU with `d_ff` as the step that its width is rounded up to;
maximum of a patch's tokens, 0 for an empty one; both directions between patches; head over [d_model, steps]; sizes of
ETTh1, 96 steps to 96. Quirks of the code as flags: cross-attention adds what it took in, normed, once more
(`normed_residual`); its window of 96 patches lets patches attend to tokens of earlier patches and tokens to earlier
patches (`causal_patches`; False: to their own patch alone, as the code does without a window). Ours: what a series
gives is what the code gives for a batch of one (in larger ones its padding takes part); entropies are not rounded to
bfloat16; rotary positions turn halves, not pairs, which only reorders weights; a threshold on rises of entropy is left
out.

Secret: series, tokens (thermometer bits that shares are compared for), entropies, where patches begin, and with it all
masks. Public: lengths, the number of boundaries and a bound on the number of patches. A quantile of distinct numbers
has the same number of them above it whatever they are, so it is the k largest; of equal ones the earlier comes first.
The number of patches that cutting adds depends on the series: there are as many places as it can ever add, and those
left over are masked. The entropy model and the bins belong to the owner of the weights. Entropies closer than the
fixed point's error can change places on shares, and then a patch ends elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.initial import seeded
from hush.models.registry import Call, Entry, Size, register
from hush.models.rotary import rotary_tables, rotated
from hush.models.series import wave
from hush.models.sketch import Curves, forecast

FIRST = 5  # the smallest id of a value: four are special, and the code's bins count from one


@dataclass(frozen=True, slots=True)
class EntroPEConfig:
    """Sizes and quirks; the defaults are those of ETTh1, 96 steps to 96."""

    seq_len: int = 96
    pred_len: int = 96
    enc_in: int = 7
    d_model: int = 8
    n_heads: int = 2
    e_layers: int = 3
    d_ff: int = 256
    vocab_size: int = 256
    low_limit: float = -2.0  # outermost bins' centres: the .025 and .975 quantiles of training data
    high_limit: float = 2.0
    patching_threshold: float = 0.95
    max_patch_length: int | None = 32
    causal_patches: bool = True
    normed_residual: bool = True
    entropy_layers: int = 2
    entropy_heads: int = 4
    entropy_embd: int = 32

    @property
    def values(self) -> int:
        """Tokens that a value may have."""
        return self.vocab_size - FIRST

    @property
    def boundaries(self) -> int:
        """Of `seq_len` distinct numbers, how many are above their quantile."""
        return self.seq_len - 1 - math.floor(self.patching_threshold * (self.seq_len - 1))

    @property
    def patches(self) -> int:
        """The most that there are, with an empty one after a boundary at the end."""
        cut = 0 if self.max_patch_length is None else (self.seq_len - self.boundaries) // self.max_patch_length
        return self.boundaries + 1 + cut

    @property
    def hidden(self) -> int:
        """Width of SwiGLU: two thirds of four times `d_model`, rounded up to a multiple of `d_ff`."""
        return self.d_ff * math.ceil(8 * self.d_model // 3 / self.d_ff)


class Tokenizer(nn.Module):
    """A series over its mean magnitude, in bins of equal width, as one-hot rows."""

    edges: Tensor

    def __init__(self, c: EntroPEConfig) -> None:
        super().__init__()
        width = (c.high_limit - c.low_limit) / (c.values - 1)
        edges = c.low_limit + width * (torch.arange(c.values - 1) + 0.5)
        self.register_buffer("edges", edges, persistent=False)

    def forward(self, series: Tensor) -> Tensor:
        """[N, L] -> [N, L, values]. Edges are scaled, not the series: no quotient is rounded."""
        scale = series.abs().mean(-1)[:, None, None]
        above = (series[..., None] >= scale * self.edges).to(series.dtype)
        return F.pad(above, (1, 0), value=1.0) - F.pad(above, (0, 1))


def heads_of(x: Tensor, heads: int) -> Tensor:
    """[N, T, D] -> [N, heads, T, D / heads]."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)


class GPTBlock(nn.Module):
    """Causal attention and GELU layers, each normed before, without biases."""

    def __init__(self, c: EntroPEConfig) -> None:
        super().__init__()
        width, self.heads = c.entropy_embd, c.entropy_heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.c_attn, self.attn_proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.c_fc, self.mlp_proj = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, L, D] -> [N, L, D]."""
        q, k, v = (heads_of(part, self.heads) for part in self.c_attn(self.ln_1(x)).chunk(3, -1))
        x = x + self.attn_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x))))
        return out


class EntropyModel(nn.Module):
    """What the next token of a series may be."""

    def __init__(self, c: EntroPEConfig) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(c.vocab_size, c.entropy_embd), nn.Embedding(c.seq_len, c.entropy_embd)
        self.h = nn.Sequential(*(GPTBlock(c) for _ in range(c.entropy_layers)))
        self.ln_f = nn.LayerNorm(c.entropy_embd, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, 0.0, 0.02 / math.sqrt(2 * c.entropy_layers) if "_proj" in name else 0.02)

    def forward(self, rows: Tensor) -> Tensor:
        """One-hot rows [N, L, values] -> logits [N, L, vocabulary]."""
        x = self.h(rows @ self.wte.weight[FIRST:] + self.wpe.weight)
        logits: Tensor = self.ln_f(x) @ self.wte.weight.T
        return logits

    def entropies(self, rows: Tensor) -> Tensor:
        """[N, L, values] -> [N, L]: log of the sum of e^l, less the mean of l."""
        logits = self(rows)
        out: Tensor = torch.logsumexp(logits, -1) - (F.softmax(logits, -1) * logits).sum(-1)
        return out


def largest(scores: Tensor, count: int) -> Tensor:
    """[N, L] -> 1 for the `count` largest of each row, else 0; of equal ones the earlier. Each pair meets once."""
    length = scores.shape[-1]
    first, second = torch.triu_indices(length, length, 1)
    pairs = torch.zeros(length, length, len(scores), dtype=torch.int64)
    pairs[first, second] = (scores[:, second] > scores[:, first]).to(torch.int64).T
    rank = pairs.sum(1).T + torch.arange(length) - pairs.sum(0).T
    return (rank < count).to(torch.int64)


class Patches:
    """Where patches are: `reached` [N, P, L + 1], whether a step is in a patch or after it; the last is to come."""

    def __init__(self, chosen: Tensor, c: EntroPEConfig) -> None:
        """`chosen` [N, L]: 1 where a patch ends."""
        starts = cut(F.pad(chosen, (1, 0), value=1), c.max_patch_length)
        ids = starts.cumsum(-1) - 1
        self.reached = ids[:, None] >= torch.arange(c.patches)[:, None]
        now = self.reached[..., :-1]
        after = torch.cat([now[:, 1:], torch.zeros_like(now[:, :1])], 1)
        self.inside = now & ~after
        self.filled = now[..., -1:]  # [N, P, 1]: a patch with a step in it
        self.tokens = ~after if c.causal_patches else self.inside | ~self.filled
        """[N, P, L]: the tokens that a patch attends to; an empty one has none of its own, and all."""
        self.patches = (now if c.causal_patches else self.inside).transpose(1, 2)
        """[N, L, P]: the patches that a token attends to."""
        self.live = self.reached[..., -1] if c.causal_patches else now[..., -1]
        """[N, P]: the patches that others attend to."""

    def largest(self, x: Tensor) -> Tensor:
        """[N, L, D] -> [N, P, D]: the largest of each patch's entries, 0 for an empty patch."""
        least = x.amin(1, keepdim=True)[:, None]
        pooled = torch.where(self.inside[..., None], x[:, None], least).amax(2)
        return self.filled * pooled


def cut(starts: Tensor, most: int | None) -> Tensor:
    """[N, T], 1 where a patch begins -> the same with more, so that none is longer than `most`."""
    length, whole = starts.shape[-1], starts
    if most is None:
        return starts
    ids = starts.cumsum(-1)
    for shift in range(most, length, most):
        alike = (ids[:, shift:] == ids[:, :-shift]).to(starts.dtype)  # no other patch has begun since
        whole = whole + F.pad(starts[:, :-shift] * alike, (shift, 0))
    return whole


class Attention(nn.Module):
    """Projections without biases; rotary positions where a table is given."""

    def __init__(self, c: EntroPEConfig) -> None:
        super().__init__()
        self.heads = c.n_heads
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(c.d_model, c.d_model, bias=False) for _ in range(4))

    def forward(
        self,
        x: Tensor,
        kv: Tensor,
        mask: Tensor | None,
        causal: bool = False,
        turn: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """[N, T, D], [N, S, D], truth values [N, T or 1, S] -> [N, T, D]."""
        q, k, v = (heads_of(part, self.heads) for part in (self.wq(x), self.wk(kv), self.wv(kv)))
        if turn is not None:
            q, k = rotated(q, *turn), rotated(k, *turn)
        keep = None if mask is None else mask[:, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=keep, is_causal=causal)
        out: Tensor = self.wo(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Attention with rotary positions and SwiGLU, each RMS-normed before."""

    cos: Tensor
    sin: Tensor

    def __init__(self, c: EntroPEConfig, length: int, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.attention = Attention(c)
        self.w1, self.w3 = (nn.Linear(c.d_model, c.hidden, bias=False) for _ in range(2))
        self.w2 = nn.Linear(c.hidden, c.d_model, bias=False)
        self.attention_norm, self.ffn_norm = (nn.RMSNorm(c.d_model, eps=1e-5) for _ in range(2))
        cos, sin = rotary_tables(c.d_model // c.n_heads, length, 10000.0, {})
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """[N, T, D], truth values [N, 1, T] of places to attend to -> [N, T, D]."""
        turn = self.cos[: x.shape[1]], self.sin[: x.shape[1]]
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed, keep, self.causal, turn)
        normed = self.ffn_norm(x)
        out: Tensor = x + self.w2(F.silu(self.w1(normed)) * self.w3(normed))
        return out


class CrossAttention(nn.Module):
    """What is added to x: attention to others, and in the code x itself, normed."""

    def __init__(self, c: EntroPEConfig) -> None:
        super().__init__()
        self.normed_residual = c.normed_residual
        self.attention = Attention(c)
        self.cross_attn_norm_q, self.cross_attn_norm_kv = (nn.RMSNorm(c.d_model, eps=1e-5) for _ in range(2))

    def forward(self, x: Tensor, kv: Tensor, mask: Tensor) -> Tensor:
        """[N, T, D], [N, S, D], truth values [N, T, S] -> [N, T, D]."""
        normed = self.cross_attn_norm_q(x)
        out: Tensor = self.attention(normed, self.cross_attn_norm_kv(kv), mask)
        return normed + out if self.normed_residual else out


class EntroPE(nn.Module):
    """Normalise, tokenise, place patches, encode, mix, decode, project, bring back."""

    def __init__(self, c: EntroPEConfig) -> None:
        super().__init__()
        self.config = c
        self.affine_weight, self.affine_bias = nn.Parameter(torch.ones(c.enc_in)), nn.Parameter(torch.zeros(c.enc_in))
        self.tokenizer = Tokenizer(c)
        self.entropy_model = EntropyModel(c).requires_grad_(False)
        self.tok_embeddings = nn.Embedding(c.vocab_size, c.d_model)
        self.encoder, self.decoder = Block(c, c.seq_len, True), Block(c, c.seq_len, True)
        self.pool, self.fuse = CrossAttention(c), CrossAttention(c)
        self.global_transformer = nn.ModuleList(Block(c, c.patches, False) for _ in range(c.e_layers))
        self.norm = nn.RMSNorm(c.d_model, eps=1e-5)
        self.head = nn.Linear(c.d_model * c.seq_len, c.pred_len)

    def normalised(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, L, C] -> the same normalised, mean and deviation [B, 1, C]."""
        mean = x.mean(1, keepdim=True)
        deviation = torch.sqrt(x.var(1, keepdim=True, unbiased=False) + 1e-5)
        return (x - mean) / deviation * self.affine_weight + self.affine_bias, mean, deviation

    def tokens(self, series: Tensor) -> Tensor:
        """Normalised [B, L, C] -> one-hot rows [B * C, L, values]."""
        rows: Tensor = self.tokenizer(series.transpose(1, 2).flatten(0, 1))
        return rows

    def chosen(self, rows: Tensor) -> Tensor:
        """One-hot rows [N, L, values] -> [N, L]: 1 where a patch ends."""
        return largest(self.entropy_model.entropies(rows), self.config.boundaries)

    def represent(self, rows: Tensor, patches: Patches) -> Tensor:
        """One-hot rows [N, L, values] -> [N, L, D]: every step with what its patch and those around it say."""
        h = self.encoder(rows @ self.tok_embeddings.weight[FIRST:])
        mixed = patches.largest(h)
        mixed = mixed + self.pool(mixed, h, patches.tokens)
        alive = None if self.config.max_patch_length is None and self.config.causal_patches else patches.live[:, None]
        for block in self.global_transformer:
            mixed = block(mixed, alive)
        out: Tensor = self.norm(self.decoder(h + self.fuse(h, mixed, patches.patches)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, C] -> [B, H, C]."""
        series, mean, deviation = self.normalised(x)
        rows = self.tokens(series)
        h = self.represent(rows, Patches(self.chosen(rows), self.config))
        ahead = self.head(h.transpose(1, 2).flatten(1)).unflatten(0, (x.shape[0], -1)).transpose(1, 2)
        out: Tensor = (ahead - self.affine_bias) / (self.affine_weight + 1e-10) * deviation + mean
        return out


PAPER = EntroPEConfig()
TINY = replace(
    PAPER, seq_len=48, pred_len=12, enc_in=2, e_layers=2, vocab_size=32, patching_threshold=0.85, max_patch_length=8
)
CONFIGS = {"tiny": TINY, "paper": PAPER}
SIZES = {s: Size(partial(EntroPE, c), seq=c.seq_len, longest=c.seq_len, fixed=True) for s, c in CONFIGS.items()}


def build(size: str, source: str | None) -> nn.Module:
    """Random weights with seed 0. The entropy model's embeddings are made larger: as they begin, all its entropies are
    alike to the last bits, and where patches end would be chance."""
    made = seeded(SIZES[size].architecture)
    assert isinstance(made, EntroPE)
    made.entropy_model.wte.weight.mul_(8)
    return made


def example(size: str, seq: int, batch: int, seed: int) -> Call:
    """[B, L, C]: waves of other periods and phases for each seed."""
    return (wave(batch, seq, CONFIGS[size].enc_in, seed),)


def sketch(call: Call, output: Tensor) -> Curves:
    """The first variate with its forecast."""
    return forecast("EntroPE: a series and its forecast", call[0][0, :, 0], output[0, :, 0])


register(
    Entry(
        id="entrope",
        title="EntroPE",
        paper="arXiv 2509.26157",
        task="time series",
        sizes=SIZES,
        build=build,
        example=example,
        err_bound=5e-3,
        sketch=sketch,
    )
)
