"""Products of two secrets by CrypTen's Beaver protocol, on shares that carry no scale."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hush.protocols.crypten.library import library


def arithmetic(share: Tensor) -> Any:
    """A CrypTen tensor of integers from this party's additive share."""
    return library().Arithmetic.from_shares(share.contiguous(), precision=0)


def beaver(op: str, x: Tensor, y: Tensor, **geometry: Any) -> Tensor:
    """This party's share of op(x, y) mod 2^64; `op`: "mul", "matmul", "conv1d" or "conv2d", broadcast as in torch.

    1. Party 0 draws a, b and c = op(a, b), and all are shared without a message: the other party's shares are
       expanded from a common seed. 2. x - a and y - b are opened, in one call. 3. op(x, y) by each from those, locally.

    Views: x - a and y - b are uniform to party 1; party 0 knows a and b. CrypTen counts 1 round, and 8 bytes sent an
    element of x and of y.
    """
    if not x.numel() or not y.numel():
        return torch.as_tensor(getattr(torch, op)(x, y, **geometry))
    share: Tensor = getattr(arithmetic(x), op)(arithmetic(y), **geometry).share
    return share


def own(mine: Tensor, rank: int, of: int) -> Tensor:
    """A share of what party `of` alone knows and the others pass a tensor of the same shape for: it, or zero."""
    return mine if rank == of else torch.zeros_like(mine)
