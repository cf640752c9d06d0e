"""Training at tiny size: Adam with one cycle of the learning rate, seeded, some seconds on two cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Loss = Callable[..., Tensor]


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A module with its layers' own initialisation, to be trained."""
    torch.manual_seed(seed)
    return make()


def fit(
    module: nn.Module,
    data: Sequence[Tensor],
    loss: Loss,
    *,
    steps: int,
    rate: float,
    batch: int = 32,
    decay: float = 0.0,
    seed: int = 0,
) -> nn.Module:
    """The module in eval mode, trained on rows of `data`: `loss(module, *rows)`."""
    numbers, count, threads = torch.Generator().manual_seed(seed), len(data[0]), torch.get_num_threads()
    torch.set_num_threads(1)  # layers are small: a second thread gains little, and costs much where cores are shared
    torch.manual_seed(seed)  # dropout, and what a network draws in training
    optimiser = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    module.train()
    for _ in range(steps):
        rows = torch.randint(count, (min(batch, count),), generator=numbers)
        optimiser.zero_grad()
        loss(module, *(part[rows] for part in data)).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    torch.set_num_threads(threads)
    return module.eval().requires_grad_(False)


def mse(module: nn.Module, *rows: Tensor) -> Tensor:
    """Mean squared error of the module's answer to all but the last, against the last."""
    *given, wanted = rows
    return nn.functional.mse_loss(module(*given), wanted)
