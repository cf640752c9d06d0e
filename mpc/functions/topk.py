"""The k-th largest of very many secrets: blocks of K are sorted, sorted blocks merged in pairs, K of each pair kept."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from hush.mpc.beside import row
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared, concat
from hush.mpc.step import Step

Pairs = list[tuple[int, int]]


def kth_largest(p: Protocol, x: Shared, k: int, *, bound: float) -> Step[Shared]:
    """[..., 1]: the k-th largest entry of the last dimension, |x| <= bound; always one of the entries.

    1. Entries are cut into blocks of K, the power of two from k on (the last one filled with -bound), and sorted by
       Batcher's odd-even merge sort: log2(K) (log2(K) + 1) / 2 layers of comparisons and selections.
    2. While there are two blocks or more: of two sorted ones, the K larger entries are the larger of a_i and
       b_(K-1-i) [Batcher 1968]; they are bitonic, and log2(K) layers sort them.

    About n (log2(K)^2 / 4 + log2(K) / 2 + 1) comparisons for n entries; rounds: those of a comparison and a selection,
    (log2(K) (log2(K) + 1) / 2 + (log2(K) + 1) log2(n / K)) times. Which entries meet depends on n and k alone.
    """
    n = x.shape[-1]
    if not 0 < k <= n:
        raise ValueError(f"the {k}. largest of {n} entries does not exist")
    size = 1 << (k - 1).bit_length()
    lead, missing = tuple(x.shape[:-1]), -n % size
    if missing:
        fill = p.constant(torch.full((), -bound), frac=x.frac, ring=x.ring).expand(*lead, missing)
        x = concat([x, fill], -1)
    blocks = x.reshape(*lead, -1, size)
    for layer in odd_even_layers(size):
        blocks = yield from _exchange(p, blocks, layer, bound)
    while (count := blocks.shape[-2]) > 1:
        half = count // 2
        blocks = yield from _merged(p, blocks, half, bound)
    return blocks[..., 0, k - 1 : k]


def odd_even_layers(size: int) -> Iterator[Pairs]:
    """Layers of pairs (i, j), i < j, whose larger entry goes to i: they sort `size` entries, a power of two."""
    p = 1
    while p < size:
        k = p
        while k >= 1:
            starts = range(k % p, size - k, 2 * k)
            yield [
                (i + j, i + j + k)
                for j in starts
                for i in range(min(k, size - j - k))
                if (i + j) // (2 * p) == (i + j + k) // (2 * p)
            ]
            k //= 2
        p *= 2


def bitonic_layers(size: int) -> Iterator[Pairs]:
    """Layers of pairs that sort a bitonic sequence."""
    step = size // 2
    while step:
        yield [(i, i + step) for i in range(size) if not i & step]
        step //= 2


def _merged(p: Protocol, blocks: Shared, half: int, bound: float) -> Step[Shared]:
    """Half as many sorted blocks of the larger entries; an odd one out waits."""
    size = blocks.shape[-1]
    first, second = blocks[..., :half, :], blocks[..., half : 2 * half, :].local(lambda t: t.flip(-1))
    gap = p.sub(second, first)
    less = yield from p.negative(p.neg(gap), bound=2 * bound)
    won = p.add(first, (yield from p.select(less, gap)))
    for layer in bitonic_layers(size):
        won = yield from _exchange(p, won, layer, bound)
    return concat([won, blocks[..., 2 * half :, :]], -2) if blocks.shape[-2] % 2 else won


def _exchange(p: Protocol, x: Shared, layer: Pairs, bound: float) -> Step[Shared]:
    """x with the larger entry of each pair at its first place, the smaller at the second."""
    if not layer:
        return x
    first, second = (row(places, x.device) for places in zip(*layer, strict=True))
    high, low = x[..., first], x[..., second]
    gap = p.sub(low, high)
    less = yield from p.negative(p.neg(gap), bound=2 * bound)
    rise = yield from p.select(less, gap)
    return _placed(_placed(x, p.add(high, rise), first), p.sub(low, rise), second)


def _placed(x: Shared, new: Shared, where: torch.Tensor) -> Shared:
    parts = tuple(t.clone().index_copy_(-1, where, n) for t, n in zip(x.parts, new.parts, strict=True))
    return Shared(parts, x.frac, x.ring)
