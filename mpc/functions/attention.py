"""Attention: softmax(scores + mask) @ values, in chunks of queries, so that only so many scores exist at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hush.mpc.beside import beside
from hush.mpc.functions import chunks, softmax
from hush.mpc.functions import tiles as plan
from hush.mpc.functions.chunks import cut
from hush.mpc.functions.masks import Rows
from hush.mpc.functions.scores import Given, Scores
from hush.mpc.functions.softmax import Masked, exponentials, invert_sums
from hush.mpc.functions.tiles import Tile
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared, concat
from hush.mpc.step import Step, together

_INVERSE_BITS = 10
"""Fraction bits of 1/sum beyond the result's: flat rows of 2048 entries keep 2^-17 of a value."""


def attend(
    p: Protocol,
    scores: Scores | Shared,
    values: Shared,
    *,
    bound: float,
    value_bound: float,
    approx: str = "default",
    mask: Tensor | None = None,
) -> Step[Shared]:
    """softmax(scores + mask) @ values at scores.frac: scores [..., T, S], |scores| <= bound; values [..., S, D].

    Where more scores count than there are results, exp(scores - m) @ values comes first, and only its T x D outputs are
    multiplied by 1/sum, which is found during the product: fewer products and fewer rounds than softmax with a matrix
    product after it. |values| <= value_bound, with 1.22 * S * value_bound below 2^(61 - 2 frac) (2^25 at f=18), else
    softmax comes first. Masks and outside as `softmax`; error: that of `softmax` times the |values| it falls on, and 2
    units.
    Chunks of queries with at most `chunks.MOST` scores run one after the other, and each takes the rounds again: 12
    heads of 418 queries and keys, or of 557 under a causal mask, fit one. Keys that a public mask takes from all
    queries of a chunk are not multiplied, nor, where that saves enough (`tiles.WORTH`), those it takes from some.
    """
    work = scores if isinstance(scores, Scores) else Given(scores)
    return (yield from _in_chunks(p, work, values, mask, Limits(bound, value_bound, approx)))


def _in_chunks(p: Protocol, scores: Scores, values: Shared, mask: Tensor | None, limits: Limits) -> Step[Shared]:
    """Chunk after chunk."""
    shape = scores.shape
    heads = math.prod(shape[:-2])
    if heads > 1 and heads * shape[-1] > chunks.MOST:
        return (yield from _by_heads(p, scores, values, mask, limits))
    spans = plan.spans(softmax.kept(mask, limits.bound), *shape[-2:])
    alike = mask is None or max(mask.shape[:-2], default=1) == 1  # one mask for all heads
    results = []
    for tiles in plan.chunks(spans, heads, chunks.MOST, plan.WORTH if alike else math.inf):
        results.append((yield from _attend(p, scores, values, Chunk.of(shape, tiles, mask, limits.bound), limits)))
    return results[0] if len(results) == 1 else concat(results, -2)


