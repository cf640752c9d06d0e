"""Terms that roles 1 and 2 hold and role 0 does not: turned into a replicated sharing by one exchange of two messages.

Values x with a summand known to P0 alone and the rest known to both P1 and P2 are everywhere in comparisons: their
products have terms at P1 and P2 only. The output's components 0 and 1 come from the keys of P0, component 2 is what is
left, which P1 and P2 tell each other under those keys. Two ring elements (or bits) in all, where a general resharing
costs three.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hush.mpc.ring import Ring
from hush.mpc.step import Round, Spec, Step
from hush.protocols.replicated import wire
from hush.protocols.replicated.boolean import Parts
from hush.protocols.replicated.party import Party


def share_sum(party: Party, role: int, term: Tensor | None, numel: int, ring: Ring) -> Step[Parts]:
    """Flat parts [n] of t1 + t2, which roles 1 and 2 hold as `term` (role 0: None).

    y_0 is drawn from k_20, y_1 from k_01, y_2 = t1 + t2 - y_0 - y_1.
    1. P1 -> P2: t1 - y_1. P2 -> P1: t2 - y_0. Both add the two.

    Views: P1 sees t2 - y_0, and lacks k_20; P2 sees t1 - y_1, and lacks k_01; P0 sees nothing. Rounds 1; bits 2k an
    element in all; exact; no leakage.
    """
    shape, kernels = (numel,), party.kernels
    if term is None:
        first, second = party.with_prev.elements(shape, ring), party.with_next.elements(shape, ring)
        yield Round()
        return first, second
    drawn = (party.with_prev if role == 1 else party.with_next).elements(shape, ring)
    own = ring.settle(term - drawn)
    message, spec = (wire.pack(kernels, own, ring),), (wire.spec(numel, ring),)
    if role == 1:
        got = yield Round(to_next=message, from_next=spec)
        return drawn, ring.settle(wire.unpack(kernels, got.from_next[0], numel, ring) + own)
    got = yield Round(to_prev=message, from_prev=spec)
    return ring.settle(wire.unpack(kernels, got.from_prev[0], numel, ring) + own), drawn


def share_xor(party: Party, role: int, term: Tensor | None, planes: int, words: int) -> Step[Parts]:
    """Parts of t1 ^ t2, planes [planes, words] that roles 1 and 2 hold: `share_sum` by XOR, 2 bits a bit in all."""
    if term is None:
        first, second = party.with_prev.planes(planes, words), party.with_next.planes(planes, words)
        yield Round()
        return first, second
    drawn = (party.with_prev if role == 1 else party.with_next).planes(planes, words)
    own, spec = term ^ drawn, (Spec((planes, words), torch.int64),)
    if role == 1:
        got = yield Round(to_next=(own,), from_next=spec)
        return drawn, got.from_next[0] ^ own
    got = yield Round(to_prev=(own,), from_prev=spec)
    return got.from_prev[0] ^ own, drawn
