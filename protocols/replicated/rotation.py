"""Which party plays which role on which part of a tensor.

Roles in a protocol of three are asymmetric: one party may send twice as much as another, or compute nothing. A large
tensor is therefore cut in three along its flat order and role 0 is played by party 0, 1, 2 on the slices. The cut is a
function of the number of elements alone: the same at every party and in the cost model.
"""

from __future__ import annotations

from typing import NamedTuple

WORD = 64  # slices begin at a word of a bit plane
ROTATE_MIN = 2048  # a smaller slice costs more in calls than the balance saves


class Slice(NamedTuple):
    """Elements start..stop of the flat order, where role 0 is played by party `rotation`."""

    rotation: int
    start: int
    stop: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return self.stop - self.start


def slices(numel: int) -> tuple[Slice, ...]:
    """The cut of a tensor of `numel` elements: three slices, or one with rotation 0 for a small tensor."""
    if numel < 3 * ROTATE_MIN:
        return (Slice(0, 0, numel),)
    third = numel // 3 // WORD * WORD
    return (Slice(0, 0, third), Slice(1, third, 2 * third), Slice(2, 2 * third, numel))
