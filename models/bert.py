"""BERT's encoder: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", arXiv 1810.04805.

Names follow the HF state dict (`embeddings.word_embeddings`, `encoder.layer.{i}.attention.self.query`, ...), so that a
published checkpoint loads as it is. Post-norm blocks, erf GELU, learned absolute positions.

Secret: token ids, the padding mask, every activation. Public: sequence length, positions, token types (all 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> BertConfig:
        """The fields that a `config.json` gives; the rest of it is ignored."""
        return cls(**{name: config[name] for name in cls.__slots__ if name in config})


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
        self.form = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}[c.hidden_act]

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
    """BERT with its pooler."""

    def __init__(self, c: BertConfig) -> None:
        super().__init__()
        self.config = c
        self.embeddings = Embeddings(c)
        self.encoder = Encoder(c)
        self.pooler = Pooler(c)

    def hidden(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """[B, T] ids, optional bool mask [B, T] -> last hidden state [B, T, H]."""
        states: Tensor = self.encoder(self.embeddings(input_ids), attention_mask)
        return states

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[B, T] ids -> (last hidden state [B, T, H], pooled [B, H])."""
        states = self.hidden(input_ids, attention_mask)
        return states, self.pooler(states)
