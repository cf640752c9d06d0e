"""Networks without a checkpoint: their published initialisation, the same numbers every time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

DEVIATION = 0.02


def bare(architecture: Callable[[], nn.Module]) -> nn.Module:
    """The network in eval mode, its parameters on the meta device: to be filled one by one."""
    with torch.device("meta"):
        return architecture().eval()


def seeded(architecture: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The network in eval mode with its layers' own initialisation, the same numbers every time; torch's generator is
    left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        return architecture().eval().requires_grad_(False)


def initialised(
    architecture: Callable[[], nn.Module],
    deviation: Callable[[str], float] = lambda name: DEVIATION,
    zero_rows: tuple[tuple[str, int], ...] = (),
    seed: int = 0,
) -> nn.Module:
    """The network with normal weights, biases 0 and norms 1, from a generator of its own.

    `deviation` gives the standard deviation of the matrix of a name; `zero_rows` of embeddings belong to padding.
    """
    module, numbers = bare(architecture), torch.Generator().manual_seed(seed)
    for name, parameter in list(module.named_parameters()):
        value = torch.empty(parameter.shape)
        if name.endswith("bias"):
            value.zero_()
        elif value.ndim == 1:
            value.fill_(1.0)
        else:
            value.normal_(0.0, deviation(name), generator=numbers)
        owner, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(owner), attribute, nn.Parameter(value, requires_grad=False))
    with torch.no_grad():
        for name, row in zero_rows:
            module.get_parameter(name)[row] = 0.0
    return module