def _by_heads(p: Protocol, scores: Scores, values: Shared, mask: Tensor | None, limits: Limits) -> Step[Shared]:
    """The first leading dimension in pieces: one query of all heads has more scores than a chunk may have."""
    shape = scores.shape
    dim = next(i for i in range(-len(shape), -2) if shape[i] > 1)
    each = max(1, shape[dim] * chunks.MOST // (math.prod(shape[:-2]) * shape[-1]))
    results = []
    for start in range(0, shape[dim], each):
        span = (start, min(start + each, shape[dim]))
        own = None if mask is None else cut(mask, dim, *span)
        results.append((yield from _in_chunks(p, scores.part(dim, span), cut(values, dim, *span), own, limits)))
    return concat(results, dim)


@dataclass(frozen=True, slots=True)
class Limits:
    """What is promised of the operands, and the approximation set."""

    bound: float
    value_bound: float
    approx: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of the scores as tiles, and the entries of theirs that a mask leaves, laid one after the other.

    `places`: the flat places of each tile's entries in it, if there are several tiles.
    """

    shape: torch.Size
    box: Tile
    tiles: Sequence[Tile]
    masked: Masked
    places: Sequence[Tensor]

    @classmethod
    def of(cls, shape: torch.Size, tiles: Sequence[Tile], mask: Tensor | None, bound: float) -> Chunk:
        """The chunk of scores of a shape that some tiles make."""
        box = plan.hull(tiles)
        own = torch.Size((*shape[:-2], box.height, box.width))
        near = None if mask is None else cut(cut(mask, -2, *box.rows), -1, *box.keys)
        masked = Masked.of(own, near, bound)
        places = _places(masked.rows, box, tiles) if isinstance(masked.rows, Rows) and len(tiles) > 1 else ()
        return cls(own, box, tiles, masked, places)

    def collect(self, p: Protocol, found: Sequence[Shared]) -> Shared:
        """The entries that count, with their offsets, from the scores of each tile."""
        if len(found) == 1:
            return self.masked.enter(p, found[0])
        flat = [x.reshape(-1, tile.area) for x, tile in zip(found, self.tiles, strict=True)]
        entries = [_gather(x, at) for x, at in zip(flat, self.places, strict=True)]
        return self.masked.shift(p, concat(entries, -1))

    def matrices(self, entries: Shared) -> list[Shared]:
        """The reverse: the entries as a matrix for each tile, 0 where masked."""
        if len(self.tiles) == 1:
            return [self.masked.rows.scatter(entries).reshape(*self.shape)]
        found, start = [], 0
        for tile, at in zip(self.tiles, self.places, strict=True):
            own, start = entries[:, start : start + len(at)], start + len(at)
            flat = _scatter(own, at, tile.area)
            found.append(flat.reshape(*self.shape[:-2], tile.height, tile.width))
        return found


def _places(rows: Rows, box: Tile, tiles: Sequence[Tile]) -> list[Tensor]:
    """Of each tile, the flat places of the entries of its rows that count; `rows` are those of the box."""
    ends, start, found = rows.lengths.cumsum(0), 0, []
    for tile in tiles:
        stop = int(ends[tile.rows[1] - box.rows[0] - 1])
        row, key = rows.kept[start:stop] // box.width + box.rows[0], rows.kept[start:stop] % box.width + box.keys[0]
        found.append((row - tile.rows[0]) * tile.width + key - tile.keys[0])
        start = stop
    return found


def _gather(x: Shared, places: Tensor) -> Shared:
    """[L, K]: the entries at places of the last dimension."""
    return x[:, places]


def _scatter(x: Shared, places: Tensor, size: int) -> Shared:
    """The reverse: [L, size], 0 elsewhere."""
    own = beside(places, x.device)
    return x.local(lambda t: t.new_zeros(t.shape[0], size).index_copy_(1, own, t))


def _attend(p: Protocol, scores: Scores, values: Shared, chunk: Chunk, limits: Limits) -> Step[Shared]:
    """One chunk's results."""
    found = yield from together(*(scores.tile(p, tile) for tile in chunk.tiles))
    entries = chunk.collect(p, found)
    del found
    f, rows, approx = scores.frac, chunk.masked.rows, limits.approx
    late = entries.numel > _results(chunk, values) and _fits(chunk, values, f, limits, softmax.most(p.schedule))
    _, powers, total = yield from exponentials(p, entries, chunk.masked, approx)
    del entries
    if late:
        fine = min(f + _INVERSE_BITS, 60 - f - math.ceil(math.log2(limits.value_bound)))
        mixed, inverse = yield from together(
            _weigh(p, chunk, powers, values, f), invert_sums(p, total, rows.longest, frac=fine, approx=approx)
        )
        return (yield from p.mul(mixed, rows.per_row(inverse, chunk.shape), frac=f))
    fine = f if approx == "puma" else f + softmax.SPARE_BITS
    inverse = yield from invert_sums(p, total, rows.longest, frac=fine, approx=approx)
    shares = yield from p.mul(powers, rows.spread(inverse), frac=f)
    return (yield from _weigh(p, chunk, shares, values, f))


def _weigh(p: Protocol, chunk: Chunk, entries: Shared, values: Shared, frac: int) -> Step[Shared]:
    """The entries, as matrices, times the values of their keys."""
    pairs = zip(chunk.matrices(entries), chunk.tiles, strict=True)
    mixed = yield from together(*(p.matmul(m, cut(values, -2, *tile.keys), frac=frac) for m, tile in pairs))
    return mixed[0] if len(mixed) == 1 else concat(list(mixed), -2)


def _results(chunk: Chunk, values: Shared) -> int:
    """How many numbers the product with the values has, which may broadcast."""
    lead = np.broadcast_shapes(chunk.shape[:-2], values.shape[:-2])
    return math.prod((*lead, chunk.box.height, values.shape[-1]))


def _fits(chunk: Chunk, values: Shared, frac: int, limits: Limits, most: float) -> bool:
    """Whether sums of values that are not divided yet stay within the ring."""
    return math.log2(most * chunk.box.width * limits.value_bound) + frac + values.frac < 61
