"""FlowTransformer: Manocchio et al., "FlowTransformer: A Transformer Framework for Flow-based Network Intrusion
Detection Systems", 2023, arXiv 2304.14746.

A window of network flows, one record each; the answer is how likely the last of them is an attack. Four parts that can
be swapped: input encoding, blocks, classification head, and what prepares records. The paper's finding: the head
matters most, and averaging over the window is the worst one.

Checked against the official code (liamdm/FlowTransformer): one-hot categories after the numbers; linear encodings, with
or without bias; no positions and no mask; heads of `key_dim` each, which is the inner width in an encoder block and the
outer one in a decoder block; ReLU after both feed-forward layers of an encoder block, whose last norm is of attention's
output (not of the normed sum) plus theirs; a decoder block with one attention used twice, the second time over its own
input, and with one norm used twice; norms with epsilon 1e-6; Keras' initialisation (Glorot); the CLS token, a last row
that is 1 in a column of its own; ReLU layers and a sigmoid at the end. What is odd in blocks is a flag. The code's
look-up encoding is the categorical one without bias, so it is not told apart here; its convolutions of width 1 are
linear layers; its second attention, "GPT3", is used nowhere and is left out. Our own: `answer`.

Secret: flows and the answer. Public: the window's length, and which columns are categories. Who has the flows prepares
them: logarithms scaled by a range seen in training, and one-hot categories. An alert alone, `answer="alert"`, opens one
bit and no likelihood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.initial import seeded
from hush.models.registry import Call, Entry, Size, register
from hush.models.sketch import Bars

Encoding = Literal["none", "record", "categorical"]
Block = Literal["encoder", "decoder"]
HeadKind = Literal["last", "flatten", "average", "cls", "featurewise"]
Answer = Literal["probability", "logit", "alert"]


@dataclass(frozen=True, slots=True)
class FlowTransformerConfig:
    """Sizes and kinds of parts; the defaults are the code's demonstration, on UNSW-NB15 in NetFlow format."""

    window: int = 8
    numeric: int = 28
    levels: tuple[int, ...] = (16, 32, 17, 32, 32, 32, 15, 32, 32)  # of each category
    encoding: Encoding = "record"
    embed_dimension: int = 64  # of a record, or of each category
    encoding_bias: bool = True
    block: Block = "encoder"
    n_layers: int = 2
    internal_size: int = 128
    n_heads: int = 2
    attention_residual: bool = True  # encoder: the last sum is of attention's output; False: of the normed sum
    relu_output: bool = True  # encoder: ReLU after the second feed-forward layer too
    shared: bool = True  # decoder: one attention and one norm, each used twice
    head: HeadKind = "last"
    head_bias: bool = True  # featurewise
    mlp_layer_sizes: tuple[int, ...] = (128,)
    answer: Answer = "probability"

    @property
    def features(self) -> int:
        """Columns of a record."""
        return self.numeric + sum(self.levels)

    @property
    def width(self) -> int:
        """Columns of an encoded record, as blocks see it."""
        categories = self.numeric + self.embed_dimension * len(self.levels)
        width = {"none": self.features, "record": self.embed_dimension, "categorical": categories}[self.encoding]
        return width + (self.head == "cls")


