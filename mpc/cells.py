"""Cells of a positive number's range: as fine, relative to the number, at every magnitude.

A secret x of that range falls into one cell, and public tables with an entry for each cell can be looked up there
(`Protocol.pick`): the segments of a piecewise function, as a rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Cells:
    """Cells for low <= x <= high units: widths g = 2^s for s from `lowest` to `highest`, 2^fine + 1 of each.

    Cell i of width g has its centre at i g and holds x with |x - i g| < g: where it begins and ends within that is the
    protocol's choice, so two neighbours may both hold x. Of each width i runs from 2^fine + 1 to 2^(fine+1) + 1; where
    s = 0 is the lowest width, from 0 there, and those cells hold x = i alone.
    """

    fine: int
    lowest: int
    highest: int

    @classmethod
    def covering(cls, low: int, high: int, fine: int) -> Cells:
        """Those that hold low..high units, at least 2^fine cells to an octave."""
        if not 0 <= low <= high or high < 1 or fine < 1:
            raise ValueError(f"cells need 0 <= low <= high, 1 <= high and 1 <= fine, not {low}, {high} and {fine}")
        lowest = max(0, (low // ((1 << fine) + 1)).bit_length() - 1)
        highest = max(lowest, (high - 1).bit_length() - fine - 1)  # whole numbers: no two machines may differ
        return cls(fine, lowest, highest)

    @property
    def bits(self) -> int:
        """Low bits of x that tell the cells apart: the depth of a binary tree over them."""
        return self.highest + self.fine + 2

    @property
    def depth(self) -> int:
        """Levels of that tree down to the narrowest cells."""
        return self.bits - self.lowest

    @property
    def most(self) -> int:
        """The largest i."""
        return (2 << self.fine) + 1

    def first(self, width: int) -> int:
        """The smallest i of the cells of width 2^`width`."""
        return 0 if width == 0 else (1 << self.fine) + 1

    @cached_property
    def widths(self) -> range:
        """s from the widest cells to the narrowest: the order of the entries of a table."""
        return range(self.highest, self.lowest - 1, -1)

    @cached_property
    def centres(self) -> Tensor:
        """int64 [count]: i 2^s of each cell, widest first, then by i."""
        return torch.from_numpy(np.concatenate([np.arange(self.first(s), self.most + 1) << s for s in self.widths]))

    @cached_property
    def reach(self) -> Tensor:
        """int64 [count]: how far, at most, an x in the cell lies from its centre; 0 for cells of one number."""
        sizes = [self.most + 1 - self.first(s) for s in self.widths]
        return torch.tensor([0 if s == 0 else 1 << s for s in self.widths]).repeat_interleave(torch.tensor(sizes))

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.centres)

    @property
    def blocks(self) -> int:
        """Cipher blocks, roughly, by which a tree over the cells is grown for one x (`protocols.replicated.prefix`)."""
        return (len(self.widths) * 3 + 4) << self.fine

    def find(self, units: Tensor) -> Tensor:
        """int64: the place of the cell of each x, if they end at their centres; 0 for x out of range. For protocols
        that see x."""
        clipped = units.clamp(0, 1 << (self.fine + 1 + self.highest))
        found, start = torch.zeros_like(clipped), 0
        for s in self.widths:
            i = (clipped + ((1 << s) - 1)) >> s
            within = (i >= self.first(s)) & (i <= self.most)
            found = torch.where(within, start + i - self.first(s), found)
            start += self.most + 1 - self.first(s)
        return found
