"""The small networks that are trained here: Hush's own GPT-2, LLaMA and BERT, the last with a head that classifies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from fidelity.corpus import GROUPS
from hush.models import gpt2, llama
from hush.models.bert import Bert, BertConfig
from hush.models.initial import DEVIATION, initialised

_ENDS = ("c_proj.weight", "o_proj.weight", "down_proj.weight")
VOCABULARY, CONTEXT, LENGTH = 1024, 128, 64
GPT2 = gpt2.GPT2Config(vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=128, n_layer=4, n_head=4)
LLAMA = llama.LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=CONTEXT,
)
BERT = BertConfig(
    vocab_size=VOCABULARY,
    hidden_size=128,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=512,
    max_position_embeddings=LENGTH,
)


class Classifier(nn.Module):
    """BERT with a linear layer on what it pools."""

    def __init__(self, config: BertConfig, classes: int) -> None:
        super().__init__()
        self.bert = Bert(config)
        self.head = nn.Linear(config.hidden_size, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[B, T] ids, bool [B, T] mask of real tokens -> scores [B, classes]."""
        _, pooled = self.bert(input_ids, attention_mask)
        scores: Tensor = self.head(pooled)
        return scores


@dataclass(frozen=True, slots=True)
class Generating:
    """A network that generates: how it is built, and its prompt's and its step's module."""

    title: str
    build: Callable[[], nn.Module]
    generator: Callable[[nn.Module], tuple[nn.Module, nn.Module]]


GENERATING = {
    "gpt2": Generating("GPT-2, 4 layers of 128", lambda: gpt2.GPT2(GPT2), gpt2.generator),
    "llama": Generating("LLaMA, 4 layers of 128, 4 heads over 2 of keys", lambda: llama.Llama(LLAMA), llama.generator),
}


def classifier() -> Classifier:
    """The classifier of docstrings, untrained."""
    return Classifier(BERT, len(GROUPS))


def fresh(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A network to train: normal weights, smaller by about sqrt(2 layers) where a branch ends."""
    return initialised(build, lambda name: DEVIATION / (3 if name.endswith(_ENDS) else 1), seed=seed).requires_grad_()
