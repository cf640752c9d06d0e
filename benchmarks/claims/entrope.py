"""EntroPE: patches that end where the entropy model is uncertain end where a series changes its regime.

Synthetic: three cycles over the same four levels, up, down and crossed, each kept for 8 to 19 steps; levels alone do
not tell regimes apart, so that a change shows in the order of steps only. The entropy model is trained on other series
of the kind, then frozen. The rival is the patches that the paper argues against: as many, evenly spaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from claims.claim import Claim
from claims.data import batches
from claims.training import fit, seeded
from hush.models.entrope import FIRST, TINY, EntroPE, EntropyModel

CONFIG = replace(TINY, enc_in=1, vocab_size=16, patching_threshold=0.9)
LEVELS = torch.tensor([-1.342, -0.447, 0.447, 1.342])  # mean 0, deviation 1
CYCLES = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [0, 2, 1, 3]])


class Boundaries(nn.Module):
    """Where the network ends its patches."""

    def __init__(self, network: EntroPE) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, 1] -> [B, L], 1 where a patch ends."""
        series, *_ = self.network.normalised(x)
        return self.network.chosen(self.network.tokens(series))


def series(count: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """[count, length] and, as truth values, the first steps of regimes: each another cycle, from any of its places."""
    numbers = torch.Generator().manual_seed(seed)

    def drawn(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (count,), generator=numbers)

    cycle, place, left = drawn(0, 3), drawn(0, 4), drawn(8, 20)
    steps, firsts = [], []
    for _ in range(length):
        changed = left == 0
        cycle = torch.where(changed, (cycle + drawn(1, 3)) % 3, cycle)
        place, left = torch.where(changed, drawn(0, 4), place), torch.where(changed, drawn(8, 20), left) - 1
        steps.append(LEVELS[CYCLES[cycle, place % 4]])
        firsts.append(changed)
        place = place + 1
    clean = torch.stack(steps, 1)
    return clean + 0.03 * torch.randn(clean.shape, generator=numbers), torch.stack(firsts, 1)


def surprise(model: nn.Module, rows: Tensor) -> Tensor:
    """Mean negative log likelihood of each next token."""
    assert isinstance(model, EntropyModel)
    logits, wanted = model(rows)[:, :-1], rows[:, 1:].argmax(-1) + FIRST
    return nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())


def claim() -> Claim:
    """Share of boundaries within a step of a change, against that of even ones."""
    train, (test, firsts) = series(2000, CONFIG.seq_len, 0)[0][..., None], series(256, CONFIG.seq_len, 1)
    network = seeded(lambda: EntroPE(CONFIG)).eval()
    assert isinstance(network, EntroPE)
    with torch.no_grad():
        rows = network.tokens(network.normalised(train)[0])
    network.entropy_model.requires_grad_(True)
    fit(network.entropy_model, [rows], surprise, steps=400, rate=2e-2)
    later, earlier = nn.functional.pad(firsts, (1, 0))[:, :-1], nn.functional.pad(firsts, (0, 1))[:, 1:]
    near = (firsts | later | earlier).double()

    def score(outputs: Sequence[Tensor]) -> float:
        ends = torch.cat(list(outputs)).double()
        return ((ends * near).sum() / ends.sum()).item()

    even = torch.zeros(CONFIG.seq_len)
    even[torch.linspace(0, CONFIG.seq_len, CONFIG.boundaries + 2)[1:-1].round().long() - 1] = 1
    return Claim(
        network="entrope",
        says="patches end at changes of regime: 15 points more of them within a step of one than of even patches",
        module=Boundaries(network).requires_grad_(False),
        calls=batches([test[..., None]], 128),
        score=score,
        rival=score([even.expand(len(near), -1)]),
        ranges=batches([train], 128)[:4],
        lower=False,
        margin=0.15,
        classes=lambda ends: ends,
    )
