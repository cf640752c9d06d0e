"""Chrome traces (chrome://tracing, Perfetto) of profiles: a process a party, a row of its ops and one of its rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hush.parties.profile import Exchange, Kind, Profile, Span

OPS, ROUNDS = 1, 2  # the rows
Event = dict[str, Any]


def document(turns: Sequence[Sequence[Profile]]) -> dict[str, Any]:
    """The trace of one or several turns, each the profiles of its parties, in the JSON trace event format.

    A trace begins where its first party does; parties are placed by their own clocks, which are one on one machine.
    """
    begin = min(profile.begin for profiles in turns for profile in profiles)
    events = [event for party in range(len(turns[0])) for event in _names(party)]
    for profiles in turns:
        for party, profile in enumerate(profiles):
            offset = (profile.begin - begin) * 1000
            events += _ops(party, profile, offset)
            events += _rounds(party, profile, offset, len(profiles))
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _names(party: int) -> Iterator[Event]:
    yield {"name": "process_name", "ph": "M", "pid": party, "tid": 0, "args": {"name": f"party {party}"}}
    for row, name in ((OPS, "ops"), (ROUNDS, "rounds, waiting")):
        yield {"name": "thread_name", "ph": "M", "pid": party, "tid": row, "args": {"name": name}}


def _ops(party: int, profile: Profile, offset: int) -> Iterator[Event]:
    for span in profile.spans:
        if span.kind is Kind.COMPUTE:
            times = _times(offset + span.start, span.ns)
            yield _complete(party, OPS, span.op.name, "compute", times, {"layer": span.op.layer})


def _rounds(party: int, profile: Profile, offset: int, parties: int) -> Iterator[Event]:
    """Each round, and inside it what it consists of."""
    names = {
        Kind.SEND: ("send", "send"),
        Kind.COPY: ("copy", "copy"),
        Kind.WAIT_NEXT: (f"wait for {(party + 1) % parties}", "wait"),
        Kind.WAIT_PREV: (f"wait for {(party - 1) % parties}", "wait"),
    }
    for number, made in enumerate(profile.rounds):
        start = made.spans[0].start
        yield _complete(
            party, ROUNDS, f"round {number}", "round", _times(offset + start, _length(made.spans)), _shared(made)
        )
        for span in made.spans:
            times = _times(offset + span.start, span.ns)
            yield _complete(party, ROUNDS, *names[span.kind], times, {})


def _shared(made: Exchange) -> dict[str, Any]:
    ops = [{"op": op.name, "layer": op.layer, "bytes_sent": n} for op, n in zip(made.ops, made.bytes_sent, strict=True)]
    return {"ops": ops, "bytes_sent": sum(made.bytes_sent), "depth": made.depth}


def _length(spans: Sequence[Span]) -> int:
    return spans[-1].end - spans[0].start


def _times(start: int, ns: int) -> dict[str, float]:
    return {"ts": start / 1000, "dur": ns / 1000}  # microseconds


def _complete(party: int, row: int, name: str, category: str, times: dict[str, float], args: dict[str, Any]) -> Event:
    return {"name": name, "cat": category, "ph": "X", "pid": party, "tid": row} | times | {"args": args}
