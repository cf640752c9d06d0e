"""A side's shares of the cells that secrets lie in, from the corrections that `protocols.replicated.prefix` deals: the
reference. Level after level of a binary tree, with the nodes near the path to w alone.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hush.mpc.cells import Cells
from hush.mpc.ring.blocks import (
    BLOCK,
    LEFT,
    LEVEL,
    ONE,
    RIGHT,
    Integers,
    Words,
    as_words,
    fixed,
    grow,
    joined,
    on,
    root,
)

VALUE = fixed(b"value")
_BATCH = 8  # secrets expanded at once: their levels stay in a core's cache


def expand(corrections: Tensor, seeds: Tensor, offsets: Tensor, cells: Cells, side: int) -> Tensor:
    """int64 [n, cells.count] in Z_2^64 for one side: with the other's, 1 at the cell of offset - secret, 0 elsewhere.

    corrections [n, correction_bytes(cells)], seeds int64 [n, 2], offsets int64 [n] of which the low bits count.
    """
    out = torch.empty(seeds.shape[0], cells.count, dtype=torch.int64)
    for start in range(0, seeds.shape[0], _BATCH):
        cut = slice(start, start + _BATCH)
        raw, w = corrections[cut].contiguous().numpy(), offsets[cut].numpy().view(np.uint64)
        _expand(raw, root(as_seed(seeds[cut]), side), w, cells, side, out[cut].numpy().view(np.uint64))
    return out


def _expand(raw: NDArray[np.uint8], nodes: Words, w: Integers, cells: Cells, side: int, out: Integers) -> None:
    upper = cells.bits - cells.highest
    nodes = nodes[:, None, :]
    for level in range(upper):
        nodes = _children(nodes, raw[:, level * LEVEL : (level + 1) * LEVEL])
    prefix = (w[:, None] >> np.uint64(cells.highest)).astype(np.uint64) - np.arange(cells.most + 1, dtype=np.uint64)
    place = np.invert(prefix) & np.uint64((1 << upper) - 1)  # nodes lie in the order of falling prefixes
    nodes = np.take_along_axis(nodes, place[..., None].view(np.int64), 1)
    start = 0
    for width in cells.widths:
        if width < cells.highest:
            level = cells.bits - 1 - width
            grown = _children(nodes[:, : (1 << cells.fine) + 1], raw[:, level * LEVEL : (level + 1) * LEVEL])
            nodes = _by_index(grown, _bit(w, width))
        kept = nodes[:, cells.first(width) :]
        at = LEVEL * cells.depth + 8 * (cells.highest - width)
        values = _corrected(kept, as_words(raw[:, at : at + 8]), side)
        if width < cells.highest:  # the last cell is there only if the wider ones begin after it
            values[:, -1] &= np.uint64(0) - _bit(w, width)
        out[:, start : start + values.shape[1]] = values
        start += values.shape[1]


def _children(nodes: Words, correction: NDArray[np.uint8]) -> Words:
    """[n, 2m, 2] of nodes [n, m, 2] whose order is that of falling prefixes: right before left."""
    seed, marks, active = as_words(correction[:, :BLOCK]), correction[:, BLOCK].astype(np.uint64), on(nodes)
    after = np.empty((nodes.shape[0], 2 * nodes.shape[1], 2), np.uint64)
    for child, key in enumerate((LEFT, RIGHT)):
        grown = grow(nodes, key)
        grown ^= active & joined(seed, (marks >> np.uint64(child)) & ONE)[:, None, :]
        after[:, 1 - child :: 2] = grown
    return after


def _by_index(grown: Words, bit: Integers) -> Words:
    """Children of the nodes 0..m by their own index from 0: they begin at -1 where w's next bit is not set, and what
    then lacks at the end is no cell."""
    shifted = np.concatenate([grown[:, 1:], grown[:, -1:]], 1)
    return np.where(bit[:, None, None] != 0, grown, shifted)


def _corrected(nodes: Words, correction: Integers, side: int) -> Integers:
    values, active = output(nodes), on(nodes)[..., 0]
    values += active & correction
    return values if side == 0 else np.negative(values)


def output(nodes: Words) -> Integers:
    """What a node gives to its cell: a word of the third block that it grows."""
    found: Integers = grow(nodes, VALUE)[..., 1]
    return found.copy()


def _bit(w: Integers, position: int) -> Integers:
    return (w >> np.uint64(position)) & ONE


def as_seed(drawn: Tensor) -> Words:
    """int64 [n, 2] as blocks."""
    return np.ascontiguousarray(drawn.numpy()).view(np.uint64)
