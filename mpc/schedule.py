"""What a round is worth: the price by which a program trades rounds for bits. It is part of the program.

Where a step can be done in fewer rounds with more bits (wider digits in a comparison, larger groups in a maximum, all
thresholds at once instead of one after the other), it is done so if the bits cost less than the rounds. The choice
follows from sizes and the schedule alone, so every party and the cost model make the same one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hush.mpc.errors import UserError


@dataclass(frozen=True, slots=True)
class Schedule:
    """`round_bits`: what a round is worth, in bits that the three parties send in all. `widest_digit`: the widest
    digit, in bits, that is dealt as a thermometer code (2^c - 1 bits), where local work begins to count.
    `longest_fours`: entries of the longest rows whose maximum is sought in groups of four instead of pairs.
    `round_blocks`: what a round is worth in cipher blocks that a party computes, where trees are grown to save it.
    `deals`: whether a party deals unary codes and masks where that saves a round."""

    name: str
    round_bits: int
    widest_digit: int
    longest_fours: int
    round_blocks: int
    deals: bool

    @property
    def few(self) -> int:
        """Elements up to which a round saved is worth 256 bits more for each of them."""
        return self.round_bits >> 8


LAN = Schedule("lan", 1 << 22, 6, 32, 1 << 17, False)
"""0.2 ms on loopback, or 0.4 ms at 5 Gbit/s, roughly; 2^17 blocks take a core as long. So trees are for few numbers:
the norms of one token."""
WAN = Schedule("wan", 1 << 25, 8, 1 << 20, 1 << 22, True)
"""400 Mbit/s and 40 ms there and back: a message takes 20 ms, in which one link carries 8 Mbit. A round uses one link
of each party or both, 24 to 48 Mbit in all; 2^22 blocks take a core 10 to 15 ms."""
UNDEALT = replace(LAN, round_blocks=0)
"""`lan` for protocols whose parties deal nothing: no trees."""
SCHEDULES = {s.name: s for s in (LAN, WAN)}


def named(name: str) -> Schedule:
    """A schedule by name; UserError if there is none of it."""
    if name not in SCHEDULES:
        raise UserError(f"schedule={name!r}: say one of {', '.join(SCHEDULES)}")
    return SCHEDULES[name]
