"""What one party brings to a protocol step: its place on the ring of three and its randomness."""

from __future__ import annotations

from dataclasses import dataclass

from hush.mpc.prg import Randomness
from hush.mpc.ring.kernels import Kernels


@dataclass(slots=True, repr=False)
class Party:
    """Party `index` of three. `with_next` is the stream it shares with party i+1, `with_prev` with party i-1.

    Law of draws: both holders of a stream draw from it in the same order and with the same sizes, in every step.
    """

    index: int
    with_next: Randomness
    with_prev: Randomness
    kernels: Kernels

    def role(self, rotation: int) -> int:
        """The part this party plays when role 0 is played by party `rotation` (mod 3)."""
        return (self.index - rotation) % 3

    def __repr__(self) -> str:
        return f"Party({self.index})"
