"""Which scores of an attention are computed, and how many at a time: rectangles of queries and keys.

All of this follows from shapes and public masks alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from torch import Tensor

WORTH = 1 << 14
"""Scores that cutting a rectangle in two must save: a product more costs a party a millisecond, a score 40 ns."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tile:
    """Queries rows[0]..rows[1], and the keys keys[0]..keys[1], outside of which a mask leaves nothing of them."""

    rows: Span
    keys: Span

    @property
    def height(self) -> int:
        """Number of queries."""
        return self.rows[1] - self.rows[0]

    @property
    def width(self) -> int:
        """Number of keys."""
        return self.keys[1] - self.keys[0]

    @property
    def area(self) -> int:
        """Number of scores, of one head."""
        return self.height * self.width


def spans(keep: Tensor | None, queries: int, keys: int) -> list[Span]:
    """The first and one after the last key of each query, from a public mask that broadcasts to [..., queries, keys].

    A mask that differs along other dimensions leaves what it leaves anywhere along them.
    """
    if keep is None:
        return [(0, keys)] * queries
    anywhere = keep.expand(*keep.shape[:-1], keys) if keep.ndim > 1 else keep.expand(1, keys)
    anywhere = anywhere.reshape(-1, *anywhere.shape[-2:]).any(0).long()
    first, last = anywhere.argmax(-1).tolist(), (keys - anywhere.flip(-1).argmax(-1)).tolist()
    found = list(zip(first, last, strict=True))
    return found if len(found) == queries else found * queries


def hull(tiles: Sequence[Tile]) -> Tile:
    """The smallest rectangle around tiles that follow each other."""
    keys = min(t.keys[0] for t in tiles), max(t.keys[1] for t in tiles)
    return Tile((tiles[0].rows[0], tiles[-1].rows[1]), keys)


def tiles(spans: Sequence[Span], rows: Span, heads: int, worth: float) -> list[Tile]:
    """These rows as rectangles, cut in halves for as long as a cut saves `worth` scores of all heads together."""
    whole = _around(spans, rows)
    middle = sum(rows) // 2
    if rows[0] < middle < rows[1]:
        halves = (rows[0], middle), (middle, rows[1])
        if heads * (whole.area - sum(_around(spans, half).area for half in halves)) >= worth:
            return [tile for half in halves for tile in tiles(spans, half, heads, worth)]
    return [whole]


def _around(spans: Sequence[Span], rows: Span) -> Tile:
    inside = spans[rows[0] : rows[1]]
    return Tile(rows, (min(first for first, _ in inside), max(last for _, last in inside)))


def chunks(spans: Sequence[Span], heads: int, most: int, worth: float) -> list[list[Tile]]:
    """All rows as the fewest chunks of about equal work with at most `most` scores each, or of one row."""
    count = max(1, math.ceil(heads * sum(last - first for first, last in spans) / most))
    while True:
        made = [tiles(spans, rows, heads, worth) for rows in pairwise(_edges(spans, min(count, len(spans))))]
        if count >= len(spans) or all(heads * sum(t.area for t in chunk) <= most for chunk in made):
            return made
        count += 1


def _edges(spans: Sequence[Span], count: int) -> list[int]:
    """0, ..., len(spans): where `count` chunks of at least a row begin and end."""
    done = [0, *accumulate(last - first for first, last in spans)]
    edges = [0]
    for chunk in range(1, count):
        row = next(i for i, work in enumerate(done) if work * count >= done[-1] * chunk)
        edges.append(min(max(row, edges[-1] + 1), len(spans) - count + chunk))
    return [*edges, len(spans)]
