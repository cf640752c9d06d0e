"""Helpers of the parties' tests: certificates and configurations in a folder, and links without servers' logic."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import grpc

from hush.parties import certs, config, tls
from hush.parties.keys import Terms
from hush.parties.link import Arrival, Joined, Lobby, dial, join
from hush.parties.wire import Wire
from hush.proto.party_pb2 import Hello

MESSAGE = 8 << 20


def free_addresses() -> list[str]:
    """Three loopback addresses that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(3)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]


def write_trio(directory: Path, addresses: list[str] | None = None) -> Path:
    """Certificates and example configurations of three parties."""
    certs.create(directory, days=1, keep_authority=True)
    config.write_examples(directory, addresses or free_addresses())
    return directory


def terms(session: bytes = b"s" * 16, **changes: bytes) -> Terms:
    """Terms that three parties agree on."""
    fields = {"roster": b"r", "program": b"p", "deployment": b"d", "client": b"c"} | changes
    return Terms(session, **fields)


class LinkEnd:
    """One party that serves links and nothing else."""

    def __init__(self, cfg: config.PartyConfig, deadline: float) -> None:
        self.config, self.deadline, self.index = cfg, deadline, cfg.index
        self.identity, self.lobby = cfg.identity(), Lobby(4)
        self.callers: list[int] = []  # the parties that were let in
        self._pool = ThreadPoolExecutor(8)
        self.server = grpc.server(self._pool, options=tls.server_options(MESSAGE, deadline))
        method = grpc.unary_stream_rpc_method_handler(self._link)
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("hush.Party", {"Link": method}),))
        tls.listen(self.server, cfg.address, self.identity)
        self.server.start()
        self.channels = {n: self._channel(n) for n in range(3)}

    def _channel(self, party: int) -> grpc.Channel:
        address = self.config.parties[party]
        return tls.channel(address, party, self.identity, max_message=MESSAGE, deadline=self.deadline, streams=True)

    def _link(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        tls.require(context, self.identity is not None, "party")
        self.callers.append(Hello.FromString(request).party)
        yield from self.lobby.serve(Arrival(Hello.FromString(request), self.deadline), context)

    def join(self, agreed: Terms) -> Joined:
        """This party's side of a session."""

        def call(neighbour: int, hello: Hello) -> Wire:
            return dial(self.channels[neighbour], neighbour, self.config.parties[neighbour], hello, self.deadline)

        def claim(wire: Wire, stop: Any) -> Hello:
            return self.lobby.claim(agreed.session, wire, stop)

        fingerprint = self.identity.fingerprint if self.identity else b""
        return join(self.index, fingerprint, agreed, call, claim, self.lobby.wake)

    def stop(self) -> None:
        for channel in self.channels.values():
            channel.close()
        self.server.stop(0).wait()
        self._pool.shutdown(wait=False)


@contextmanager
def link_ends(directory: Path, deadline: float = 10.0) -> Iterator[list[LinkEnd]]:
    """Three link ends in this process, over mutual TLS."""
    ends = [LinkEnd(config.load_party(directory / f"party{i}.toml"), deadline) for i in range(3)]
    try:
        yield ends
    finally:
        for end in ends:
            end.stop()


def at_once(*jobs: Any) -> list[Any]:
    """Run callables in threads; their results, or the exceptions they raised."""

    def run(job: Any) -> Any:
        try:
            return job()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))
