"""SCTN: learned features and transport find motions that nearest points do not.

Synthetic: three bodies of points, each moved by its own vector, farther than its points are from each other, so that a
point's nearest neighbour in the second cloud is mostly another point. Trained on the error of the end point, tested on
other scenes. At this size the network without its transformer is as good (0.19 to 0.21 for both): what the paper says
of that part alone is not tested here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from claims.claim import Call, Claim
from claims.training import fit, seeded
from hush.models.sctn import SCTN, TINY, prepare, scene, stacked

BATCH = 16


def scenes(count: int, seed: int) -> tuple[Call, Tensor]:
    """The network's arguments for `count` scenes, and their flows [count, N, 3]."""
    found = [scene(TINY.points, seed + i) for i in range(count)]
    return stacked([_small(prepare(TINY, *clouds)) for *clouds, _ in found]), torch.stack([flow for *_, flow in found])


def end_point_error(flow: Tensor, wanted: Tensor) -> Tensor:
    """Mean distance between where points are said to go and where they go."""
    return (flow - wanted).norm(dim=-1).mean()


def nearest(points: Tensor) -> Tensor:
    """[B, 2, N, 3] -> the flow to the nearest point of the second cloud [B, N, 3]."""
    source, target = points.unbind(1)
    where = torch.cdist(source, target).argmin(-1)
    return target.gather(1, where[..., None].expand(-1, -1, 3)) - source


def claim() -> Claim:
    """End-point error on scenes that were not seen, against nearest points."""
    (train, wanted), (test, flow) = scenes(256, 10_000), scenes(2 * BATCH, 50_000)
    network = fit(seeded(lambda: SCTN(TINY)), (*train, wanted), _loss, steps=200, rate=1e-2, batch=8)

    def score(outputs: Sequence[Tensor]) -> float:
        return end_point_error(torch.cat(list(outputs)), flow).item()

    return Claim(
        network="sctn",
        says="end-point error of moving bodies below 0.7 of what the nearest points of the second cloud give",
        module=network,
        calls=_calls(test),
        score=score,
        rival=score([nearest(test[0])]),
        ranges=_calls(tuple(part[: 4 * BATCH] for part in train)),
        factor=0.7,
    )


def _small(call: Call) -> Call:
    """One byte an entry of the structure, to keep all scenes."""
    return tuple(part.bool() if part.dtype == torch.int64 else part for part in call)


def _calls(rows: Call) -> list[Call]:
    whole = tuple(part.long() if part.dtype == torch.bool else part for part in rows)
    return [tuple(part[i : i + BATCH] for part in whole) for i in range(0, len(whole[0]), BATCH)]


def _loss(module: nn.Module, *rows: Tensor) -> Tensor:
    *given, wanted = rows
    return end_point_error(module(*given), wanted)
