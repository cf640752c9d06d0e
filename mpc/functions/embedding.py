"""Embedding: rows of a table at secret places."""

from __future__ import annotations

import torch
from torch import Tensor

from hush.mpc.functions.order import equals
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step

CHUNK = 1 << 21
"""Equality tests made at once: bounds the memory of `embedding_of_ids` (about 100 bytes a test)."""


def embedding_of_one_hot(
    p: Protocol, one_hot: Shared, table: Shared | Tensor, *, frac: int | None = None
) -> Step[Shared]:
    """[..., D]: the rows that one-hot shares [..., V] (frac 0) choose from a table [V, D], secret or public.

    Exact and never truncated: bits are integers. A secret table costs one product's messages per output, 1 round; a
    public one costs nothing. `frac`: scale of a public table (default: the protocol's).
    """
    if isinstance(table, Shared):
        return (yield from p.matmul(one_hot, table, frac=table.frac))
    scale = p.frac if frac is None else frac
    return (yield from p.matmul_public(one_hot, table, frac=scale, scale=scale))


def embedding_of_ids(
    p: Protocol, ids: Shared, table: Shared | Tensor, *, frac: int | None = None, chunk: int = CHUNK
) -> Step[Shared]:
    """[..., D]: rows of a table [V, D] at secret ids [...] (frac 0), by equality with every id [PUMA 4.4].

    V equality tests on log2(V) + 1 bits and V one-bit conversions per id, then `embedding_of_one_hot`. The vocabulary
    is cut into pieces of at most `chunk` tests, one after the other: each piece costs the rounds again. Ids outside
    0..V-1 give 0.
    """
    rows, flat = table.shape[0], ids.reshape(-1, 1)
    piece = max(1, min(rows, chunk // max(1, flat.shape[0])))
    total: Shared | None = None
    for start in range(0, rows, piece):
        stop = min(start + piece, rows)
        hot = yield from equals(p, flat, torch.arange(start, stop, device=flat.device), bound=float(rows))
        part = yield from embedding_of_one_hot(p, hot, table[start:stop], frac=frac)
        total = part if total is None else p.add(total, part)
    if total is None:
        raise ValueError("an embedding needs a table with at least one row")
    return total.reshape(*ids.shape, table.shape[1])
