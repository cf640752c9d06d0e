"""A profile as its client reads it: when each party computed, sent and waited, and the sums of that by operator.

Profiles hold names of ops and layers, sizes and times: no share, and nothing that an input decides. Times are metadata
all the same, so a party gives them only where its configuration says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from hush.mpc.cost import PARTIES
from hush.mpc.errors import AbortReason, PartyError
from hush.proto import party_pb2 as pb

MOST_SPANS = 100_000
"""Spans that a party writes down of one invocation: with its rounds they fit into a message of 2 MiB."""


class Kind(IntEnum):
    """What a party did."""

    COMPUTE = 0  # local steps of an op
    SEND = 1  # a round's messages: packed, handed to the transport, and those that came taken apart
    WAIT_NEXT = 2  # for the next party's message
    WAIT_PREV = 3  # for the previous party's
    COPY = 4  # a round's messages from a GPU to the host, and those that came to the GPU; at no party on the CPU


@dataclass(frozen=True, slots=True)
class Op:
    """All ops of one name in one layer."""

    name: str
    layer: str


def short(op: str) -> str:
    """ "gelu" of "aten.gelu.default", for people."""
    return op.removeprefix("aten.").removeprefix("hush.").removesuffix(".default")


@dataclass(frozen=True, slots=True)
class Span:
    """What a party did from `start`, in nanoseconds since the profile's begin."""

    op: Op
    kind: Kind
    start: int
    ns: int

    @property
    def end(self) -> int:
        """When it was over."""
        return self.start + self.ns


@dataclass(frozen=True, slots=True)
class Exchange:
    """A round at one party: the ops that share it, earliest first, the payload that each sends, the stamp reached."""

    ops: tuple[Op, ...]
    bytes_sent: tuple[int, ...]
    spans: tuple[Span, ...]
    depth: int


@dataclass(frozen=True, slots=True)
class Profile:
    """One party's, of one invocation. `begin`: microseconds since the epoch by its own clock. Spans have no gaps."""

    begin: int
    spans: tuple[Span, ...]
    rounds: tuple[Exchange, ...]
    left_out: int


@dataclass(slots=True)
class Sums:
    """What an operator took in all layers: mean seconds of a party, payload bytes of each, rounds that count to it."""

    compute: float = 0.0
    send: float = 0.0
    wait: float = 0.0
    copy: float = 0.0
    bytes_sent: list[int] = field(default_factory=lambda: [0] * PARTIES)
    rounds: int = 0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.compute + self.send + self.wait + self.copy

    def add(self, other: Sums) -> None:
        """Take another operator's in."""
        self.compute, self.send = self.compute + other.compute, self.send + other.send
        self.wait, self.copy = self.wait + other.wait, self.copy + other.copy
        self.bytes_sent = [a + b for a, b in zip(self.bytes_sent, other.bytes_sent, strict=True)]
        self.rounds += other.rounds


def parse(party: int, message: pb.Profile) -> Profile:
    """From the wire; PartyError(MALFORMED) if it makes no sense."""
    try:
        return _parsed(message)
    except (ValueError, IndexError):
        raise PartyError(party, AbortReason.MALFORMED, "an unreadable profile") from None


def _parsed(message: pb.Profile) -> Profile:
    ops = [Op(op.name, op.layer) for op in message.ops]
    spans, at = list[Span](), 0
    for op, kind, ns in zip(message.span_ops, message.span_kinds, message.span_ns, strict=True):
        spans.append(Span(ops[op], Kind(kind), at, ns))
        at += ns
    rounds = tuple(_round(row, ops, spans) for row in message.rounds)
    return Profile(message.begin, tuple(spans), rounds, message.left_out)


def _round(row: pb.ProfiledRound, ops: Sequence[Op], spans: Sequence[Span]) -> Exchange:
    if not row.spans or row.first + row.spans > len(spans) or not 0 < len(row.ops) == len(row.bytes_sent):
        raise ValueError("a round without spans or ops")
    shared = tuple(ops[op] for op in row.ops)
    return Exchange(shared, tuple(row.bytes_sent), tuple(spans[row.first : row.first + row.spans]), row.depth)


def by_operator(profiles: Sequence[Profile]) -> dict[str, Sums]:
    """Sums by the name of the op, longest first. They add up: seconds to a party's mean, rounds to the run's.

    A round counts to the earliest op that shares it, and so does its time; bytes to the op that sends them.
    """
    found: dict[str, Sums] = {}
    for party, profile in enumerate(profiles):
        for span in profile.spans:
            sums = found.setdefault(span.op.name, Sums())
            seconds = span.ns / 1e9 / len(profiles)
            sums.compute += seconds if span.kind is Kind.COMPUTE else 0.0
            sums.send += seconds if span.kind is Kind.SEND else 0.0
            sums.wait += seconds if span.kind in (Kind.WAIT_NEXT, Kind.WAIT_PREV) else 0.0
            sums.copy += seconds if span.kind is Kind.COPY else 0.0
        for exchange in profile.rounds:
            for op, sent in zip(exchange.ops, exchange.bytes_sent, strict=True):
                found.setdefault(op.name, Sums()).bytes_sent[party] += sent
    for op, gained in _gained(profiles):
        found[op.name].rounds += gained
    return dict(sorted(found.items(), key=lambda pair: -pair[1].seconds))


def _gained(profiles: Sequence[Profile]) -> Iterator[tuple[Op, int]]:
    """By how much each exchange lengthens the longest chain of messages, as `hush.parties.report` has it of layers."""
    depth = 0
    for row in zip(*(profile.rounds for profile in profiles), strict=False):
        reached = max(depth, *(exchange.depth for exchange in row))
        yield row[0].ops[0], reached - depth
        depth = reached
