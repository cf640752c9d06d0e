"""A session's links: keys are agreed between each pair of parties, and both links make one `Transport`.

A pair of parties has one gRPC stream in each direction: each calls the other and receives what that one serves.
Measured against one bidirectional stream (three processes, loopback, small messages): half the processor time a round,
because gRPC's Python client needs a thread of its own to send, and a server does not. Each end sees the other's
certificate, too.

A party that keeps others waiting is not always to blame (it may wait for the third), so whoever fails tells both
neighbours whom it blames, and that word travels on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from hush.mpc.errors import AbortReason, PartyError
from hush.mpc.prg import Stream
from hush.mpc.transport import Buffer, Neighbour
from hush.parties.keys import Agreement, Terms, proven
from hush.parties.status import error_from_call, party_error
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

    @property
    def failure(self) -> PartyError | None:
        """The first link's failure, or the other's; None while both are well."""
        return next((w.failure for w in self._wires.values() if w.failure is not None), None)

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
    """A neighbour that has called to receive what this party will send it in a session."""

    hello: Hello
    deadline: float
    wire: Wire | None = None
    claimed: threading.Event = field(default_factory=threading.Event)


class Lobby:
    """Where neighbours that have called wait for their sessions, and sessions for their neighbours."""

    def __init__(self, capacity: int) -> None:
        self._capacity, self._arrivals = capacity, dict[tuple[bytes, int], Arrival]()
        self._changed = threading.Condition()

    def serve(self, arrival: Arrival, context: grpc.ServicerContext) -> Iterator[bytes]:
        """What a neighbour that has called receives, once a session claims it. PartyError if none does within the
        deadline. If the neighbour hangs up, the link is closed."""
        context.add_callback(arrival.claimed.set)
        wire = self._offer(arrival)
        if not context.add_callback(wire.close):
            wire.close()
        yield from wire.outgoing()

    def _offer(self, arrival: Arrival) -> Wire:
        key = (arrival.hello.session, arrival.hello.party)
        with self._changed:
            if key in self._arrivals or len(self._arrivals) >= self._capacity:
                raise PartyError(arrival.hello.party, AbortReason.LIMIT, "too many links wait for their sessions")
            self._arrivals[key] = arrival
            self._changed.notify_all()
        arrival.claimed.wait(arrival.deadline)
        with self._changed:
            if self._arrivals.get(key) is arrival:
                del self._arrivals[key]
        if arrival.wire is None:
            raise PartyError(None, AbortReason.DEADLINE, "no client opened this session here")
        return arrival.wire

    def claim(self, session: bytes, wire: Wire, stop: Callable[[], PartyError | None]) -> Hello:
        """The hello of the wire's peer, which is served from the wire from now on. PartyError if it does not call
        within the deadline, or as soon as `stop` gives one (`wake` makes it look)."""
        assert wire.peer is not None
        key = (session, wire.peer)
        with self._changed:
            self._changed.wait_for(lambda: key in self._arrivals or stop() is not None, wire.deadline)
            arrival = self._arrivals.pop(key, None)
            if arrival is None:
                raise stop() or party_error(wire.peer, AbortReason.DEADLINE, "it did not open its link")
            arrival.wire = wire
        arrival.claimed.set()
        return arrival.hello

    def wake(self) -> None:
        """Something has failed that a claim may wait for in vain."""
        with self._changed:
            self._changed.notify_all()


def dial(channel: grpc.Channel, neighbour: int, address: str, hello: Hello, deadline: float) -> Wire:
    """A wire to a neighbour: what it sends comes by this call, what is sent it fetches by its own. Fails fast if nobody
    listens there."""
    wire = Wire(neighbour, deadline, lambda failure: _broken(failure, neighbour, address))
    method: Any = channel.unary_stream(METHOD)
    call = method(hello.SerializeToString())
    wire.attach(call, call.cancel)
    return wire


def _broken(failure: grpc.RpcError, neighbour: int, address: str) -> PartyError:
    """What a broken stream means: what the neighbour said of it, or that it cannot be reached, or is gone."""
    error = error_from_call(failure, neighbour, address)
    if isinstance(failure, grpc.Call) and failure.code() is grpc.StatusCode.PERMISSION_DENIED:
        return PartyError(neighbour, AbortReason.DISCONNECTED, "it refused this party's certificate")
    return error


@dataclass(frozen=True, slots=True, repr=False)
class Joined:
    """Both links of a session, and the randomness shared with each neighbour."""

    transport: LinkTransport
    with_next: Stream
    with_prev: Stream


Dial = Callable[[int, Hello], Wire]
Claim = Callable[[Wire, Callable[[], PartyError | None]], Hello]


def join(party: int, fingerprint: bytes, terms: Terms, dial: Dial, claim: Claim, wake: Callable[[], None]) -> Joined:
    """Call both neighbours, be called by both, agree on keys. No party waits for one that waits for it: all call first.

    `dial` calls a neighbour, `claim` waits until the peer of a wire has called, unless a failure stops it.
    """
    sides = ((party + 1) % 3, (party - 1) % 3)
    agreements = [Agreement(party, fingerprint, terms) for _ in sides]
    wires = [dial(peer, a.hello()) for peer, a in zip(sides, agreements, strict=True)]
    transport = LinkTransport(party, *wires)
    for wire in wires:
        wire.watch(lambda error: wake())
    try:
        keys = [
            a.agree(claim(wire, lambda: transport.failure), peer)
            for peer, wire, a in zip(sides, wires, agreements, strict=True)
        ]
        for wire, own in zip(wires, keys, strict=True):
            wire.post(Tag.CONFIRM, Confirm(proof=own.proof))
        for peer, wire, own in zip(sides, wires, keys, strict=True):
            proven(wire.take(Tag.CONFIRM, Confirm).proof, own.due, peer)
    except PartyError as error:
        transport.abort(error)
        transport.join()
        raise
    return Joined(transport, keys[0].randomness(), keys[1].randomness())
