"""Large work cut into chunks that run one after the other, so that memory does not grow with a tensor.

A chunk repeats the rounds of its function and adds no bytes to speak of. The cut follows from sizes alone, which are
public, so every party and the cost model make the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from hush.mpc.secret import Shared, concat
from hush.mpc.step import Step

MOST = 1 << 21
"""Elements that one chunk works on: a softmax takes about 250 bytes of a party's memory for each, a GELU 150, a product
90."""

Sliced = TypeVar("Sliced", Shared, Tensor, Shared | Tensor)


def in_pieces(
    function: Callable[..., Step[Shared]], x: Shared, *more: Shared, whole: int = 0, each: int | None = None
) -> Step[Shared]:
    """function(x, *more) for a function of each entry by itself, or of each row over the last `whole` dimensions, of
    which all have as many.

    As it is where it works on MOST elements at most, else in equal pieces of no more (but of one row at least), one
    after the other. `each`: the elements that it works on for a row, if not those of the row. Rounds: the function's,
    times the pieces.
    """
    lead = x.shape[: x.ndim - whole]
    each = math.prod(x.shape[len(lead) :]) if each is None else each
    count = math.ceil(lead.numel() * each / MOST)
    if count <= 1 or lead.numel() <= 1:
        return (yield from function(x, *more))
    operands = [v.reshape(-1, *v.shape[v.ndim - whole :]) for v in (x, *more)]
    height = operands[0].shape[0]
    size = math.ceil(height / count)
    done = []
    for start in range(0, height, size):
        done.append((yield from function(*(rows[start : start + size] for rows in operands))))
    joined = concat(done, 0)
    return joined.reshape(*lead, *joined.shape[1:])


def cut(x: Sliced, dim: int, start: int, stop: int) -> Sliced:
    """x[start:stop] along a dimension counted from the last (-1, -2...); x itself if it broadcasts over that."""
    if x.ndim < -dim or x.shape[dim] == 1:
        return x
    if isinstance(x, Shared):
        return x.local(lambda t: t.narrow(dim, start, stop - start))
    return x.narrow(dim, start, stop - start)
