"""Informer: where few queries need attention, the sparsity measure finds them.

Synthetic recall: of 48 steps of noise one is marked as the source and six ask for its value, at places that differ from
example to example. One encoder layer must answer; its attention serves 12 of 48 queries, for the others there is the
mean. Trained alike, and beside it the same layer that serves 12 queries drawn once: only the choice of queries differs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from claims.claim import Claim
from claims.data import batches
from claims.training import fit, mse, seeded
from hush.models.informer import TINY, EncoderLayer, ProbAttention

LENGTH, ASKING = 48, 6
CONFIG = replace(TINY, n_heads=2)


class RandomAttention(ProbAttention):
    """The queries that attend are drawn once, not measured."""

    def select(self, q: Tensor, k: Tensor) -> Tensor:
        """[B, H, L, E] and [B, H, S, E] -> [B, H, u, L]."""
        rows = torch.randperm(q.shape[-2], generator=torch.Generator().manual_seed(7))[: self.u]
        return F.one_hot(rows, q.shape[-2]).to(q.dtype).expand(*q.shape[:2], -1, -1)


class Recall(nn.Module):
    """An encoder layer between two linear ones."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.embedding, self.projection = nn.Linear(3, CONFIG.d_model), nn.Linear(CONFIG.d_model, 1)
        self.layer = EncoderLayer(CONFIG, attention)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, 3] -> [B, L, 1]."""
        out: Tensor = self.projection(self.layer(self.embedding(x)))
        return out


def examples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Values, source and questions [n, L, 3]; the answers, 0 where nothing is asked [n, L, 1]."""
    numbers = torch.Generator().manual_seed(seed)
    value = torch.randn(count, LENGTH, generator=numbers)
    places = torch.rand(count, LENGTH, generator=numbers).argsort(-1)
    source = F.one_hot(places[:, 0], LENGTH).float()
    asked = F.one_hot(places[:, 1 : 1 + ASKING], LENGTH).sum(1).float()
    answer = asked * (value * source).sum(-1, keepdim=True)
    return torch.stack([value, source, asked], -1), answer.unsqueeze(-1)


def claim() -> Claim:
    """Error of the top 12 queries by the measure, against 12 drawn ones."""
    train, test = examples(8192, 0), examples(128, 1)
    sparse, drawn = (_trained(kind, train) for kind in (ProbAttention, RandomAttention))
    calls = batches(test[:1], 32)

    def score(outputs: list[Tensor]) -> float:
        return F.mse_loss(torch.cat(outputs), test[1]).item()

    with torch.inference_mode():
        rival = score([drawn(*call) for call in calls])
    return Claim(
        network="informer",
        says="recall: measured top-u queries leave less than 0.3 of the error of as many drawn queries (MSE)",
        module=sparse,
        calls=calls,
        score=lambda outputs: score(list(outputs)),
        rival=rival,
        ranges=batches(train[:1], 32)[:8],
        factor=0.3,
    )


def _trained(kind: type[ProbAttention], train: tuple[Tensor, Tensor]) -> nn.Module:
    made = seeded(lambda: Recall(kind(CONFIG, LENGTH, LENGTH, causal=False, seed=0)))
    return fit(made, train, mse, steps=150, rate=1e-2)
