"""Order of secrets: largest and smallest along a dimension, their place, one-hot vectors of secret integers."""

from __future__ import annotations

import torch

from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared, SharedBits, concat
from hush.mpc.step import Step, together


def larger(p: Protocol, a: Shared, b: Shared, *, bound: float, drop: int = 0) -> Step[Shared]:
    """max(a, b) elementwise, |a|, |b| <= bound; one of the two always, the smaller only within 2^drop units."""
    gap = p.sub(b, a)
    less = yield from p.negative(p.neg(gap), bound=2 * bound, drop=drop)
    return p.add(a, (yield from p.select(less, gap)))


def maximum(
    p: Protocol, x: Shared, dim: int = -1, *, bound: float, drop: int = 0, keepdim: bool = False
) -> Step[Shared]:
    """max(x) along `dim`, |x| <= bound: always an entry of x.

    A tournament: n - 1 comparisons and selections, in ceil(log2 n) levels; an odd one out waits for the next level.
    With drop > 0 the result may lie below the maximum by `levels` times 2^drop units, and comparisons are `drop` bits
    narrower.
    """
    values = x.local(lambda t: t.movedim(dim, -1))
    while values.shape[-1] > 1:
        half = values.shape[-1] // 2
        won = yield from larger(p, values[..., :half], values[..., half : 2 * half], bound=bound, drop=drop)
        values = concat([won, values[..., 2 * half :]], -1) if values.shape[-1] % 2 else won
    return values.local(lambda t: t.movedim(-1, dim)) if keepdim else values[..., 0]


def minimum(
    p: Protocol, x: Shared, dim: int = -1, *, bound: float, drop: int = 0, keepdim: bool = False
) -> Step[Shared]:
    """min(x) along `dim`: `maximum` of -x."""
    return p.neg((yield from maximum(p, p.neg(x), dim, bound=bound, drop=drop, keepdim=keepdim)))


def argmax(p: Protocol, x: Shared, dim: int = -1, *, bound: float) -> Step[Shared]:
    """Index (frac 0) of the largest entry along `dim`; the FIRST one where several are equal."""
    return (yield from first_largest(p, x, dim, bound=bound))[1]


def first_largest(p: Protocol, x: Shared, dim: int = -1, *, bound: float) -> Step[tuple[Shared, Shared]]:
    """The largest entry along `dim`, |x| <= bound, and its index (frac 0); the FIRST one where several are equal.

    The tournament carries indices with the values: neighbours meet, and the later one must be strictly larger.
    Rounds of `maximum` at drop 0; one more selection per comparison.
    """
    values = x.local(lambda t: t.movedim(dim, -1))
    places = p.constant(torch.arange(values.shape[-1], device=x.device), frac=0, ring=x.ring).expand(*values.shape)
    while values.shape[-1] > 1:
        values, places = yield from _meet(p, values, places, bound)
    return values[..., 0], places[..., 0]


def _meet(p: Protocol, values: Shared, places: Shared, bound: float) -> Step[tuple[Shared, Shared]]:
    """One level of `argmax`: entries 2i and 2i + 1 meet, a tie goes to the first."""
    even = values.shape[-1] // 2 * 2
    first, second = values[..., 0:even:2], values[..., 1:even:2]
    gap = p.sub(second, first)
    less = yield from p.negative(p.neg(gap), bound=2 * bound)
    ahead = p.sub(places[..., 1:even:2], places[..., 0:even:2])
    rise, step = yield from together(p.select(less, gap), p.select(less, ahead))
    won, place = p.add(first, rise), p.add(places[..., 0:even:2], step)
    if values.shape[-1] % 2:
        won, place = concat([won, values[..., even:]], -1), concat([place, places[..., even:]], -1)
    return won, place


def argmax_one_hot(p: Protocol, x: Shared, dim: int = -1, *, bound: float) -> Step[Shared]:
    """One-hot vector (frac 0, along the last dimension) of `argmax`: one entry is 1, the first of equal ones."""
    place = yield from argmax(p, x, dim, bound=bound)
    return (yield from one_hot(p, place, x.shape[dim]))


def one_hot(p: Protocol, ids: Shared, classes: int) -> Step[Shared]:
    """[*ids.shape, classes] (frac 0): 1 where the secret integer equals the class; all 0 beyond 0..classes-1.

    Equality with every class, as PUMA's embedding has it: `classes` is_zero tests and one-bit conversions per id.
    """
    candidates = torch.arange(classes, device=ids.device)
    return (yield from equals(p, ids.reshape(*ids.shape, 1), candidates, bound=float(classes)))


def equals(p: Protocol, ids: Shared, candidates: torch.Tensor, *, bound: float) -> Step[Shared]:
    """[ids == candidates], broadcast, as integers 0 or 1; secret integers (frac 0), |ids - candidates| <= bound."""
    gap = p.add_public(ids, -candidates)
    found: SharedBits = yield from p.is_zero(gap, bound=bound)
    return (yield from p.from_bits(found, ring=ids.ring))[0]


def top_k_mask(p: Protocol, x: Shared, k: int, *, bound: float) -> Step[Shared]:
    """[..., n] (frac 0): 1 for the k largest entries of the last dimension, exactly k of them, earlier entries first.

    The ranks, then one comparison of each with k.
    """
    _check_top(k, x.shape[-1])
    rank = yield from ranks(p, x, bound=bound)
    inside = yield from p.negative(p.add_public(rank, -k), bound=float(x.shape[-1]))
    return (yield from p.from_bits(inside, ring=x.ring))[0]


def top(p: Protocol, x: Shared, k: int, *, bound: float) -> Step[tuple[Shared, Shared]]:
    """The k largest entries of the last dimension, largest first, and their indices (frac 0); earlier ones first.

    The ranks, k equality tests of each, one exact product.
    """
    n = x.shape[-1]
    _check_top(k, n)
    rank = yield from ranks(p, x, bound=bound)
    chosen = yield from equals(p, rank.reshape(*rank.shape[:-1], 1, n), torch.arange(k).reshape(k, 1), bound=float(n))
    values = yield from p.matmul(chosen, x.reshape(*x.shape, 1), frac=x.frac)
    return values[..., 0], p.matmul_int(chosen, torch.arange(n).reshape(n, 1))[..., 0]


def _check_top(k: int, n: int) -> None:
    if not 0 < k <= n:
        raise ValueError(f"top {k} of {n} entries does not exist")


def ranks(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """[..., n] (frac 0): how many entries of the last dimension are larger, or as large and earlier; |x| <= bound.

    All pairs: n(n-1)/2 exact comparisons in the rounds of one.
    """
    n = x.shape[-1]
    earlier, later = torch.triu_indices(n, n, 1, device=x.device)
    gap = p.sub(x[..., earlier], x[..., later])
    behind = (yield from p.from_bits((yield from p.negative(gap, bound=2 * bound)), ring=x.ring))[0]
    # entry i is beaten by an earlier one unless that one is smaller, and by a later one that is larger
    beaten = torch.zeros(len(earlier), n, dtype=torch.int64, device=x.device)
    pair = torch.arange(len(earlier), device=x.device)
    beaten[pair, earlier], beaten[pair, later] = 1, -1
    counted = p.matmul_int(behind.reshape(-1, len(earlier)), beaten)
    return p.add_public(counted, torch.arange(n)).reshape(*x.shape)
