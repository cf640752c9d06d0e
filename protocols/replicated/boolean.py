"""Bit planes: XOR and NOT without a message, AND for one bit a party.

A boolean sharing is b = b_0 ^ b_1 ^ b_2, party i holds (b_i, b_{i+1}), packed as in `hush.mpc.secret.SharedBits`. Bits
past the last element of a plane are arbitrary; they travel under the same masks as all others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hush.mpc.errors import ShapeError
from hush.mpc.secret import SharedBits
from hush.mpc.step import Round, Spec, Step
from hush.protocols.replicated.party import Party

Parts = tuple[Tensor, Tensor]
"""A party's two components of planes, int64 [planes, words] each."""


def xor(a: SharedBits, b: SharedBits) -> SharedBits:
    """a ^ b, local; planes equal, or one of them a single plane."""
    _check(a, b)
    return SharedBits(xor_parts(_pair(a), _pair(b)), a.shape)


def invert(party: Party, a: SharedBits) -> SharedBits:
    """~a, local: component 0 is inverted by the two parties that hold it."""
    return SharedBits(invert_parts(party, _pair(a)), a.shape)


def both(party: Party, a: SharedBits, b: SharedBits) -> Step[SharedBits]:
    """a & b; planes equal, or one of them a single plane. As `and_parts`: 1 round, 3 bits an AND in all, exact."""
    _check(a, b)
    parts = yield from and_parts(party, _pair(a), _pair(b))
    return SharedBits(parts, a.shape)


def and_parts(party: Party, a: Parts, b: Parts) -> Step[Parts]:
    """Parts of a & b (Araki et al., CCS 2016), planes broadcast.

    1. Party i forms a_i b_i ^ a_i b_{i+1} ^ a_{i+1} b_i, masks it by a share of zero (two draws from its two keys) and
       sends it to party i-1: that is component i of the product.

    Views: party i sees component i+1, masked by the key of the other two. Rounds 1; bits 3 an AND in all, one a party;
    exact; no leakage.
    """
    own = (a[0] & (b[0] ^ b[1])).bitwise_xor_(a[1] & b[0])
    planes, words = own.shape
    own.bitwise_xor_(party.with_next.planes(planes, words)).bitwise_xor_(party.with_prev.planes(planes, words))
    got = yield Round(to_prev=(own,), from_next=(Spec((planes, words), torch.int64),))
    return own, got.from_next[0]


def all_planes(party: Party, a: Parts) -> Step[Parts]:
    """The AND of all planes, as one plane: a balanced tree of `and_parts`, ceil(log2 planes) rounds."""
    while (planes := a[0].shape[0]) > 1:
        half = planes // 2
        paired = yield from and_parts(party, (a[0][:half], a[1][:half]), (a[0][half : 2 * half], a[1][half : 2 * half]))
        a = paired if planes == 2 * half else join_parts([paired, (a[0][2 * half :], a[1][2 * half :])])
    return a


def xor_parts(a: Parts, b: Parts) -> Parts:
    """Parts of a ^ b."""
    return a[0] ^ b[0], a[1] ^ b[1]


def invert_parts(party: Party, a: Parts) -> Parts:
    """Parts of ~a: party 0 holds component 0 as its part 0, party 2 as its part 1."""
    return (~a[0] if party.index == 0 else a[0]), (~a[1] if party.index == 2 else a[1])


def join_parts(values: list[Parts], dim: int = 0) -> Parts:
    """Planes one above the other (dim 0), or words side by side (dim 1)."""
    if len(values) == 1:
        return values[0]
    return torch.cat([v[0] for v in values], dim), torch.cat([v[1] for v in values], dim)


def _pair(a: SharedBits) -> Parts:
    first, second = a.parts
    return first, second


def _check(a: SharedBits, b: SharedBits) -> None:
    if a.shape != b.shape:
        raise ShapeError(
            f"bits of shape {tuple(a.shape)} and {tuple(b.shape)}: expand the values before comparing them"
        )
    if a.planes != b.planes and 1 not in (a.planes, b.planes):
        raise ShapeError(f"bit strings of {a.planes} and {b.planes} planes: equal counts, or one plane, go together")
