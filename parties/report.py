"""What one inference cost: the parties' reports in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hush.mpc.cost import Cost
from hush.parties import profile
from hush.parties.profile import Profile
from hush.proto.party_pb2 import Report

PerParty = tuple[int, ...]
"""One number a party, in the parties' order: three of them, or two where CrypTen ran the program."""


@dataclass(frozen=True, slots=True)
class LayerReport:
    """A layer's part: bytes and messages per party, depth gained and seconds at the slowest party."""

    name: str
    bytes_sent: PerParty
    messages: PerParty
    rounds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RunReport:
    """One inference, measured. `seconds`: from the first input share sent to the decoded output, at the client.

    `cost` is rounds, bytes and messages as the transport saw them, to be compared with a prediction. `client_bytes`:
    payload between the client and the parties, both ways. `peak_rss`: bytes, of each party's process. `profiles`: one a
    party, if they were asked for.
    """

    seconds: float
    cost: Cost
    client_bytes: int
    party_seconds: tuple[float, ...]
    peak_rss: PerParty
    layers: tuple[LayerReport, ...]
    profiles: tuple[Profile, ...] = ()


def combine(reports: Sequence[Report], seconds: float, client_bytes: int) -> RunReport:
    """One report from those of all parties, in their order."""
    rounds = max(r.depth for r in reports)
    return RunReport(
        seconds=seconds,
        cost=Cost(rounds, tuple(r.bytes_sent for r in reports), tuple(r.messages for r in reports)),
        client_bytes=client_bytes,
        party_seconds=tuple(r.seconds for r in reports),
        peak_rss=tuple(r.peak_rss for r in reports),
        layers=_layers(reports),
        profiles=tuple(profile.parse(i, r.profile) for i, r in enumerate(reports) if r.HasField("profile")),
    )


def _layers(reports: Sequence[Report]) -> tuple[LayerReport, ...]:
    """Rows by name. A piece has as many rounds as the largest of their depth stamps grew by from begin to end."""
    rows: dict[str, LayerReport] = {}
    depth, nothing = 0, (0,) * len(reports)
    for piece in zip(*(r.layers for r in reports), strict=True):
        reached = max(p.depth for p in piece)
        name = piece[0].name
        old = rows.get(name, LayerReport(name, nothing, nothing, 0, 0.0))
        rows[name] = LayerReport(
            name=name,
            bytes_sent=tuple(b + p.bytes_sent for b, p in zip(old.bytes_sent, piece, strict=True)),
            messages=tuple(m + p.messages for m, p in zip(old.messages, piece, strict=True)),
            rounds=old.rounds + reached - depth,
            seconds=old.seconds + max(p.seconds for p in piece),
        )
        depth = reached
    return tuple(rows.values())
