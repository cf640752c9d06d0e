"""Rows in an order that neither party knows."""

from __future__ import annotations

from secrets import SystemRandom

import torch
from torch import Tensor

from hush.mpc.errors import UserError
from hush.protocols.crypten.products import beaver, own
from hush.protocols.crypten.world import PARTIES

_MOST = 2048  # rows: a permutation matrix takes 8 bytes times their square


def shuffle(share: Tensor, rank: int) -> Tensor:
    """The rows (dimension 0) in a uniformly random order.

    1. Party 0 draws an order, writes it as a matrix of zeros and ones and shares it: the rows become P0 x (`beaver`).
    2. Party 1 likewise: P1 P0 x. Each knows its own order, so neither knows the whole (but see the package: party 0 can
    read every opening). 2 rounds. UserError for more than 2,048 rows.
    """
    count = share.shape[0]
    if count > _MOST:
        raise UserError(f"CrypTen shuffles by products with matrices: {_MOST} rows are the most, not {count}")
    if not share.numel():
        return share
    rows = share.reshape(count, -1)
    for dealer in range(PARTIES):
        order = SystemRandom().sample(range(count), count)
        rows = beaver("matmul", own(torch.eye(count, dtype=torch.int64)[order], rank, dealer), rows)
    return rows.reshape(share.shape)
