"""What CrypTen counts for a primitive, and extreme values through truncations, at one of its parties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hush.mpc.ring import RING32, RING64
from hush.mpc.secret import Shared, SharedBits
from hush.protocols.crypten import truncate, world
from hush.protocols.crypten.beat import run
from hush.protocols.crypten.protocol import CrypTen

NUMEL = 130  # three words a plane


def _number(p: CrypTen, *shape: int) -> Shared:
    return p.constant(torch.ones(shape))


def _bits(p: CrypTen, planes: int) -> SharedBits:
    return SharedBits((torch.zeros(planes, 3, dtype=torch.int64),), torch.Size((NUMEL,)))


CASES: dict[str, Callable[[CrypTen], Any]] = {
    "mul exact": lambda p: p.mul(_number(p, NUMEL), _number(p, NUMEL), frac=36),
    "mul": lambda p: p.mul(_number(p, NUMEL), _number(p, NUMEL)),
    "mul of a row": lambda p: p.mul(_number(p, 5, NUMEL), _number(p, NUMEL), frac=36),
    "matmul": lambda p: p.matmul(_number(p, 3, 4), _number(p, 4, 5)),
    "mul_public": lambda p: p.mul_public(_number(p, NUMEL), 0.5),
    "truncate": lambda p: p.truncate(_number(p, NUMEL), 4),
    "truncate exactly": lambda p: p.truncate(_number(p, NUMEL), 4, exact=True),
    "negative": lambda p: p.negative(_number(p, NUMEL), bound=2.0),
    "below": lambda p: p.below(_number(p, NUMEL), (-1.0, 1.0), bound=3.0),
    "is_zero": lambda p: p.is_zero(_number(p, NUMEL), bound=2.0),
    "to_bits": lambda p: p.to_bits(_number(p, NUMEL), planes=20),
    "both": lambda p: p.both(_bits(p, 5), _bits(p, 5)),
    "from_bits": lambda p: p.from_bits(_bits(p, 3)),
    "select": lambda p: p.select(_bits(p, 1), _number(p, NUMEL)),
    "select_sum": lambda p: p.select_sum([_bits(p, 1)] * 2, [_number(p, NUMEL)] * 2),
    "open": lambda p: p.open(_number(p, NUMEL)),
    "contribute": lambda p: p.contribute(lambda: torch.ones(NUMEL), (NUMEL,), dealer=2),
    "shuffle": lambda p: p.shuffle(_number(p, NUMEL, 2)),
}


def counted(rank: int, name: str) -> Tensor:
    """(bytes sent, rounds) of a case."""
    p, counter = CrypTen(rank), world.Counter()
    counter.reset()
    run(CASES[name](p))
    sent, messages, rounds = counter.snapshot()
    assert messages == rounds
    return torch.tensor([sent, rounds])


def _shared(rank: int, x: Tensor) -> Tensor:
    """A share whose mask is the same at both parties."""
    masks = torch.Generator().manual_seed(17)
    low, high = (torch.randint(1 << 32, x.shape, generator=masks) for _ in range(2))
    mask = (high << 32) | low
    return mask if rank == 0 else x - mask


def quotients(rank: int, how: str, power: int, shift: int) -> Tensor:
    """2^15 numbers up to 2^power in size, truncated, opened."""
    x = numbers(power)
    share = _shared(rank, x)
    if how == "nearly":
        share = truncate.nearly(share, shift, rank)
    elif how == "division":
        share = truncate.by_division(share, shift)
    else:
        share = truncate.exactly(share, shift)
    return run(CrypTen(rank).open(Shared((share,), 0, RING64)))


def numbers(power: int) -> Tensor:
    """Signed numbers of all sizes up to 2^power, the extremes and their neighbours first."""
    generator = torch.Generator().manual_seed(power)
    size = (1 << 15,)
    x = (torch.randint(1 << 31, size, generator=generator) << 32) | torch.randint(1 << 32, size, generator=generator)
    x = (x >> (63 - power)) * (1 - 2 * torch.randint(2, size, generator=generator))
    top = (1 << power) - 1
    x[:7] = torch.tensor([top, -top, -top - 1, 0, 1, -1, top - 1])
    return x


def wrapped(rank: int, bits: int) -> Tensor:
    """Those numbers modulo 2^bits, asked for as a narrow ring's."""
    p = CrypTen(rank)
    narrow = run(p.truncate(Shared((_shared(rank, numbers(62)),), 0, RING64), 0, ring=RING32))
    assert narrow.ring == RING32
    return run(p.open(p.wrap(Shared(narrow.parts, 0, type(narrow.ring)(bits)))))
