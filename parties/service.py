"""What a party serves over gRPC: sessions to clients, links to its neighbour, deployments to providers."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import grpc

import hush
from hush.mpc.errors import AbortReason, HushError, PartyError
from hush.parties import certs, memory, shares, tls
from hush.parties.config import MIB, PartyConfig
from hush.parties.device_memory import Card
from hush.parties.forget import forget
from hush.parties.keys import SESSION_BYTES, VERSION, Terms
from hush.parties.link import Arrival, Lobby, dial
from hush.parties.logs import LOGGER
from hush.parties.resume import DEPLOYMENT_BYTES, PASSING
from hush.parties.session import Place, serve
from hush.parties.status import error_from_call, fail
from hush.parties.store import Deployment, Incoming, Store
from hush.parties.weights import sizes_in_memory
from hush.parties.wire import CHUNK, Tag, Wire
from hush.proto import party_pb2 as pb

SERVICE = "hush.Party"
_NAME_LIMIT = 200
_READ_AHEAD = 32 << 20  # bytes of a deployment that may wait for the disk
Calls = Iterator[bytes]


class Service:
    """The handlers of one party, and what they share: models, seats for sessions, links that wait."""

    def __init__(
        self, config: PartyConfig, identity: certs.Identity | None, store: Store, card: Card | None = None
    ) -> None:
        self._config, self._identity, self._store, self._card = config, identity, store, card
        self._index, self._limits = config.index, config.limits
        self._roster = config.roster()
        self._lobby = Lobby(2 * config.limits.max_sessions)
        self._sessions = set[bytes]()
        self._deploying = threading.BoundedSemaphore(1)
        self._lock = threading.Lock()

    def handler(self) -> grpc.GenericRpcHandler:
        """All methods, raw bytes in and out."""
        streams = {
            "Session": self._wrap(self._session, "client"),
            "Deploy": self._wrap(self._deploy, "provider"),
        }
        unary = {
            "Compare": self._wrap_unary(self._compare, "party"),
            "Info": self._wrap_unary(self._info, *certs.KINDS),
            "Remove": self._wrap_unary(self._remove, "provider"),
            "Discard": self._wrap_unary(self._discard, "provider"),
        }
        methods: dict[str, Any] = {n: grpc.stream_stream_rpc_method_handler(h) for n, h in streams.items()}
        methods |= {n: grpc.unary_unary_rpc_method_handler(h) for n, h in unary.items()}
        methods["Link"] = grpc.unary_stream_rpc_method_handler(self._wrap(self._link, "party"))
        methods["Program"] = grpc.unary_stream_rpc_method_handler(self._wrap(self._program, *certs.KINDS))
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    # ------------------------------------------------------------------ every call
    def _wrap(self, handler: Callable[..., Calls], *kinds: str) -> Callable[[Any, grpc.ServicerContext], Calls]:
        def call(request: Any, context: grpc.ServicerContext) -> Calls:
            caller = tls.require(context, self._identity is not None, *kinds)
            with self._reported(context, caller):
                yield from handler(request, context, caller)

        return call

    def _wrap_unary(
        self, handler: Callable[[bytes, tls.Peer], bytes], *kinds: str
    ) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def call(request: bytes, context: grpc.ServicerContext) -> bytes:
            caller = tls.require(context, self._identity is not None, *kinds)
            with self._reported(context, caller):
                return handler(request, caller)

        return call

    @contextmanager
    def _reported(self, context: grpc.ServicerContext, caller: tls.Peer) -> Iterator[None]:
        """Turn whatever goes wrong into a reason of the closed list, logged here and sent to the caller."""
        role = caller.role.uri if caller.role else "unknown"
        try:
            yield
        except Exception as cause:
            error = _named(cause, self._index)
            extra = {"party": self._index, "role": role, "blamed": error.party}
            extra |= {"reason": error.reason.name, "detail": error.detail}
            internal = error.reason is AbortReason.INTERNAL and not isinstance(cause, PartyError)
            LOGGER.log(40 if internal else 30, "call failed", extra=extra, exc_info=internal)
            fail(context, error)

    # ------------------------------------------------------------------ sessions
    def _session(self, requests: Calls, context: grpc.ServicerContext, caller: tls.Peer) -> Calls:
        """The session computes in a thread of its own, so that progress reaches the client meanwhile."""
        client = Wire(None, self._limits.deadline_s)
        client.attach(requests, context.cancel)
        ended: list[Exception] = []

        def compute() -> None:
            try:
                self._serve(client, caller)
            except Exception as error:
                forget(error)
                ended.append(error)
            finally:
                client.close()
                if not sent.wait(self._limits.deadline_s):  # the client does not read what it asked for
                    context.cancel()

        sent = threading.Event()
        threading.Thread(target=compute, name="hush-session", daemon=True).start()
        try:
            yield from client.outgoing()
        finally:
            sent.set()
        if ended:
            raise ended[0]

    def _serve(self, client: Wire, caller: tls.Peer) -> None:
        terms, deployment = self._admit(client.take(Tag.OPEN, pb.Open), caller)
        with self._seat(terms.session), self._store.using(deployment), ExitStack() as stack:
            self._spare(deployment.missing)
            channels = {n: stack.enter_context(closing(self._channel(n, streams=True))) for n in self._neighbours}
            serve(self._place(channels), client, terms, deployment)

    def _admit(self, opened: pb.Open, caller: tls.Peer) -> tuple[Terms, Deployment]:
        if opened.version != VERSION or len(opened.session) != SESSION_BYTES:
            raise PartyError(self._index, AbortReason.MALFORMED, f"a client of protocol version {VERSION} is needed")
        if opened.roster != self._roster:
            raise PartyError(self._index, AbortReason.ROSTER, "the client lists other parties, or in another order")
        deployment = self._store.find(opened.model)
        if not hmac.compare_digest(opened.program, deployment.digest):
            raise PartyError(self._index, AbortReason.DIGEST, "the client compiled another program under this name")
        terms = Terms(opened.session, self._roster, deployment.digest, deployment.id, caller.fingerprint)
        return terms, deployment

    @contextmanager
    def _seat(self, session: bytes) -> Iterator[None]:
        with self._lock:
            if len(self._sessions) >= self._limits.max_sessions:
                detail = f"{self._limits.max_sessions} sessions are open here; try later"
                raise PartyError(self._index, AbortReason.LIMIT, detail)
            if session in self._sessions:
                raise PartyError(self._index, AbortReason.MALFORMED, "this session is open already")
            self._sessions.add(session)
        try:
            yield
        finally:
            with self._lock:
                self._sessions.discard(session)

    def _place(self, channels: Mapping[int, grpc.Channel]) -> Place:
        def call(neighbour: int, hello: pb.Hello) -> Wire:
            address = self._config.parties[neighbour]
            return dial(channels[neighbour], neighbour, address, hello, self._limits.deadline_s)

        return Place(
            party=self._index,
            fingerprint=self._fingerprint,
            dial=call,
            claim=self._lobby.claim,
            wake=self._lobby.wake,
            backend=self._config.kernels,
            card=self._card,
            net=self._config.net,
            profile=self._config.profile,
            idle=self._limits.idle_s,
        )

    @property
    def _neighbours(self) -> tuple[int, int]:
        return (self._index + 1) % 3, (self._index - 1) % 3

    @property
    def _fingerprint(self) -> bytes:
        return self._identity.fingerprint if self._identity else b""

    def _channel(self, party: int, *, streams: bool = False) -> grpc.Channel:
        limits = self._limits
        address, limit = self._config.parties[party], limits.max_message_mib * MIB
        return tls.channel(
            address, party, self._identity, max_message=limit, deadline=limits.deadline_s, streams=streams
        )

    def _link(self, request: bytes, context: grpc.ServicerContext, caller: tls.Peer) -> Calls:
        """Serve a neighbour what this party sends it in a session."""
        hello = pb.Hello.FromString(request)
        self._only_neighbour(caller)
        if hello.party not in self._neighbours or len(hello.session) != SESSION_BYTES:
            raise PartyError(None, AbortReason.MALFORMED, "a hello of no neighbour")
        if caller.role is not None and (caller.role.party, caller.fingerprint) != (hello.party, hello.certificate):
            raise PartyError(hello.party, AbortReason.MALFORMED, "its hello names another certificate")
        yield from self._lobby.serve(Arrival(hello, self._limits.deadline_s), context)

    def _only_neighbour(self, caller: tls.Peer) -> None:
        if caller.role is not None and caller.role.party not in self._neighbours:
            raise PartyError(caller.role.party, AbortReason.MALFORMED, "a party does not call itself")

    # ------------------------------------------------------------------ deployment
    def _deploy(self, requests: Calls, context: grpc.ServicerContext, caller: tls.Peer) -> Calls:
        if not self._deploying.acquire(timeout=self._limits.deadline_s / 4):
            raise PartyError(self._index, AbortReason.LIMIT, "another deployment is under way; try later")
        wire = Wire(None, self._limits.deadline_s, pending=_READ_AHEAD)
        wire.attach(requests, context.cancel)
        header, begun, keep = pb.Deploy(), False, False
        try:
            header = wire.take(Tag.DEPLOY, pb.Deploy)
            incoming = self._begin(wire, header)
            begun = True
            yield Tag.HELD + incoming.answer().SerializeToString()
            deployment = self._receive(wire, incoming)
            self._verify(deployment)
            yield Tag.VERIFIED + pb.Verified().SerializeToString()
            wire.take(Tag.COMMIT, pb.Commit)
            self._store.activate(header.deployment)
            LOGGER.info("deployed", extra={"party": self._index, "model": header.model})
            yield Tag.DEPLOYED + pb.Deployed().SerializeToString()
        except PartyError as error:
            keep = error.reason in PASSING
            raise
        except GeneratorExit:  # the provider is gone
            keep = True
            raise
        finally:
            try:
                if begun:
                    self._store.discard(header.deployment, keep=keep and header.resumable)
            finally:  # whatever a provider calls its deployment, the next one is let in
                self._deploying.release()

    def _begin(self, wire: Wire, header: pb.Deploy) -> Incoming:
        limits = self._limits
        if header.version != VERSION or len(header.deployment) != DEPLOYMENT_BYTES:
            raise PartyError(self._index, AbortReason.MALFORMED, f"a provider of protocol version {VERSION} is needed")
        if not 0 < len(header.model) <= _NAME_LIMIT or not header.model.isprintable():
            raise PartyError(self._index, AbortReason.MALFORMED, f"a model's name has 1 to {_NAME_LIMIT} characters")
        if not 0 < header.program_size <= limits.max_program_mib * MIB:
            raise PartyError(self._index, AbortReason.LIMIT, f"a program has at most {limits.max_program_mib} MiB")
        program = bytes(wire.receive(header.program_size))
        parsed = shares.read_program(self._index, program, header.program)
        dtypes = list(header.dtypes)
        sizes = shares.weight_sizes(self._index, parsed, dtypes)
        held = 0 if self._store.stores else sum(sizes_in_memory(self._index, parsed, dtypes, seeds=self._store.seeds))
        self._spare(max(sizes, default=0) + held)
        return self._store.begin(header, program, parsed)

    def _receive(self, wire: Wire, incoming: Incoming) -> Deployment:
        """Take the weights that are not here yet. A provider that goes on reads its own again, or serves the others
        first, which takes time."""
        deadline = self._limits.deadline_s
        patience = max(deadline, self._limits.idle_s) if incoming.header.resumable else deadline
        wire.deadline = patience
        for size in incoming.sizes[incoming.held :]:
            incoming.add(wire.receive(size))
            wire.deadline = deadline
        wire.take(Tag.SENT, pb.Sent, patience)
        wire.deadline = deadline
        return self._store.stage(incoming)

    def _verify(self, deployment: Deployment) -> None:
        """Compare each component with its other holder, and what is public with both neighbours."""
        nxt, prev = self._neighbours
        ahead, behind = self._copies(nxt, deployment.id), self._copies(prev, deployment.id)
        for party, theirs, ours in (
            (nxt, ahead.own, deployment.copies.next),
            (prev, behind.next, deployment.copies.own),
        ):
            if theirs != ours:
                raise PartyError(party, AbortReason.DIGEST, "the provider gave it another copy of a weight's share")
        for party, copies in ((nxt, ahead), (prev, behind)):
            if copies.common != deployment.copies.common:
                raise PartyError(party, AbortReason.DIGEST, "the provider gave it another program or name")

    def _copies(self, party: int, deployment: bytes) -> pb.Copies:
        request = pb.Compare(deployment=deployment, party=self._index).SerializeToString()
        with closing(self._channel(party)) as channel:
            call: Any = channel.unary_unary(f"/{SERVICE}/Compare")
            try:
                return pb.Copies.FromString(call(request, timeout=self._limits.deadline_s + 1))
            except grpc.RpcError as failure:
                raise error_from_call(failure, party, self._config.parties[party]) from None

    def _compare(self, request: bytes, caller: tls.Peer) -> bytes:
        self._only_neighbour(caller)
        asked = pb.Compare.FromString(request)
        named = asked.party if caller.role is None else caller.role.party
        if asked.party != named or asked.party not in ((self._index + 1) % 3, (self._index - 1) % 3):
            raise PartyError(None, AbortReason.MALFORMED, "copies are shown to the other two parties alone")
        held = self._store.copies(asked.deployment, self._limits.deadline_s)
        return shares.common_copies(held, self._index, asked.party).SerializeToString()

    def _remove(self, request: bytes, caller: tls.Peer) -> bytes:
        return pb.Removed(found=self._store.remove(pb.Remove.FromString(request).model)).SerializeToString()

    def _discard(self, request: bytes, caller: tls.Peer) -> bytes:
        self._store.give_up(pb.Discard.FromString(request).deployment)
        return pb.Discarded().SerializeToString()

    # ------------------------------------------------------------------ what is public
    def _info(self, request: bytes, caller: tls.Peer) -> bytes:
        models = [
            pb.Model(name=d.model, program=d.digest, deployment=d.id, program_size=len(d.data))
            for d in self._store.models()
        ]
        info = pb.Info(party=self._index, version=hush.__version__, roster=self._roster, models=models)
        info.sessions = len(self._sessions)
        return info.SerializeToString()

    def _program(self, request: bytes, context: grpc.ServicerContext, caller: tls.Peer) -> Calls:
        digest = pb.ProgramRequest.FromString(request).program
        for deployment in self._store.models():
            if deployment.digest == digest:
                data = deployment.data
                yield from (data[i : i + CHUNK] for i in range(0, len(data), CHUNK))
                return
        raise PartyError(self._index, AbortReason.UNKNOWN_MODEL, "no model of this program is deployed here")

    def _spare(self, nbytes: int) -> None:
        """Make room for what is to come; PartyError(LIMIT) if it and resident memory pass the limit all the same."""
        most = self._limits.max_memory_mib * MIB
        if not self._store.relieve(lambda: memory.resident() + nbytes <= most):
            raise PartyError(self._index, AbortReason.LIMIT, f"its memory limit of {self._limits.max_memory_mib} MiB")


def _named(cause: Exception, party: int) -> PartyError:
    """The reason for an exception. Texts of foreign exceptions stay here: nobody knows what they quote."""
    if isinstance(cause, PartyError):
        return cause
    if isinstance(cause, MemoryError):
        return PartyError(party, AbortReason.LIMIT, "out of memory")
    if isinstance(cause, HushError):
        return PartyError(party, AbortReason.INTERNAL, type(cause).__name__)
    return PartyError(party, AbortReason.INTERNAL)
