"""Tiles of matrix products: how large they are, and in which order programs take them.

Sizes are reckoned, none is measured: nothing has run on a GPU. A step of a tile reads rows + columns bytes an int8 of
depth for rows * columns multiply-adds, so where both sides are long, tiles are as large as registers hold: a kernel's
own `LARGE`. Where rows are few, the second operand is what takes time, each of it read by one program alone, and rows
beyond those that there are would be multiplied for nothing. What is small on both sides takes small tiles, for more
programs. Shared memory of the tiles here stays below 99 KiB, which every GPU of compute capability 8.0 or more has.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl


class Tile(NamedTuple):
    """What one program makes, a step of depth at a time."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int = 3
    """Steps whose operands are under way from memory."""

    @property
    def sizes(self) -> tuple[int, int, int]:
        """As kernels take them."""
        return self.rows, self.columns, self.depth

    @property
    def options(self) -> dict[str, int]:
        """As launches take them."""
        return {"num_warps": self.warps, "num_stages": self.stages}


FEWEST = Tile(16, 128, 128, 4, 4)  # rows: what tensor cores take at least
FEW = Tile(32, 128, 128, 4)
SMALL = Tile(32, 32, 64, 4)
MIDDLE = Tile(64, 64, 128, 4)


def fitting(rows: int, columns: int, large: Tile) -> Tile:
    """The tile of a product [rows, columns]: `large`, or one of the above."""
    if columns > SMALL.columns and rows <= FEW.rows:
        return FEWEST if rows <= FEWEST.rows else FEW
    if min(rows, columns) <= SMALL.rows:
        return SMALL
    return MIDDLE if min(rows, columns) <= MIDDLE.rows else large


@triton.jit
def tile_at(number, down, across):
    """(row, column) of a tile of down x across. Neighbours in number, which run at the same time, go down eight rows of
    tiles before the next column: some 100 of them make a patch of 8 by a dozen, not a line, so that each operand's part
    serves several while it lies in the L2 cache."""
    band = number // (8 * across)
    height = tl.minimum(down - 8 * band, 8)
    within = number - 8 * across * band
    return 8 * band + within % height, within // height
