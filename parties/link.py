"""A session's links: party i dials party i+1, keys are agreed inside the stream, and both make one `Transport`.

One bidirectional gRPC stream per pair and session. A party that keeps others waiting is not always to blame (it may
wait for the third), so whoever fails tells both neighbours whom it blames, and that word travels on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import grpc

from hush.mpc.errors import AbortReason, PartyError
from hush.mpc.prg import Stream
from hush.mpc.transport import Buffer, Neighbour
from hush.parties.keys import Agreement, Terms, proven
from hush.parties.status import CANNOT_CONNECT, party_error
from hush.parties.wire import Tag, Wire
from hush.proto.party_pb2 import Confirm, Hello

METHOD = "/hush.Party/Link"


class LinkTransport:
    """`hush.mpc.transport.Transport` over the wires to both neighbours."""

    def __init__(self, party: int, to_next: Wire, to_prev: Wire) -> None:
        self.party = party
        self._wires: dict[Neighbour, Wire] = {"next": to_next, "prev": to_prev}

    def send(self, to: Neighbour, buffers: Sequence[Buffer]) -> None:
        """Queue one frame to a neighbour."""
        self._wires[to].send(buffers)

    def receive(self, source: Neighbour, nbytes: int) -> memoryview:
        """The next frame of a neighbour, which must have `nbytes`."""
        return self._wires[source].receive(nbytes)

    def close(self, reason: AbortReason = AbortReason.CLOSED) -> None:
        """Tell both neighbours why, and hang up."""
        self.abort(PartyError(self.party, reason))

    def abort(self, error: PartyError) -> None:
        """Tell both neighbours whom to blame and for what, and hang up."""
        for wire in self._wires.values():
            wire.close(error)

    def watch(self, notify: Callable[[PartyError], None]) -> None:
        """Call back when either link fails."""
        for wire in self._wires.values():
            wire.watch(notify)

    def join(self) -> None:
        """After `close` or `abort`: wait briefly for the neighbours, then tear the streams down."""
        for wire in self._wires.values():
            wire.join()


@dataclass(slots=True, repr=False)
class Arrival:
    """A link that the previous party has dialled, before its session claims it."""

    wire: Wire
    hello: Hello
    claimed: threading.Event


class Lobby:
    """Where dialled links wait for their sessions, and sessions for their links."""

    def __init__(self, capacity: int) -> None:
        self._capacity, self._arrivals = capacity, dict[bytes, Arrival]()
        self._changed = threading.Condition()

    def offer(self, arrival: Arrival) -> None:
        """Wait until a session claims a link that has arrived; PartyError if none does within the deadline."""
        session, peer = arrival.hello.session, arrival.wire.peer
        with self._changed:
            if session in self._arrivals or len(self._arrivals) >= self._capacity:
                raise PartyError(peer, AbortReason.LIMIT, "too many links wait for their sessions")
            self._arrivals[session] = arrival
            self._changed.notify_all()
        if not arrival.claimed.wait(arrival.wire.deadline):
            with self._changed:
                self._arrivals.pop(session, None)
            raise PartyError(None, AbortReason.DEADLINE, "no client opened this session here")

    def claim(self, session: bytes, neighbour: int, deadline: float, stop: Callable[[], PartyError | None]) -> Arrival:
        """The link of a session that the previous party dials; PartyError if it does not within the deadline, or as
        soon as `stop` gives one (`wake` makes it look)."""
        with self._changed:
            self._changed.wait_for(lambda: session in self._arrivals or stop() is not None, deadline)
            arrival = self._arrivals.pop(session, None)
        if arrival is None:
            raise stop() or party_error(neighbour, AbortReason.DEADLINE, "it did not open its link")
        arrival.claimed.set()
        return arrival

    def wake(self) -> None:
        """Something has failed that a claim may wait for in vain."""
        with self._changed:
            self._changed.notify_all()


def dial(channel: grpc.Channel, neighbour: int, address: str, deadline: float) -> Wire:
    """A wire to the next party. Fails fast if nobody listens there."""

    def broken(failure: grpc.RpcError) -> PartyError:
        return _broken(failure, neighbour, address)

    wire = Wire(neighbour, deadline, broken)
    call: Any = channel.stream_stream(METHOD)(cast(Any, wire.outgoing()))
    wire.attach(call, call.cancel)
    return wire


def _broken(failure: grpc.RpcError, neighbour: int, address: str) -> PartyError:
    """What a broken stream means. gRPC's own text is passed on only in the one case that a person can mend."""
    code = failure.code() if isinstance(failure, grpc.Call) else None
    text = (failure.details() or "") if isinstance(failure, grpc.Call) else ""
    if code is grpc.StatusCode.UNAVAILABLE and CANNOT_CONNECT in text.lower():
        return party_error(neighbour, AbortReason.UNREACHABLE, address)
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return PartyError(neighbour, AbortReason.DISCONNECTED, "it refused this party's certificate")
    return PartyError(neighbour, AbortReason.DISCONNECTED)


@dataclass(frozen=True, slots=True, repr=False)
class Joined:
    """Both links of a session, and the randomness shared with each neighbour."""

    transport: LinkTransport
    with_next: Stream
    with_prev: Stream


def join(party: int, fingerprint: bytes, terms: Terms, to_next: Wire, arrival: Callable[[], Arrival]) -> Joined:
    """Agree with both neighbours. No party waits for one that waits for it: all send before they wait."""
    ahead, behind = Agreement(party, fingerprint, terms), Agreement(party, fingerprint, terms)
    to_next.post(Tag.HELLO, ahead.hello())
    prev = arrival()
    transport = LinkTransport(party, to_next, prev.wire)
    try:
        prev.wire.post(Tag.HELLO, behind.hello())
        with_prev = behind.agree(prev.hello, (party - 1) % 3, dialer=False)
        prev.wire.post(Tag.CONFIRM, Confirm(proof=with_prev.proof_acceptor))
        with_next = ahead.agree(to_next.take(Tag.HELLO, Hello), (party + 1) % 3, dialer=True)
        to_next.post(Tag.CONFIRM, Confirm(proof=with_next.proof_dialer))
        _verify(to_next, with_next.proof_acceptor)
        _verify(prev.wire, with_prev.proof_dialer)
    except PartyError as error:
        transport.abort(error)
        transport.join()
        raise
    return Joined(transport, with_next.randomness(), with_prev.randomness())


def _verify(wire: Wire, due: bytes) -> None:
    assert wire.peer is not None
    proven(wire.take(Tag.CONFIRM, Confirm).proof, due, wire.peer)
