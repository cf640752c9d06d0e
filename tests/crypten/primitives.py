"""A row of the conformance table at one of CrypTen's parties: shared, computed, opened."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hush.mpc.fixed_point import encode
from hush.mpc.points import Points
from hush.mpc.ring import RING64
from hush.mpc.secret import Shared, SharedBits, join_planes
from hush.protocols.crypten.beat import run
from hush.protocols.crypten.bits import binary
from hush.protocols.crypten.protocol import CrypTen
from tests.conformance.harness import Argument, BitString, Case, Places, Real, Setting
from tests.conformance.rows import ROWS

FRAC = 18


def case(name: str, shape: list[int], seed: int) -> Case:
    """The row's case; the same in every process."""
    return ROWS[name].make(Setting(RING64, FRAC, tuple(shape), seed))


def result(rank: int, name: str, shape: list[int], seed: int) -> Tensor:
    """The case's result, opened: units, bits or opened elements."""
    made, p = case(name, shape, seed), CrypTen(rank, RING64, FRAC)
    masks = torch.Generator().manual_seed(seed + 1)  # the same at both parties: they share without a message
    return made.canonical(reveal(p, _last(made.program(p, *(_share(p, a, masks) for a in made.arguments)))))


def reveal(p: CrypTen, value: Any) -> Tensor:
    """A result in the clear."""
    if isinstance(value, Shared):
        return run(p.open(value))
    if isinstance(value, SharedBits):
        words = binary(value.parts[0]).reveal() if value.numel else value.parts[0]
        return p.kernels.spread(words, value.numel, RING64).reshape(value.planes, *value.shape)
    return value


def _last(made: Any) -> Any:
    return run(made) if hasattr(made, "send") else made


def _share(p: CrypTen, argument: Argument, masks: torch.Generator) -> Any:
    if isinstance(argument, Real):
        return Shared((_additive(p, encode(argument.value, RING64, argument.frac), masks),), argument.frac, RING64)
    if isinstance(argument, Places):
        rows = torch.nn.functional.one_hot(argument.ids, argument.classes)
        return Points((_additive(p, rows, masks),), argument.classes)
    if isinstance(argument, BitString):
        planes = [p.kernels.to_planes(plane, 1, RING64) for plane in argument.bits]
        whole = join_planes([SharedBits((plane,), argument.bits.shape[1:]) for plane in planes])
        mask = _uniform(whole.parts[0].shape, masks)
        return SharedBits((mask if p.rank == 0 else whole.parts[0] ^ mask,), whole.shape)
    return Shared((_additive(p, argument.element, masks),), argument.frac, RING64)


def _additive(p: CrypTen, element: Tensor, masks: torch.Generator) -> Tensor:
    mask = _uniform(element.shape, masks)
    return mask if p.rank == 0 else element - mask


def _uniform(shape: torch.Size, masks: torch.Generator) -> Tensor:
    low, high = (torch.randint(1 << 32, shape, generator=masks) for _ in range(2))
    return (high << 32) | low
