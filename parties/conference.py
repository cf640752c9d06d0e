"""A caller's three streams, one to each party, and what their failures mean taken together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from hush.mpc.errors import AbortReason, PartyError
from hush.parties import tls
from hush.parties.certs import Identity
from hush.parties.config import MIB, ClientConfig
from hush.parties.status import error_from_call
from hush.parties.wire import Tag, Wire
from hush.proto.party_pb2 import Info, InfoRequest, ProgramRequest

R = TypeVar("R")
_GRACE = 1.0  # seconds after the first failure in which the other parties may say what they saw
_ALL = range(3)


class Parties:
    """Channels to the three parties."""

    def __init__(self, config: ClientConfig, identity: Identity | None) -> None:
        self.addresses, self.deadline, self.roster = config.parties, config.deadline_s, config.roster()
        self._channels = [
            tls.channel(a, i, identity, max_message=config.max_message_mib * MIB, deadline=config.deadline_s)
            for i, a in enumerate(config.parties)
        ]

    def info(self) -> list[Info]:
        """What each party says of itself; the first failure as PartyError."""
        stubs: list[Any] = [channel.unary_unary("/hush.Party/Info") for channel in self._channels]
        calls = [stub.future(InfoRequest().SerializeToString(), timeout=self.deadline) for stub in stubs]
        return [Info.FromString(self._result(i, call.result)) for i, call in enumerate(calls)]

    def program(self, party: int, digest: bytes) -> bytes:
        """The bytes of a deployed program, from one party; the caller checks them."""
        request = ProgramRequest(program=digest).SerializeToString()
        call: Any = self._channels[party].unary_stream("/hush.Party/Program")
        return self._result(party, lambda: b"".join(call(request, timeout=self.deadline)))

    def unary(self, method: str, request: Message) -> list[bytes]:
        """One call to each party, one after the other; the first failure as PartyError."""
        return [self.one(party, method, request) for party in _ALL]

    def one(self, party: int, method: str, request: Message) -> bytes:
        """One call to one party; PartyError if it fails."""
        stub: Any = self._channels[party].unary_unary(f"/hush.Party/{method}")
        return self._result(party, partial(stub, request.SerializeToString(), timeout=self.deadline))

    def _result(self, party: int, job: Callable[[], bytes]) -> bytes:
        try:
            return job()
        except grpc.RpcError as failure:
            raise error_from_call(failure, party, self.addresses[party]) from None

    def confer(self, method: str) -> Conference:
        """Open a stream of a method to each party."""
        wires = []
        for party, channel in enumerate(self._channels):
            address = self.addresses[party]
            wire = Wire(party, self.deadline, lambda e, p=party, a=address: error_from_call(e, p, a))  # type: ignore[misc]
            call: Any = channel.stream_stream(f"/hush.Party/{method}")
            running = call(wire.outgoing())
            wire.attach(running, running.cancel)
            wires.append(wire)
        return Conference(wires)

    def close(self) -> None:
        """Hang up."""
        for channel in self._channels:
            channel.close()


class Conference:
    """Three wires that live and fail together."""

    def __init__(self, wires: Sequence[Wire]) -> None:
        self.wires = wires
        self._reports: dict[int, PartyError] = {}
        self._over = False  # what wires report from then on is only an echo
        self._lock = threading.Lock()
        for party, wire in enumerate(wires):
            wire.watch(lambda error, party=party: self._failed(party, error))  # type: ignore[misc]

    def _failed(self, party: int, error: PartyError) -> None:
        """A wire has failed: give the others a moment for their reports, then end them too."""
        with self._lock:
            if self._over:
                return
            first = not self._reports
            self._reports.setdefault(party, error)
        if first:
            timer = threading.Timer(_GRACE, self._end, (error,))
            timer.daemon = True
            timer.start()

    def _end(self, error: PartyError) -> None:
        with self._lock:
            self._over = True
        for wire in self.wires:
            wire.fail(error)

    def post(self, tag: Tag, message: Message) -> None:
        """The same control message to all."""
        for wire in self.wires:
            wire.post(tag, message)

    def gather(self, job: Callable[[Wire], R]) -> list[R]:
        """What the job gets from each wire. If one fails all are closed, and the root cause is raised."""
        results = []
        for party, wire in enumerate(self.wires):
            try:
                results.append(job(wire))
            except PartyError as error:
                raise self._cause(party, error) from None
        return results

    def _cause(self, party: int, error: PartyError) -> PartyError:
        """Wait until every party has reported, or the grace is over; then name the one at fault."""
        self.wires[party].fail(error)
        done = [threading.Event() for _ in _ALL]
        for wire, event in zip(self.wires, done, strict=True):
            wire.watch(lambda _, event=event: event.set())  # type: ignore[misc]
        for event in done:
            event.wait(_GRACE + 1)
        self.close()
        with self._lock:
            return root_cause(dict(self._reports), party)

    def close(self) -> None:
        """Hang up: the parties end what they do for this conference."""
        for wire in self.wires:
            wire.close()
        for wire in self.wires:
            wire.join()


def root_cause(reports: Mapping[int, PartyError], start: int) -> PartyError:
    """Whom to believe when parties blame each other: follow the blame from party to party until it stays.

    `reports[i]` is how the stream to party i failed, in order of arrival; the first counts, or `start`'s. A party that
    only waited for another, which waited for a third, blames the second; the second's own word leads on. A party that
    reports itself is believed. "Session closed" is an echo of something else, heard only if there is nothing else.
    """
    heard = {i: e for i, e in reports.items() if e.reason is not AbortReason.CLOSED} or dict(reports)
    at = next(iter(heard), start)
    error, seen = heard[at], {at}
    while error.party in heard and error.party not in seen:
        following = heard[error.party]
        if following.party is None or (following.party in seen and following.party != error.party):
            break
        seen.add(error.party)
        error = following
    return error
