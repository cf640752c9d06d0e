"""Gateformer: attention over variates, let in by a gate, adds to what each series says of itself.

Synthetic: a leader is noise that nobody can forecast from itself, a follower repeats it later and has a season of its
own. The rival is the same network, trained and asked on each series alone: its attention over variates has nothing to
attend to, its attention over time has the season.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from claims.claim import Claim
from claims.data import batches, windows
from claims.training import fit, mse, seeded
from hush.models.gateformer import TINY, Gateformer

AHEAD = 12


def series(steps: int = 2400, seed: int = 0) -> Tensor:
    """[steps, 4]: two leaders, smooth noise; two followers, which repeat them `AHEAD` steps later on a season."""
    numbers = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, 1, steps + AHEAD + 4, generator=numbers)
    leaders = nn.functional.avg_pool1d(noise, 5, stride=1)[:, 0] * 5**0.5
    season = torch.sin(2 * math.pi * torch.arange(steps) / torch.tensor([[24.0], [16.0]]))
    followers = leaders[:, :steps] + season + 0.1 * torch.randn(2, steps, generator=numbers)
    return torch.cat([leaders[:, AHEAD:], followers]).T


def alone(rows: Tensor) -> Tensor:
    """[n, T, N] -> [n * N, T, 1]."""
    return rows.transpose(1, 2).flatten(0, 1)[..., None]


def claim() -> Claim:
    """Error on the followers, against the same network on each series alone."""
    values = series()
    train, test = windows(values[:1900], 48, AHEAD), windows(values[1900:], 48, AHEAD)
    single = fit(
        seeded(lambda: Gateformer(TINY)), [alone(part) for part in train], mse, steps=350, rate=3e-3, batch=128
    )
    together = fit(seeded(lambda: Gateformer(TINY)), train, mse, steps=350, rate=3e-3)
    calls, wanted = batches(test[:1], 64)[:4], torch.cat([rows for (rows,) in batches(test[1:], 64)[:4]])

    def score(outputs: Sequence[Tensor]) -> float:
        return nn.functional.mse_loss(torch.cat(list(outputs))[..., 2:], wanted[..., 2:]).item()

    with torch.inference_mode():
        answers = [single(alone(rows)).reshape(len(rows), 4, AHEAD).transpose(1, 2) for (rows,) in calls]
    return Claim(
        network="gateformer",
        says="followers of other series: error below 0.6 of the same network's on each series alone (MSE)",
        module=together,
        calls=calls,
        score=score,
        rival=score(answers),
        ranges=batches(train[:1], 64)[:8],
        factor=0.6,
    )
