"""Point functions of every prefix: two short keys for a secret number, by which sums over its cells can be shared.

`deal` makes for each secret a of `cells.bits` bits the corrections of a binary tree; `Kernels.at_cells` turns either
side's seed and the corrections into shares, for every cell of x = w - a with a public w, of whether x lies in it. The
two sides add up to the unit vector of x's cell. After Boneh, Boyle, Corrigan-Gibbs, Gilboa, Ishai, "Lightweight
Techniques for Private Heavy Hitters", IEEE S&P 2021 (incremental point functions), on the tree and the blocks of `dpf`:
a point function whose every level has an output of its own.

Cell i of width g = 2^s holds the a with floor(a/g) = floor(w/g) - i: one node of the tree, `cells.depth` levels down at
most. So only nodes near the path to w are grown, 2^fine of each level, where comparisons with as many thresholds would
each walk a path. The cells of width g end where those of width 2g begin, at w mod 2g + 2^fine 2g: one cell of width g
more if bit s of w is set.

Why one side's view tells nothing of a: its seed is drawn by it, the corrections are those of [BGI16] with one of 64
bits for each level's output: that output is a third block of the generator at each node, so that what corrects the
outputs is independent of what corrects the children. Assumption and blocks: `dpf`'s.

Corrections: 17 bytes a level and 8 a width of cells.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hush.mpc.cells import Cells
from hush.mpc.ring.blocks import LEVEL, ONE, Integers, Words, as_bytes, descend, on, root
from hush.mpc.ring.torch_cells import as_seed, output


def correction_bytes(cells: Cells) -> int:
    """Bytes that are dealt for one secret, to each side the same."""
    return LEVEL * cells.depth + 8 * len(cells.widths)


def deal(secrets: Tensor, seeds: tuple[Tensor, Tensor], cells: Cells) -> Tensor:
    """uint8 [n, correction_bytes(cells)] for int64 secrets [n], of which the low `cells.bits` bits count, and the two
    sides' seeds, int64 [n, 2] uniform."""
    a = secrets.numpy().view(np.uint64)
    nodes = [root(as_seed(seed), side) for side, seed in enumerate(seeds)]
    levels, values = [], []
    for level in range(cells.depth):
        height = cells.bits - 1 - level
        correction, nodes = descend(nodes, (a >> np.uint64(height)) & ONE)
        levels.append(correction)
        if height <= cells.highest:
            values.append(as_bytes(_value(nodes)[:, None]))
    return torch.from_numpy(np.concatenate([*levels, *values], 1))


def _value(nodes: list[Words]) -> Integers:
    """[n]: what makes the two outputs at the path's nodes add up to 1, negated where side 1 adds it."""
    first, second = (output(node) for node in nodes)
    gap: Integers = ONE - first + second
    np.negative(gap, out=gap, where=on(nodes[1])[:, 0] != 0)
    return gap
