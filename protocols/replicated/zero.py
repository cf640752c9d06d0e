"""Zero shares and resharing (Araki et al., CCS 2016, section 2)."""

from __future__ import annotations

from torch import Tensor

from hush.mpc.ring import Ring
from hush.mpc.step import Round, Step
from hush.protocols.replicated import wire
from hush.protocols.replicated.party import Party


def zero(party: Party, numel: int, ring: Ring) -> Tensor:
    """This party's summand [n] of a fresh random sharing of 0: F(k_{i,i+1}) - F(k_{i-1,i}). No message."""
    shape = (numel,)
    return ring.settle(party.with_next.elements(shape, ring) - party.with_prev.elements(shape, ring))


def reshare(party: Party, additive: Tensor, ring: Ring) -> Step[tuple[Tensor, Tensor]]:
    """From summands a_0 + a_1 + a_2 (party i knows a_i) to replicated parts.

    1. x_i = a_i + zero share; party i sends x_i to party i-1.

    Views: party i sees x_{i+1}, masked by a key it lacks; uniform. Rounds 1; bits 3k an element in all; exact; no
    leakage.
    """
    flat = additive.reshape(-1)
    own, following = yield from pass_on(party, ring.settle(flat + zero(party, flat.numel(), ring)), ring)
    return own.reshape(additive.shape), following.reshape(additive.shape)


def pass_on(party: Party, own: Tensor, ring: Ring) -> Step[tuple[Tensor, Tensor]]:
    """Flat parts (x_i, x_{i+1}) from components x_i [n] that party i has made, masked so that party i-1 may see them.

    1. Party i sends x_i to party i-1. Rounds 1; bits 3k an element in all.
    """
    awaited = wire.spec(own.numel(), ring)
    got = yield Round(to_prev=(wire.pack(party.kernels, own, ring),), from_next=(awaited,))
    return own, wire.unpack(party.kernels, got.from_next[0], own.numel(), ring)
