"""Dealing a tensor to the three parties, and putting outputs together: the client's and the provider's side.

x = c_0 + c_1 + c_2. c_0 and c_1 are keystreams of fresh 256-bit seeds from the system's generator, c_2 = x - c_0 - c_1.
P0 gets seeds 0 and 1, P1 seed 1 and c_2, P2 c_2 and seed 0: 16 bytes an element at k = 64 for all three instead of 48.
A seed serves one tensor in one dealing, never again: another tensor under it would give P1 and P2 the difference.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hush.mpc.errors import ProtocolError, ShapeError
from hush.mpc.prg import KEY_BYTES, Stream, nonce
from hush.mpc.ring import Ring
from hush.mpc.ring.seeded import Seeded
from hush.mpc.secret import Shared

SEED_DOMAIN = 0x5EED  # keeps these keystreams apart from the sessions' (domain 0), whatever the keys
Component = bytes | Tensor


@dataclass(frozen=True, slots=True, repr=False)
class Dealt:
    """What one party receives of a tensor: for each of its two components a seed, or the elements."""

    components: tuple[Component, Component]
    shape: tuple[int, ...]
    frac: int
    ring: Ring

    @property
    def nbytes(self) -> int:
        """Bytes of seeds and elements."""
        return sum(len(c) if isinstance(c, bytes) else c.numel() * c.element_size() for c in self.components)

    def __repr__(self) -> str:
        return f"Dealt(shape={self.shape}, frac={self.frac}, ring=2^{self.ring.bits})"


def deal(
    elements: Tensor, frac: int, ring: Ring, seeds: tuple[bytes, bytes] | None = None
) -> tuple[Dealt, Dealt, Dealt]:
    """The three parties' packages of ring elements: any two components are uniform and independent of the value.

    `seeds` only for a dealing that goes on after an interruption: from a fresh secret, and never of another tensor.
    """
    shape = tuple(elements.shape)
    seeds = seeds or (os.urandom(KEY_BYTES), os.urandom(KEY_BYTES))
    rest = ring.reduce(elements) - _keystream(seeds[0], shape, ring)
    rest = ring.reduce(rest.sub_(_keystream(seeds[1], shape, ring)))  # in place: a weight may fill much of the memory
    components: tuple[Component, ...] = (*seeds, rest)
    packages = [Dealt((components[i], components[(i + 1) % 3]), shape, frac, ring) for i in range(3)]
    return packages[0], packages[1], packages[2]


def expand(dealt: Dealt, *, seeded: bool = False) -> Shared:
    """A party's handle of a package. A package of the wrong size is a `ShapeError`.

    `seeded`: components that came as seeds stay seeds until they are used (`hush.mpc.ring.seeded`).
    """
    first, second = (_component(c, dealt, seeded) for c in dealt.components)
    return Shared((first, second), dealt.frac, dealt.ring)


def reconstruct(outputs: Sequence[Shared]) -> Tensor:
    """The ring elements of an output from the handles of parties 0, 1, 2.

    Both copies of every component must be equal: one party that changes its output shares is found (as one of the pair
    that is named, or by name if both of its components differ from its neighbours'). ProtocolError otherwise.
    """
    kinds = {(tuple(o.shape), o.frac, o.ring) for o in outputs}
    if len(outputs) != 3 or len(kinds) != 1:
        raise ProtocolError(f"the parties' outputs are of different kinds: {list(outputs)}")
    disputed = [i for i in range(3) if not torch.equal(outputs[i].parts[0], outputs[(i - 1) % 3].parts[1])]
    if disputed:
        raise ProtocolError(_accuse(disputed))
    return outputs[0].ring.reduce(outputs[0].parts[0] + outputs[1].parts[0] + outputs[2].parts[0])


def _accuse(disputed: Sequence[int]) -> str:
    """Component i is held by parties i and i-1: who disagrees on which."""
    pairs = [{i, (i - 1) % 3} for i in disputed]
    common = set.intersection(*pairs)
    told = ", ".join(f"parties {(i - 1) % 3} and {i} on component {i}" for i in disputed)
    culprit = f"; party {common.pop()} is in all of them" if len(disputed) > 1 and len(common) == 1 else ""
    return f"the copies of an output share differ: {told}{culprit}. The answer cannot be trusted"


def _keystream(seed: bytes, shape: tuple[int, ...], ring: Ring) -> Tensor:
    return Stream(seed, SEED_DOMAIN).elements(shape, ring)


def _component(component: Component, dealt: Dealt, seeded: bool) -> Tensor:
    if isinstance(component, bytes):
        if len(component) != KEY_BYTES:
            raise ShapeError(f"a seed has {KEY_BYTES} bytes, not {len(component)}")
        if seeded:
            return Seeded.of(component, nonce(0, 0, SEED_DOMAIN), dealt.ring, dealt.shape)
        return _keystream(component, dealt.shape, dealt.ring)
    if tuple(component.shape) != dealt.shape or component.dtype != dealt.ring.dtype:
        raise ShapeError(
            f"a component of shape {tuple(component.shape)} and {component.dtype}, "
            f"where {dealt.shape} and {dealt.ring.dtype} were declared"
        )
    return dealt.ring.reduce(component)
