"""LMUFormer: convolutions before the Legendre memory and a channel mixer behind it make it a good classifier.

Handwritten digits as sequences of eight rows, against the memory unit alone, which reads the last step, with about as
many parameters; trained alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from claims.claim import Claim
from claims.data import batches, digits
from claims.training import fit, seeded
from hush.models.lmuformer import TINY, LMUFormer, Memory


class Unit(nn.Module):
    """A Legendre memory unit and a linear layer on its last output: Voelker et al., NeurIPS 2019."""

    def __init__(self, channels: int, order: int, hidden: int, length: int, classes: int) -> None:
        super().__init__()
        self.W_u, self.W_h = nn.Linear(channels, 1), nn.Linear(order + channels, hidden)
        self.memory = Memory(order, float(length), length)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] -> scores [B, classes]."""
        m = self.memory(F.relu(self.W_u(x)).transpose(1, 2))[..., -1]
        scores: Tensor = self.head(F.relu(self.W_h(torch.cat([m, x[:, -1]], -1))))
        return scores


def entropy(module: nn.Module, x: Tensor, wanted: Tensor) -> Tensor:
    """Cross entropy of the scores."""
    return F.cross_entropy(module(x), wanted)


def rows() -> tuple[tuple[Tensor, Tensor], list[tuple[Tensor, ...]]]:
    """Digits to train on, and 384 others in calls of 128."""
    images, wanted = digits()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, wanted = images[order], wanted[order]
    return (images[:1400], wanted[:1400]), batches((images[1400:], wanted[1400:]), 128)


def claim() -> Claim:
    """Accuracy on held-out digits, against the memory unit alone."""
    former = fit(seeded(lambda: LMUFormer(TINY)), rows()[0], entropy, steps=250, rate=1e-2, batch=64)
    return against_the_unit("lmuformer", former, 0.06)


def against_the_unit(network: str, former: nn.Module, margin: float) -> Claim:
    """A classifier of digits beside the memory unit alone."""
    train, test = rows()
    alone = fit(seeded(lambda: Unit(8, 64, 256, 8, 10)), train, entropy, steps=500, rate=1e-2, batch=64)
    calls, answers = [(x,) for x, _ in test], torch.cat([y for _, y in test])

    def score(outputs: Sequence[Tensor]) -> float:
        return (torch.cat(list(outputs)).argmax(1) == answers).double().mean().item()

    with torch.inference_mode():
        rival = score([alone(*call) for call in calls])
    return Claim(
        network=network,
        says=f"digits row by row: accuracy at least {margin} above the memory unit alone with as many parameters",
        module=former,
        calls=calls,
        score=score,
        rival=rival,
        ranges=[(x,) for x in torch.split(train[0][:256], 128)],
        lower=False,
        margin=margin,
        classes=lambda output: output.argmax(1),
    )
