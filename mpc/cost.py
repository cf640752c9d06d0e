"""What a computation costs: traffic per round, and the totals that a run must match exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

FRAME_HEADER = 16  # bytes before each frame's payload: depth stamp u32, sequence u32, payload length u64
PARTIES = 3

Sent = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Payload bytes of one round: `sent[i] = (to party i+1, to party i-1)`. The cost model's `Exchange`."""

    sent: Sent = ((0, 0), (0, 0), (0, 0))

    @classmethod
    def merge(cls, parts: Sequence[Traffic]) -> Traffic:
        """Rounds that travel together."""
        rows = [(sum(p.sent[i][0] for p in parts), sum(p.sent[i][1] for p in parts)) for i in range(PARTIES)]
        return cls((rows[0], rows[1], rows[2]))

    @classmethod
    def split(cls, parts: Sequence[Traffic], answer: None) -> list[None]:
        """A cost model is answered nothing."""
        return [None] * len(parts)

    def rotate(self, roles: int) -> Traffic:
        """The same round with role 0 played by party `roles`."""
        rows = [self.sent[(i - roles) % PARTIES] for i in range(PARTIES)]
        return Traffic((rows[0], rows[1], rows[2]))


@dataclass(frozen=True, slots=True)
class Cost:
    """Totals of a computation. `bytes_sent` and `messages` are per party, frame headers included: three numbers, or as
    many as a foreign protocol has parties."""

    rounds: int = 0
    bytes_sent: tuple[int, ...] = (0, 0, 0)
    messages: tuple[int, ...] = (0, 0, 0)


@dataclass(slots=True)
class Tally:
    """Adds rounds up as the transport would: one frame per direction with any payload, depth stamps as in a run."""

    stamps: list[int] = field(default_factory=lambda: [0, 0, 0])
    sent: list[int] = field(default_factory=lambda: [0, 0, 0])
    frames: list[int] = field(default_factory=lambda: [0, 0, 0])

    def add(self, traffic: Traffic) -> Self:
        """Account for one round."""
        before = list(self.stamps)
        for party, (to_next, to_prev) in enumerate(traffic.sent):
            for payload, step in ((to_next, 1), (to_prev, -1)):
                if payload:
                    self.sent[party] += payload + FRAME_HEADER
                    self.frames[party] += 1
                    receiver = (party + step) % PARTIES
                    self.stamps[receiver] = max(self.stamps[receiver], before[party] + 1)
        return self

    @property
    def cost(self) -> Cost:
        """The totals so far."""
        b, m = self.sent, self.frames
        return Cost(max(self.stamps), (b[0], b[1], b[2]), (m[0], m[1], m[2]))


def total(rounds: Iterable[Traffic]) -> Cost:
    """Cost of a sequence of rounds."""
    tally = Tally()
    for traffic in rounds:
        tally.add(traffic)
    return tally.cost
