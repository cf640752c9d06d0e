"""BERT's encoder: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", arXiv 1810.04805.

Names follow the HF state dict (`embeddings.word_embeddings`, `encoder.layer.{i}.attention.self.query`, ...), so that a
published checkpoint loads as it is. Post-norm blocks, erf GELU, learned absolute positions.

Secret: token ids, the padding mask, every activation. Public: sequence length, positions, token types (all 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.checkpoint import Checkpoint, Names
from hush.models.config import check_length, read_config, require
from hush.models.initial import initialised
from hush.models.language import Family, Member
from hush.models.registry import register

GELU = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


@dataclass(frozen=True, slots=True)
class BertConfig:
    """Sizes of a BERT encoder; the fields are those of an HF `config.json`."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    pad_token_id: int = 0
    position_embedding_type: str = "absolute"
    is_decoder: bool = False
    pooler: bool = True

    def __post_init__(self) -> None:
        width, heads = self.hidden_size, self.num_attention_heads
        require(width % heads == 0, f"hidden_size {width} is no multiple of {heads} heads")
        require(self.hidden_act in GELU, f"hidden_act is {self.hidden_act}, and none of {', '.join(GELU)}")
        require(self.position_embedding_type == "absolute", f"positions are {self.position_embedding_type}")
        require(not self.is_decoder, "a decoder's attention is causal, and this network's is not")

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> BertConfig:
        """The fields that a `config.json` gives; the rest of it is ignored."""
        return read_config(cls, config)

    @property
    def longest(self) -> int:
        """The longest sequence."""
        return self.max_position_embeddings


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, normalised."""

    def __init__(self, c: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(c.vocab_size, c.hidden_size)
        self.position_embeddings = nn.Embedding(c.max_position_embeddings, c.hidden_size)
        self.token_type_embeddings = nn.Embedding(c.type_vocab_size, c.hidden_size)
        self.LayerNorm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)

    def forward(self, input_ids: Tensor) -> Tensor:
        """[B, T] ids -> [B, T, H]."""
        check_length(input_ids.shape[1], self.position_embeddings.num_embeddings)
        places = self.position_embeddings.weight[: input_ids.shape[1]] + self.token_type_embeddings.weight[0]
        summed: Tensor = self.LayerNorm(self.word_embeddings(input_ids) + places)
        return summed


class SelfAttention(nn.Module):
    """Multi-head attention over [B, T, H] with an optional mask of the keys (True: attend)."""

    def __init__(self, c: BertConfig) -> None:
        super().__init__()
        self.heads = c.num_attention_heads
        self.query = nn.Linear(c.hidden_size, c.hidden_size)
        self.key = nn.Linear(c.hidden_size, c.hidden_size)
        self.value = nn.Linear(c.hidden_size, c.hidden_size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, H] -> [B, T, H]; mask [B, T] or None."""
        split = (self.heads, x.shape[-1] // self.heads)
        q, k, v = (part(x).unflatten(-1, split).transpose(1, 2) for part in (self.query, self.key, self.value))
        keys = None if mask is None else mask[:, None, None, :]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=keys).transpose(1, 2).flatten(2)


class Projection(nn.Module):
    """Linear back to the hidden size, residual, norm: the end of both halves of a block."""

    def __init__(self, inputs: int, c: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, c.hidden_size)
        self.LayerNorm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """norm(dense(x) + residual)."""
        normed: Tensor = self.LayerNorm(self.dense(x) + residual)
        return normed


class Attention(nn.Module):
    """Self-attention with its output projection."""

    def __init__(self, c: BertConfig) -> None:
        super().__init__()
        self.self = SelfAttention(c)
        self.output = Projection(c.hidden_size, c)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, H] -> [B, T, H]."""
        projected: Tensor = self.output(self.self(x, mask), x)
        return projected


class Intermediate(nn.Module):
    """The first half of the feed-forward layer."""

    def __init__(self, c: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(c.hidden_size, c.intermediate_size)
        self.form = GELU[c.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """gelu(dense(x))."""
        return F.gelu(self.dense(x), approximate=self.form)


class Layer(nn.Module):
    """One post-norm block."""

    def __init__(self, c: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(c)
        self.intermediate = Intermediate(c)
        self.output = Projection(c.intermediate_size, c)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, H] -> [B, T, H]."""
        attended = self.attention(x, mask)
        out: Tensor = self.output(self.intermediate(attended), attended)
        return out


class Encoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, c: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, H] -> [B, T, H]."""
        for block in self.layer:
            x = block(x, mask)
        return x


class Pooler(nn.Module):
    """tanh(dense(first token))."""

    def __init__(self, c: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(c.hidden_size, c.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, H] -> [B, H]."""
        return torch.tanh(self.dense(hidden[:, 0]))


class Bert(nn.Module):
    """BERT with its pooler, if it has one."""

    def __init__(self, c: BertConfig) -> None:
        super().__init__()
        self.config = c
        self.embeddings = Embeddings(c)
        self.encoder = Encoder(c)
        self.pooler = Pooler(c) if c.pooler else None

    def hidden(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """[B, T] ids, optional bool mask [B, T] -> last hidden state [B, T, H]."""
        states: Tensor = self.encoder(self.embeddings(input_ids), attention_mask)
        return states

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """[B, T] ids, optional bool mask [B, T] -> (last hidden state [B, T, H], pooled [B, H])."""
        states = self.hidden(input_ids, attention_mask)
        return (states,) if self.pooler is None else (states, self.pooler(states))


def read(checkpoint: Checkpoint) -> BertConfig:
    """A checkpoint's sizes. Those made for masked language models have no pooler."""
    pooler = any("pooler." in name for name in checkpoint.shapes())
    return replace(BertConfig.from_json(checkpoint.config), pooler=pooler)


def initialise(c: BertConfig) -> nn.Module:
    """BERT's own initialisation: normal, with the padding's row 0."""
    return initialised(lambda: Bert(c), zero_rows=(("embeddings.word_embeddings.weight", c.pad_token_id),))


FAMILY = Family(
    kind="bert",
    names=lambda c: Names(
        "bert.",
        unused=(r"cls\..*", r"embeddings\.position_ids"),  # heads of the pre-training, a buffer
        endings={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},  # of 2018
    ),
    network=Bert,
    initialise=initialise,
    read=read,
    padded=True,
    pad=lambda c: c.pad_token_id,
    first=1,
)
PAPER = "arXiv 1810.04805"
TINY = BertConfig(64, 32, 2, 2, 64, 64)
BASE = BertConfig()
LARGE = BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)

for name, config in {"base": BASE, "large": LARGE}.items():
    sizes = {"tiny": (TINY, 16), "paper": (config, 128)}
    register(Member(FAMILY, f"bert-{name}", f"BERT {name}", PAPER, "text encoding", sizes, 6e-3).entry())