def dense(inner: int, outer: int, bias: bool = True) -> nn.Linear:
    """A linear layer as Keras starts it."""
    layer = nn.Linear(inner, outer, bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def norm(width: int) -> nn.LayerNorm:
    """Layer norm with the code's epsilon."""
    return nn.LayerNorm(width, eps=1e-6)


def prepared(values: Tensor, low: Tensor, high: Tensor, codes: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Records [..., F] of numbers [..., N], ranges [N] as in training, and codes [..., C] of categories: done by who
    has the flows."""
    scaled = torch.log(values - low + 1) / torch.log(high - low + 1)
    return torch.cat([scaled, *(F.one_hot(codes[..., i], n).to(scaled.dtype) for i, n in enumerate(levels))], -1)


class InputEncoding(nn.Module):
    """A linear layer of the whole record, one for each category, or nothing."""

    def __init__(self, c: FlowTransformerConfig) -> None:
        super().__init__()
        self.kind, self.sizes = c.encoding, [c.numeric, *c.levels]
        self.embed = nn.ModuleList()
        if c.encoding == "record":
            self.embed.append(dense(c.features, c.embed_dimension, c.encoding_bias))
        elif c.encoding == "categorical":
            self.embed.extend(dense(n, c.embed_dimension, c.encoding_bias) for n in c.levels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, W, F] -> [B, W, D]."""
        if self.kind == "none":
            return x
        if self.kind == "record":
            whole: Tensor = self.embed[0](x)
            return whole
        numbers, *categories = torch.split(x, self.sizes, -1)
        return torch.cat([numbers, *(layer(part) for layer, part in zip(self.embed, categories, strict=True))], -1)


class MultiHeadAttention(nn.Module):
    """Attention whose heads are `key_dim` wide, whatever the width around it."""

    def __init__(self, width: int, heads: int, key_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (dense(width, heads * key_dim) for _ in range(3))
        self.output = dense(heads * key_dim, width)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """[B, W, D], over [B, M, D] -> [B, W, D]."""
        parts = (self.query, x), (self.key, memory), (self.value, memory)
        q, k, v = (layer(part).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer, part in parts)
        mixed: Tensor = self.output(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


class EncoderBlock(nn.Module):
    """Attention, norm, two layers; what the last norm takes is odd, see above."""

    def __init__(self, c: FlowTransformerConfig) -> None:
        super().__init__()
        self.config = c
        self.attention = MultiHeadAttention(c.width, c.n_heads, c.internal_size)
        self.attention_layer_norm, self.feed_forward_layer_norm = norm(c.width), norm(c.width)
        self.feed_forward_0, self.feed_forward_1 = dense(c.width, c.internal_size), dense(c.internal_size, c.width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, W, D] -> [B, W, D]."""
        attended: Tensor = self.attention(x, x)
        summed: Tensor = self.attention_layer_norm(x + attended)
        out: Tensor = self.feed_forward_1(F.relu(self.feed_forward_0(summed)))
        out = F.relu(out) if self.config.relu_output else out
        normed: Tensor = self.feed_forward_layer_norm((attended if self.config.attention_residual else summed) + out)
        return normed


class DecoderBlock(nn.Module):
    """Attention over the window twice, the second time over the block's input, then two layers."""

    def __init__(self, c: FlowTransformerConfig) -> None:
        super().__init__()
        self.mha = MultiHeadAttention(c.width, c.n_heads, c.width)
        self.cross = self.mha if c.shared else MultiHeadAttention(c.width, c.n_heads, c.width)
        self.layernorm1, self.layernorm2 = norm(c.width), norm(c.width)
        self.layernorm3 = self.layernorm2 if c.shared else norm(c.width)
        self.ffn = nn.Sequential(dense(c.width, c.internal_size), nn.ReLU(), dense(c.internal_size, c.width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, W, D] -> [B, W, D]."""
        first = self.layernorm1(x + self.mha(x, x))
        second = self.layernorm2(first + self.cross(first, x))
        third: Tensor = self.layernorm3(second + self.ffn(second))
        return third


class ClassificationHead(nn.Module):
    """A window's tokens to one vector; CLS adds its token before the blocks."""

    token: Tensor

    def __init__(self, c: FlowTransformerConfig) -> None:
        super().__init__()
        self.kind = c.head
        if c.head == "featurewise":
            self.featurewise_embed = dense(c.width, 1, c.head_bias)
        if c.head == "cls":
            token = torch.zeros(c.window + 1, c.width)
            token[-1, -1] = 1.0
            self.register_buffer("token", token, persistent=False)
        sizes = {"flatten": c.width * c.window, "featurewise": c.window}
        self.width = sizes.get(c.head, c.width)

    def before(self, x: Tensor) -> Tensor:
        """[B, W, D] -> what blocks take: [B, W + 1, D + 1] of CLS."""
        return F.pad(x, (0, 1, 0, 1)) + self.token if self.kind == "cls" else x

    def forward(self, x: Tensor) -> Tensor:
        """[B, W, D] -> [B, K]."""
        if self.kind in ("last", "cls"):
            return x[:, -1]
        if self.kind == "average":
            return x.mean(1)
        tokens: Tensor = self.featurewise_embed(x) if self.kind == "featurewise" else x
        return tokens.flatten(1)


class FlowTransformer(nn.Module):
    """Encode records, run the blocks, take one vector, classify it."""

    def __init__(self, c: FlowTransformerConfig) -> None:
        super().__init__()
        self.config = c
        self.encoding, self.head = InputEncoding(c), ClassificationHead(c)
        made = {"encoder": EncoderBlock, "decoder": DecoderBlock}[c.block]
        self.blocks = nn.ModuleList(made(c) for _ in range(c.n_layers))
        sizes = self.head.width, *c.mlp_layer_sizes
        self.mlp = nn.ModuleList(dense(inner, outer) for inner, outer in pairwise(sizes))
        self.out = dense(sizes[-1], 1)

    def logit(self, x: Tensor) -> Tensor:
        """[B, W, F] -> [B, 1]."""
        tokens = self.head.before(self.encoding(x))
        for block in self.blocks:
            tokens = block(tokens)
        vector = self.head(tokens)
        for layer in self.mlp:
            vector = F.relu(layer(vector))
        logit: Tensor = self.out(vector)
        return logit

    def forward(self, x: Tensor) -> Tensor:
        """[B, W, F] -> [B, 1], of the last flow."""
        logit = self.logit(x)
        if self.config.answer == "alert":
            return logit > 0
        return torch.sigmoid(logit) if self.config.answer == "probability" else logit


PAPER = FlowTransformerConfig()
GPT = replace(PAPER, block="decoder", n_layers=12, internal_size=768, n_heads=12)
BERT = replace(GPT, block="encoder")
TINY = replace(PAPER, numeric=10, levels=(8, 6, 4), embed_dimension=32, internal_size=64, mlp_layer_sizes=(32,))
CONFIGS = {"tiny": TINY, "paper": PAPER}
SIZES = {s: Size(partial(FlowTransformer, c), seq=c.window, longest=c.window, fixed=True) for s, c in CONFIGS.items()}


def build(size: str, source: str | None) -> nn.Module:
    """Random weights with seed 0: the paper publishes no checkpoint."""
    return seeded(SIZES[size].architecture)


def example(size: str, seq: int, batch: int, seed: int) -> Call:
    """[B, W, F]: numbers of all magnitudes up to a million, and categories."""
    c, numbers = CONFIGS[size], torch.Generator().manual_seed(seed)
    top = torch.full((c.numeric,), 1e6)
    values = torch.exp(math.log(1e6) * torch.rand(batch, seq, c.numeric, generator=numbers))
    codes = torch.stack([torch.randint(n, (batch, seq), generator=numbers) for n in c.levels], -1)
    return (prepared(values, torch.zeros_like(top), top, codes, c.levels),)


def sketch(call: Call, output: Tensor) -> Bars:
    """How likely the first window's last flow is an attack."""
    attack = output[0, 0]
    return Bars("FlowTransformer: the last flow of a window", ("benign", "attack"), torch.stack([1 - attack, attack]))


register(
    Entry(
        id="flowtransformer",
        title="FlowTransformer",
        paper="arXiv 2304.14746",
        task="network intrusion detection",
        sizes=SIZES,
        build=build,
        example=example,
        err_bound=1e-3,
        sketch=sketch,
    )
)
