"""What a round costs between three party processes on this machine, over their own links: gRPC with mutual TLS.

    python benchmarks/loopback.py          # prints JSON: seconds a round, bytes a second that a party sends

All three send to both neighbours and receive from both at once, as in a protocol's rounds; nothing is computed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import torch

from hush.mpc.errors import PartyError
from hush.mpc.session import Ledger, run
from hush.mpc.step import Round, Spec, Step
from hush.parties import certs, config, tls
from hush.parties.keys import Terms
from hush.parties.link import Arrival, Joined, Lobby, dial, join
from hush.parties.local import loopback
from hush.parties.memory import retain
from hush.parties.wire import Wire
from hush.proto.party_pb2 import Hello

MESSAGE, DEADLINE = 64 << 20, 60.0
SMALL, LARGE = 64, 4 << 20  # bytes a message
ROUNDS, LARGE_ROUNDS = 500, 40


def exchange(rounds: int, nbytes: int) -> Step[None]:
    """So many rounds of a message to each neighbour."""
    message, due = torch.zeros(nbytes, dtype=torch.uint8), Spec((nbytes,), torch.uint8)
    for _ in range(rounds):
        yield Round((message,), (message,), (due,), (due,))


def linked(path: Path) -> tuple[Joined, list[object]]:
    """A party's links, agreed with its neighbours, and what must live as long as they. Says when it serves, and goes on
    when it is told that all do."""
    own = config.load_party(path)
    identity, lobby = own.identity(), Lobby(4)
    assert identity is not None

    def serve(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from lobby.serve(Arrival(Hello.FromString(request), DEADLINE), context)

    server = grpc.server(ThreadPoolExecutor(8), options=tls.server_options(MESSAGE, DEADLINE))
    handler = grpc.unary_stream_rpc_method_handler(serve)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("hush.Party", {"Link": handler}),))
    tls.listen(server, own.address, identity)
    server.start()
    alive: list[object] = [server]
    print("serving", flush=True)
    sys.stdin.readline()

    def call(neighbour: int, hello: Hello) -> Wire:
        address = own.parties[neighbour]
        channel = tls.channel(address, neighbour, identity, max_message=MESSAGE, deadline=DEADLINE, streams=True)
        alive.append(channel)
        return dial(channel, neighbour, address, hello, DEADLINE)

    terms = Terms(b"loopback".ljust(16), b"r", b"p", b"d", b"c")

    def claim(wire: Wire, stop: Callable[[], PartyError | None]) -> Hello:
        return lobby.claim(terms.session, wire, stop)

    return join(own.index, identity.fingerprint, terms, call, claim, lobby.wake), alive


def party(path: Path) -> None:
    """One party: prints its seconds for the small and the large rounds."""
    retain()
    joined, _alive = linked(path)
    seconds, ledger = [], Ledger()
    for rounds, size in ((ROUNDS, SMALL), (LARGE_ROUNDS, LARGE)):
        run(exchange(5, size), joined.transport, ledger)
        begin = time.perf_counter()
        run(exchange(rounds, size), joined.transport, ledger)
        seconds.append((time.perf_counter() - begin) / rounds)
    print(json.dumps(seconds), flush=True)
    time.sleep(1.0)  # until the others have read what was sent


def measure() -> dict[str, float]:
    """Seconds a round, and bytes a second that each party sends while it receives as much."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certs.create(folder, days=1, keep_authority=False)
        config.write_examples(folder, list(loopback()))
        command = [sys.executable, __file__, "--config"]
        pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        parties = [subprocess.Popen([*command, str(folder / f"party{i}.toml")], **pipe) for i in range(3)]
        for party in parties:
            party.stdout.readline()
        for party in parties:
            party.stdin.write("go\n")
            party.stdin.flush()
        lines = [party.stdout.readline() for party in parties]
        for party in parties:
            party.wait(DEADLINE)
    small, large = (max(values) for values in zip(*map(json.loads, lines), strict=True))
    return {"round_s": small, "bytes_per_s": 2 * LARGE / (large - small)}


def main() -> None:
    """Command line; `--config` is for the parties that it starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.config is not None:
        party(options.config)
    else:
        print(json.dumps(measure()))


if __name__ == "__main__":
    main()
