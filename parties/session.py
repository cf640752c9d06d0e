"""One client's session at one party: links, keys, then one invocation after another.

Whatever fails, the session ends: both neighbours are told whom to blame, nothing is tried again (a retry would need new
masks, which means new keys, which means a new session), and everything the session held is let go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hush.mpc.errors import AbortReason, PartyError
from hush.parties import memory
from hush.parties.device_memory import Card, Room
from hush.parties.engine import Engine
from hush.parties.forget import forget
from hush.parties.keys import Terms
from hush.parties.link import Dial, Joined, join
from hush.parties.logs import LOGGER
from hush.parties.request import Request
from hush.parties.shaping import shape
from hush.parties.shares import output_frames
from hush.parties.store import Deployment
from hush.parties.wire import Tag, Wire
from hush.proto.party_pb2 import Answer, Hello, Invoke, Opened, Progress


@dataclass(frozen=True, slots=True, repr=False)
class Place:
    """Where a session takes place: what it needs of the server."""

    party: int
    fingerprint: bytes
    dial: Dial
    claim: Callable[[bytes, Wire, Callable[[], PartyError | None]], Hello]
    wake: Callable[[], None]
    backend: str | None
    card: Card | None
    net: str
    profile: bool
    idle: float


def serve(place: Place, client: Wire, terms: Terms, deployment: Deployment) -> None:
    """Open a session and answer invocations until the client leaves.

    PartyError if anything fails; then both links have been told.
    """
    joined = _join(place, client, terms)
    transport = joined.transport

    def neighbour_failed(error: PartyError) -> None:
        transport.abort(error)
        client.fail(error)

    transport.watch(neighbour_failed)
    client.watch(lambda error: transport.abort(_gone(error)))
    note = {"party": place.party, "session": terms.session.hex()[:8], "model": deployment.model}
    LOGGER.info("session opened", extra=note)
    engine: Engine | None = None
    room: Room | None = None
    try:
        link = shape(transport, place.net)
        room = None if place.card is None else place.card.claim(place.party, deployment.program, deployment.tenant)
        keys = joined.with_next, joined.with_prev
        engine = Engine(place.party, *keys, link, deployment.program, place.backend, deployment.encoded, room)
        client.post(Tag.OPENED, Opened(party=place.party))
        while (request := _wanted(client, place.idle)) is not None:
            _allow(place, request)
            _answer(engine, client, deployment, request, note)
        link.close()
    except PartyError as error:
        forget(error)  # before others are promised the memory of what failed
        transport.abort(error)
        raise
    except BaseException as error:
        forget(error)
        transport.abort(PartyError(place.party, AbortReason.INTERNAL))
        raise
    finally:
        if engine is not None:
            engine.close()
        if room is not None:
            room.close()
        transport.join()
        memory.trim()
        LOGGER.info("session closed", extra=note)


def _join(place: Place, client: Wire, terms: Terms) -> Joined:
    client.watch(lambda error: place.wake())

    def claim(wire: Wire, stop: Callable[[], PartyError | None]) -> Hello:
        return place.claim(terms.session, wire, lambda: stop() or client.failure)

    return join(place.party, place.fingerprint, terms, place.dial, claim, place.wake)


def _gone(error: PartyError) -> PartyError:
    """How the neighbours learn of a failure that came through the client's wire."""
    return error if error.party is not None else PartyError(None, AbortReason.CLOSED, "the client left")


def _wanted(client: Wire, idle: float) -> Request | None:
    """What the client asks for next; None once it has left in good order."""
    try:
        return Request.parse(client.take(Tag.INVOKE, Invoke, idle))
    except PartyError as error:
        if error.party is None and error.reason in (AbortReason.DISCONNECTED, AbortReason.CLOSED):
            return None  # it hung up here, or a neighbour has seen that it did
        if error.party is None and error.reason is AbortReason.DEADLINE:
            raise PartyError(None, AbortReason.CLOSED, "the session was idle for too long") from None
        raise


def _allow(place: Place, request: Request) -> None:
    """PartyError(INPUT) for a profile that this party does not give: when it does what is its own affair."""
    if request.profile and not place.profile:
        detail = "it gives no profiles; `profile = true` in a party's file allows them"
        raise PartyError(place.party, AbortReason.INPUT, detail)


def _answer(engine: Engine, client: Wire, deployment: Deployment, request: Request, note: dict[str, object]) -> None:
    inputs = engine.receive_inputs(client.receive, request)

    def watch(layer: str) -> None:
        client.post(Tag.PROGRESS, Progress(layer=layer))

    done = engine.infer(inputs, deployment.weights, watch, request)
    report = done.report
    extra = note | {"seconds": round(report.seconds, 3), "bytes_sent": report.bytes_sent, "depth": report.depth}
    LOGGER.info("invocation answered", extra=extra)
    client.post(Tag.ANSWER, Answer(report=report))
    for frame in output_frames(done.outputs):
        client.send([frame])
