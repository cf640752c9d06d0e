"""Rows in an order that no party knows.

The order is the composition of three, each drawn by one pair of parties from its key: every party lacks one of them.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hush.mpc.errors import ShapeError
from hush.mpc.prg import Randomness
from hush.mpc.ring import RING64, Ring
from hush.mpc.secret import Shared
from hush.mpc.step import Round, Step
from hush.protocols.replicated import wire
from hush.protocols.replicated.opening import open_all
from hush.protocols.replicated.pairs import share_sum
from hush.protocols.replicated.party import Party


def draw_order(stream: Randomness, rows: int) -> Tensor:
    """A permutation [rows] drawn alike by both holders: the order of `rows` uniform 64-bit keys, ties by index.

    Uniform given that the keys differ, so within rows^2 / 2^65 of uniform in statistical distance (2^-33 at 2^16 rows).
    """
    return torch.argsort(stream.elements((rows,), RING64), stable=True)


def shuffle(party: Party, x: Shared) -> Step[Shared]:
    """The rows of x (dimension 0) in a uniformly random order that no party knows.

    x is held by two parties at a time, as a sum of two terms; they put the rows in an order of theirs, mask the terms
    against each other (R, R' from the pair's key), and one hands its term to the third party.

    1. P0 (x_0 + x_1) and P1 (x_2) order by k_01. P0 -> P2: its term + R.
    2. P2 and P1 (its term - R) order by k_12. P1 -> P0: its term - R'.
    3. P2 (its term + R') and P0 order by k_20 and share the sum (`pairs.share_sum` between P2 and P0).

    Views: P2 sees a term masked by k_01 and one masked by k_01 again; P0 sees one masked by k_12, and in the end one
    masked by k_12; P1 sees nothing. Each lacks one order entirely. Rounds 3 (depth 2); bits 4k an element in all;
    exact; the order is within 3 rows^2 / 2^65 of uniform (`draw_order`). After Laur, Willemson, Zhang (ISC 2011) and
    Araki et al. (CCS 2021), with replicated input and output.
    """
    if x.ndim == 0:
        raise ShapeError("a single number has no rows to shuffle: give the value a dimension 0")
    flat = yield from _orders(party, x, x.ring)
    return replace(x, parts=tuple(part.reshape(x.shape) for part in flat))


def _orders(party: Party, x: Shared, ring: Ring) -> Step[tuple[Tensor, Tensor]]:
    if party.index == 0:
        return (yield from _order_0(party, x, ring))
    if party.index == 1:
        return (yield from _order_1(party, x, ring))
    return (yield from _order_2(party, x, ring))


def _order_0(party: Party, x: Shared, ring: Ring) -> Step[tuple[Tensor, Tensor]]:
    n, kernels = x.numel, party.kernels
    order = draw_order(party.with_next, x.shape[0])
    mask = party.with_next.elements((n,), ring)
    term = ring.reduce((x.parts[0] + x.parts[1])[order].reshape(-1) + mask)
    yield Round(to_prev=(wire.pack(kernels, term, ring),))
    got = yield Round(from_next=(wire.spec(n, ring),))
    term = wire.unpack(kernels, got.from_next[0], n, ring).reshape(x.shape)
    term = term[draw_order(party.with_prev, x.shape[0])].reshape(-1)
    return (yield from share_sum(party, 2, term, n, ring))


def _order_1(party: Party, x: Shared, ring: Ring) -> Step[tuple[Tensor, Tensor]]:
    n = x.numel
    order = draw_order(party.with_prev, x.shape[0])
    mask = party.with_prev.elements((n,), ring)
    term = x.parts[1][order].reshape(-1) - mask
    yield Round()
    order = draw_order(party.with_next, x.shape[0])
    mask = party.with_next.elements((n,), ring)
    term = ring.reduce(term.reshape(x.shape)[order].reshape(-1) - mask)
    yield Round(to_prev=(wire.pack(party.kernels, term, ring),))
    return (yield from share_sum(party, 0, None, n, ring))


def _order_2(party: Party, x: Shared, ring: Ring) -> Step[tuple[Tensor, Tensor]]:
    n, kernels = x.numel, party.kernels
    got = yield Round(from_next=(wire.spec(n, ring),))
    order = draw_order(party.with_prev, x.shape[0])
    mask = party.with_prev.elements((n,), ring)
    term = wire.unpack(kernels, got.from_next[0], n, ring).reshape(x.shape)[order].reshape(-1) + mask
    yield Round()
    term = ring.reduce(term.reshape(x.shape)[draw_order(party.with_next, x.shape[0])].reshape(-1))
    return (yield from share_sum(party, 1, term, n, ring))


def permute(party: Party, x: Shared, places: Shared) -> Step[Shared]:
    """Row i of x goes to row places[i], for a secret permutation `places` [rows] of integers 0 .. rows-1.

    1-3. Rows and places are shuffled together, places as one more column.
    4. The shuffled places are opened, and the rows put there, locally.

    Views: shuffle's, and a uniformly random order, which tells nothing about `places` as long as it is a permutation
    (otherwise its multiset of values is revealed). Rounds 4, depth 3; bits 4k an element and 7k a row in all; exact.
    """
    rows = x.shape[0] if x.ndim else 0
    if places.shape != (rows,) or places.ring != x.ring:
        raise ShapeError(
            f"permute takes one place a row in the value's ring, not {places!r} for {tuple(x.shape)} in 2^{x.ring.bits}"
        )
    joined = tuple(
        torch.cat([value.reshape(rows, x.shape[1:].numel()), place[:, None]], 1)
        for value, place in zip(x.parts, places.parts, strict=True)
    )
    mixed = yield from shuffle(party, replace(x, parts=joined))
    opened = yield from open_all(party, mixed.local(lambda t: t[:, -1]))
    source = torch.argsort(opened)
    return mixed.local(lambda t: t[:, :-1][source].reshape(x.shape))
