"""FlowTransformer: the classification head matters most, and an average over the window is the worst.

Synthetic: bytes sent by the last flow of a window and bytes received by the one before it make the last an attack if
together they are many. Blocks have no positions, so an average does not know which flow is which; the flat head does.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from claims.claim import Claim
from claims.data import batches
from claims.training import fit, seeded
from hush.models.flowtransformer import FlowTransformer, FlowTransformerConfig, HeadKind, prepared

CONFIG = FlowTransformerConfig(
    numeric=4, levels=(4,), embed_dimension=16, internal_size=32, mlp_layer_sizes=(32,), answer="logit"
)
TOP = 1e6


def flows(windows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Windows [n, W, F] and whether the last flow of each is an attack [n, 1]."""
    numbers = torch.Generator().manual_seed(seed)
    values = TOP ** torch.rand(windows, CONFIG.window, CONFIG.numeric, generator=numbers) - 1
    codes = torch.randint(CONFIG.levels[0], (windows, CONFIG.window, 1), generator=numbers)
    low, high = torch.zeros(CONFIG.numeric), torch.full((CONFIG.numeric,), TOP)
    records = prepared(values, low, high, codes, CONFIG.levels)
    return records, (records[:, -1, :1] + records[:, -2, 1:2] > 1.0).float()


def accuracy(outputs: list[Tensor], wanted: Tensor) -> float:
    """Share of windows on the right side of 0."""
    answers = torch.cat(outputs)
    return ((answers > 0) == (wanted[: len(answers)] > 0)).double().mean().item()


def claim() -> Claim:
    """Accuracy of the flat head against that of the average."""
    train, (windows, wanted) = flows(6000, 0), flows(256, 1)
    flat, average = (_trained(head, train) for head in ("flatten", "average"))
    calls = batches((windows,), 128)
    with torch.inference_mode():
        rival = accuracy([average(*call) for call in calls], wanted)
    return Claim(
        network="flowtransformer",
        says="attacks told by the last two flows: a flat head is right at least 0.2 more often than an average",
        module=flat,
        calls=calls,
        score=lambda outputs: accuracy(list(outputs), wanted),
        rival=rival,
        ranges=batches(train[:1], 128)[:8],
        lower=False,
        margin=0.2,
        classes=lambda output: output > 0,
    )


def _trained(head: HeadKind, train: tuple[Tensor, Tensor]) -> nn.Module:
    network = seeded(lambda: FlowTransformer(replace(CONFIG, head=head)))
    return fit(network, train, _loss, steps=300, rate=5e-3, batch=48)


def _loss(network: nn.Module, windows: Tensor, wanted: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(network(windows), wanted)
