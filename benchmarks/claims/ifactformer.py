"""IFactFormer: attention along axes in parallel learns a field's motion where the chained form does not.

Synthetic: random waves on a periodic box, each velocity component carried along its own axis and slowly damped. What
one component needs is a kernel along one axis that leaves the two others alone, which "-m" has and "-o" has to make out
of a product of three kernels. (Where all components are carried along one slanted direction, "-o" does as well.)
Trained on single steps, tested on rollouts, each network fed with its own answers. The rival has the same start, steps
and data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from claims.claim import Claim
from claims.training import fit, mse, seeded
from hush.models.ifactformer import TINY, IFactFormer, IFactFormerConfig, Rollout

STEPS = 4
SPEED, DAMPING, TIME, MODES = 0.8, 0.08, 0.1, 6  # box lengths and rate a unit of time; a step's time; waves a component
CONFIG = replace(TINY, grid=(8, 4, 4), length=(1.0, 1.0, 1.0), n_layer=2)


def fields(c: IFactFormerConfig, count: int, steps: int, seed: int) -> Tensor:
    """[count, steps + 1, X, Y, Z, 3]: no wave is so short that the grid cannot tell where it moves."""
    numbers = torch.Generator().manual_seed(seed)
    shape = count, 3, MODES
    longest = [(n - 1) // 2 for n in c.grid]
    turns = torch.stack([torch.randint(-n, n + 1, shape, generator=numbers) for n in longest], -1).float()
    phase = torch.rand(shape, generator=numbers)
    height = torch.randn(shape, generator=numbers) * (2 / MODES) ** 0.5
    places = torch.meshgrid(*(torch.arange(n) / n for n in c.grid), indexing="ij")
    along = torch.einsum("bcma,axyz->bxyzcm", turns, torch.stack(places))
    moved = SPEED * TIME * torch.diagonal(turns, dim1=1, dim2=3).transpose(1, 2)
    kept = torch.exp(-DAMPING * TIME * turns.square().sum(-1))
    found = []
    for step in range(steps + 1):
        angles = 2 * math.pi * (along + (phase - moved * step)[:, None, None, None])
        found.append(((height * kept**step)[:, None, None, None] * angles.cos()).sum(-1))
    return torch.stack(found, 1)


def claim() -> Claim:
    """Relative error of the rollout's last field, against the chained form."""
    train, test = fields(CONFIG, 1024, 1, seed=0), fields(CONFIG, 32, STEPS, seed=1)
    parallel, chained = (_trained(replace(CONFIG, parallel=kind), train) for kind in (True, False))
    calls, wanted = [(part[:, :1],) for part in test.split(16)], test[:, 1:]

    def score(outputs: Sequence[Tensor]) -> float:
        missed = (torch.cat(list(outputs)) - wanted)[:, -1]
        return (missed.square().mean() / wanted[:, -1].square().mean()).sqrt().item()

    with torch.inference_mode():
        rival = score([chained(*call) for call in calls])
    return Claim(
        network="ifactformer-m",
        says="after four steps of its own answers the parallel form's error is below half of the chained form's",
        module=parallel,
        calls=calls,
        score=score,
        rival=rival,
        ranges=[(train[i : i + 16, :1],) for i in range(0, 128, 16)],
        factor=0.5,
    )


def _trained(c: IFactFormerConfig, train: Tensor) -> Rollout:
    network = fit(seeded(lambda: IFactFormer(c)), (train[:, :1], train[:, 1]), mse, steps=200, rate=1e-2, batch=16)
    return Rollout(network, STEPS).eval()
