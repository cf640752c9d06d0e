"""RoBERTa: Liu et al., "RoBERTa: A Robustly Optimized BERT Pretraining Approach", arXiv 1907.11692.

BERT's encoder with other positions: they count tokens from `pad_token_id` + 1, and padding has the position
`pad_token_id`. HF derives them from the ids; ids are secret here, so they come from the mask, which says the same.

Secret: token ids, the padding mask, every activation. Public: sequence length; without a mask, positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.bert import BertConfig, Encoder, Pooler
from hush.models.checkpoint import Checkpoint, Names
from hush.models.config import check_length, read_config
from hush.models.initial import initialised
from hush.models.language import Family, Member
from hush.models.registry import register


@dataclass(frozen=True, slots=True)
class RobertaConfig(BertConfig):
    """Sizes of a RoBERTa encoder; the fields are those of an HF `config.json`."""

    vocab_size: int = 50265
    max_position_embeddings: int = 514
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-5
    pad_token_id: int = 1

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> RobertaConfig:
        """The fields that a `config.json` gives; the rest of it is ignored."""
        return read_config(cls, config)

    @property
    def longest(self) -> int:
        """The longest sequence: the first positions are padding's and what is before it."""
        return self.max_position_embeddings - self.pad_token_id - 1


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, normalised."""

    def __init__(self, c: RobertaConfig) -> None:
        super().__init__()
        self.padding, self.longest = c.pad_token_id, c.longest
        self.word_embeddings = nn.Embedding(c.vocab_size, c.hidden_size)
        self.position_embeddings = nn.Embedding(c.max_position_embeddings, c.hidden_size)
        self.token_type_embeddings = nn.Embedding(c.type_vocab_size, c.hidden_size)
        self.LayerNorm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)

    def forward(self, input_ids: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T] ids, optional mask [B, T] of tokens in one piece -> [B, T, H]."""
        places = self.places(input_ids.shape[1], mask) + self.token_type_embeddings.weight[0]
        summed: Tensor = self.LayerNorm(self.word_embeddings(input_ids) + places)
        return summed

    def places(self, length: int, mask: Tensor | None) -> Tensor:
        """Rows of the positions, [T, H] or [B, T, H].

        The slot s of the first token says where each position p is, at s + p, so its one-hot row shifted and cut to the
        tokens has the one-hot row of every slot's position; one more column is padding's.
        """
        check_length(length, self.longest)
        table = self.position_embeddings.weight[self.padding : self.padding + 1 + length]
        if mask is None:
            return table[1:]
        first = mask & ~F.pad(mask[:, :-1], (1, 0))
        back = torch.arange(length)[:, None] - torch.arange(length)
        hot = first[:, back.clamp(min=0)] & (back >= 0) & mask[:, :, None]
        return torch.cat([~mask[:, :, None], hot], -1).to(table.dtype) @ table


class Roberta(nn.Module):
    """RoBERTa with its pooler, if it has one."""

    def __init__(self, c: RobertaConfig) -> None:
        super().__init__()
        self.config = c
        self.embeddings = Embeddings(c)
        self.encoder = Encoder(c)
        self.pooler = Pooler(c) if c.pooler else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """[B, T] ids, optional bool mask [B, T] of tokens in one piece -> (last hidden state [B, T, H], pooled [B, H]).

        Without a mask every slot must be a token.
        """
        states = self.encoder(self.embeddings(input_ids, attention_mask), attention_mask)
        return (states,) if self.pooler is None else (states, self.pooler(states))


def read(checkpoint: Checkpoint) -> RobertaConfig:
    """A checkpoint's sizes. Those made for masked language models have no pooler."""
    pooler = any("pooler." in name for name in checkpoint.shapes())
    return replace(RobertaConfig.from_json(checkpoint.config), pooler=pooler)


def initialise(c: RobertaConfig) -> nn.Module:
    """RoBERTa's own initialisation: normal, with the padding's rows 0."""
    tables = ("embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight")
    return initialised(lambda: Roberta(c), zero_rows=tuple((name, c.pad_token_id) for name in tables))


FAMILY = Family(
    kind="roberta",
    names=lambda c: Names("roberta.", unused=(r"lm_head\..*", r"embeddings\.position_ids")),  # pre-training, a buffer
    network=Roberta,
    initialise=initialise,
    read=read,
    padded=True,
    pad=lambda c: c.pad_token_id,
    first=5,
)
TINY = RobertaConfig(64, 32, 2, 2, 64, 66)

register(
    Member(
        FAMILY,
        "roberta-base",
        "RoBERTa base",
        "arXiv 1907.11692",
        "text encoding",
        {"tiny": (TINY, 16), "paper": (RobertaConfig(), 128)},
        6e-3,
    ).entry()
)
