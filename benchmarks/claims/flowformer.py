"""Flowformer: attention in linear time classifies series as well as softmax attention.

Synthetic gestures: a point goes round, forwards or backwards, once or twice in 24 steps, from any angle, in noise. Each
step alone says nothing about the class (every angle is as likely in each), so a network that does not mix steps, or a
linear one, guesses one in four. The same classifier is trained twice alike: with flow attention, and with softmax in
its place. The series they are tried on have more noise than those they were trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from claims.claim import Claim
from claims.data import batches
from claims.training import fit, seeded
from hush.models.flowformer import TINY, AttentionLayer, FlowformerClassiregressor

CONFIG = replace(TINY, feat_dim=2, max_len=24, num_classes=4, pos_encoding="fixed")


class Softmax(nn.Module):
    """What flow attention stands in for."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Three times [B, H, L, E] -> [B, H, L, E]."""
        return F.scaled_dot_product_attention(q, k, v)


def softmax_network() -> nn.Module:
    """The classifier with softmax attention."""
    network = FlowformerClassiregressor(CONFIG)
    for layer in network.modules():
        if isinstance(layer, AttentionLayer):
            layer.inner_attention = Softmax()
    return network


def gestures(count: int, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """Series [n, L, 2] and their classes [n]."""
    numbers = torch.Generator().manual_seed(seed)
    classes = torch.randint(4, (count,), generator=numbers)
    turns = torch.tensor([-2.0, -1.0, 1.0, 2.0])[classes].unsqueeze(1)
    start = torch.rand(count, 1, generator=numbers)
    angle = 2 * math.pi * (turns * torch.arange(CONFIG.max_len) / CONFIG.max_len + start)
    clean = torch.stack([angle.cos(), angle.sin()], -1)
    return clean + noise * torch.randn(clean.shape, generator=numbers), classes


def claim() -> Claim:
    """Accuracy with flow attention, against that with softmax attention."""
    train, test = gestures(8192, 0.3, 0), gestures(256, 0.5, 1)
    flow = _trained(lambda: FlowformerClassiregressor(CONFIG), train)
    softmax = _trained(softmax_network, train)
    calls = batches(test[:1], 32)

    def score(outputs: list[Tensor]) -> float:
        return (torch.cat(outputs).argmax(-1) == test[1]).double().mean().item()

    with torch.inference_mode():
        rival = score([softmax(*call) for call in calls])
    return Claim(
        network="flowformer",
        says="gestures: flow attention is at most 3 points less accurate than softmax attention (chance: 25%)",
        module=flow,
        calls=calls,
        score=lambda outputs: score(list(outputs)),
        rival=rival,
        ranges=[*batches(train[:1], 32)[:8], *batches(gestures(128, 0.5, 2)[:1], 32)],
        lower=False,
        margin=-0.03,
        classes=lambda output: output.argmax(-1),
    )


def _trained(make: Callable[[], nn.Module], train: tuple[Tensor, Tensor]) -> nn.Module:
    return fit(seeded(make), train, _loss, steps=400, rate=5e-3)


def _loss(module: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    return F.cross_entropy(module(x), classes)
