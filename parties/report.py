"""What one inference cost: the three parties' reports in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hush.mpc.cost import Cost
from hush.proto.party_pb2 import Report

Triple = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class LayerReport:
    """A layer's part: bytes and messages per party, depth gained and seconds at the slowest party."""

    name: str
    bytes_sent: Triple
    messages: Triple
    rounds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RunReport:
    """One inference, measured. `seconds`: from the first input share sent to the decoded output, at the client.

    `cost` is rounds, bytes and messages as the transport saw them, to be compared with a prediction. `client_bytes`:
    payload between the client and the three parties, both ways. `peak_rss`: bytes, of each party's process.
    """

    seconds: float
    cost: Cost
    client_bytes: int
    party_seconds: tuple[float, float, float]
    peak_rss: Triple
    layers: tuple[LayerReport, ...]


def combine(reports: Sequence[Report], seconds: float, client_bytes: int) -> RunReport:
    """One report from those of parties 0, 1 and 2."""
    rounds = max(r.depth for r in reports)
    return RunReport(
        seconds=seconds,
        cost=Cost(rounds, _triple(r.bytes_sent for r in reports), _triple(r.messages for r in reports)),
        client_bytes=client_bytes,
        party_seconds=_triple(r.seconds for r in reports),
        peak_rss=_triple(r.peak_rss for r in reports),
        layers=_layers(reports),
    )


def _layers(reports: Sequence[Report]) -> tuple[LayerReport, ...]:
    """Rows by name. A piece has as many rounds as the largest of the three depth stamps grew by from begin to end."""
    rows: dict[str, LayerReport] = {}
    depth = 0
    for piece in zip(*(r.layers for r in reports), strict=True):
        reached = max(p.depth for p in piece)
        name = piece[0].name
        old = rows.get(name, LayerReport(name, (0, 0, 0), (0, 0, 0), 0, 0.0))
        rows[name] = LayerReport(
            name=name,
            bytes_sent=_triple(b + p.bytes_sent for b, p in zip(old.bytes_sent, piece, strict=True)),
            messages=_triple(m + p.messages for m, p in zip(old.messages, piece, strict=True)),
            rounds=old.rounds + reached - depth,
            seconds=old.seconds + max(p.seconds for p in piece),
        )
        depth = reached
    return tuple(rows.values())


def _triple(values: Any) -> Any:
    a, b, c = values
    return a, b, c
