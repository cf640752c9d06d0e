"""A party that dies, stalls, lies or is missing: the client learns which and why, the others serve the next session."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from parties_harness import write_trio
from torch import Tensor, nn

from hush.mpc.compiler import Program, compile_module
from hush.mpc.errors import AbortReason, ConfigError, PartyError, PartyUnreachable, ProtocolError
from hush.mpc.transport import Buffer, Neighbour, Transport
from hush.parties import config, engine, health, memory, session, store, vault
from hush.parties.client import connect, deploy
from hush.parties.conference import root_cause
from hush.parties.config import Limits
from hush.parties.local import LocalTrio
from hush.parties.server import PartyServer

DEADLINE = 6.0
X = torch.linspace(-1, 1, 16).reshape(2, 8)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3)).eval()


@pytest.fixture(scope="module")
def program() -> Program:
    return compile_module(network(), (X,))


@pytest.fixture(scope="module")
def trio(program: Program) -> Iterator[LocalTrio]:
    """Processes over a modelled wide-area network, so that an inference lasts; models are kept on disk."""
    limits = Limits(deadline_s=DEADLINE, max_sessions=2)
    with LocalTrio(net="wan", limits=limits, threads=1, data=True) as made:
        deploy(program, made.provider_config, "net")
        yield made


def right(answer: Tensor) -> bool:
    with torch.no_grad():
        return torch.allclose(answer, network()(X), atol=2e-3)


def interrupted(trio: LocalTrio, at: Callable[[], None]) -> PartyError:
    """The error of an inference during which something happens to a party."""
    done: list[bool] = []

    def progress(layer: str) -> None:
        if not done:
            done.append(True)
            at()

    with connect(trio.config) as client, pytest.raises(PartyError) as caught:
        client.run("net", (X,), progress=progress)
    assert done
    return caught.value


def served(trio: LocalTrio) -> bool:
    with connect(trio.config) as client:
        return right(client.infer("net", X))


def open_sessions(trio: LocalTrio, party: int) -> int:
    with connect(trio.config) as client:
        return client._parties.info()[party].sessions


def test_a_party_killed_is_named_and_after_its_restart_all_serve(trio: LocalTrio) -> None:
    party = 1
    error = interrupted(trio, trio.processes[party].kill)
    assert error.party == party
    assert error.reason in (AbortReason.DISCONNECTED, AbortReason.UNREACHABLE)
    with connect(trio.config) as client, pytest.raises(PartyUnreachable, match=trio.addresses[party]):
        client.infer("net", X)
    trio.launch(party)
    trio.wait(party)
    assert served(trio)
    until = time.monotonic() + DEADLINE
    while any(open_sessions(trio, p) for p in range(3)):
        assert time.monotonic() < until, "a session was not freed within the deadline"
        time.sleep(0.1)


def test_a_party_stalled_is_named_and_when_it_goes_on_all_serve(trio: LocalTrio) -> None:
    process = trio.processes[2]
    error = interrupted(trio, lambda: process.send_signal(signal.SIGSTOP))
    process.send_signal(signal.SIGCONT)
    assert error.party == 2
    assert error.reason in (AbortReason.DISCONNECTED, AbortReason.DEADLINE)
    assert served(trio)


class Garbling:
    """A transport of a faulty party: from its third frame on it sends something else."""

    def __init__(self, inner: Transport, fault: Callable[[bytes], bytes]) -> None:
        self.party, self._inner, self._fault, self._left = inner.party, inner, fault, 3

    def send(self, to: Neighbour, buffers: Sequence[Buffer]) -> None:
        self._left -= 1
        frame = b"".join(buffers)
        self._inner.send(to, [frame if self._left > 0 else self._fault(frame)])

    def receive(self, source: Neighbour, nbytes: int) -> memoryview:
        return self._inner.receive(source, nbytes)

    def close(self, reason: AbortReason = AbortReason.CLOSED) -> None:
        self._inner.close(reason)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configurations of three parties that serve in this process, so that a test can make one of them faulty."""
    folder = write_trio(tmp_path_factory.mktemp("servers"))
    for path in folder.glob("*.toml"):
        path.write_text(path.read_text().replace("[tls]", f"{LIMITS if path.name[:5] == 'party' else ''}[tls]"))
    return folder


LIMITS = f"limits = {{deadline_s = {DEADLINE}}}\n"


@pytest.fixture(scope="module")
def servers(folder: Path, program: Program) -> Iterator[list[PartyServer]]:
    with ExitStack() as stack:
        made = [stack.enter_context(PartyServer(config.load_party(folder / f"party{i}.toml"))) for i in range(3)]
        deploy(program, folder / "provider.toml", "net")
        yield made


def answers(folder: Path) -> bool:
    with connect(folder / "client.toml") as client:
        return right(client.infer("net", X))


@pytest.mark.parametrize(
    "fault", [lambda f: f[:-1], lambda f: f + b"x", lambda f: bytes(len(f))], ids=["short", "long", "zeros"]
)
@pytest.mark.usefixtures("servers")
def test_a_party_that_sends_garbage_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(session, "shape", lambda link, net: Garbling(link, fault) if link.party == 1 else link)
    with connect(folder / "client.toml") as client, pytest.raises(PartyError) as caught:
        client.infer("net", X)
    assert (caught.value.party, caught.value.reason) == (1, AbortReason.MALFORMED)
    monkeypatch.undo()
    assert answers(folder)


@pytest.mark.usefixtures("servers")
def test_an_output_share_that_was_changed_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = session.output_frames
    first: list[bool] = []

    def change(outputs: Any) -> Any:
        frames = honest(outputs)
        if not first:
            first.append(True)
            frames[0] = bytes([frames[0][0] ^ 1]) + bytes(frames[0][1:])
        return frames

    monkeypatch.setattr(session, "output_frames", change)
    with connect(folder / "client.toml") as client, pytest.raises(ProtocolError, match="cannot be trusted"):
        client.infer("net", X)
    assert first
    monkeypatch.undo()
    assert answers(folder)


@pytest.mark.usefixtures("servers")
def test_a_full_disk_is_said_and_nothing_half_written_stays(
    folder: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(vault.os, "fsync", full)
    with pytest.raises(PartyError, match="No space left on device") as caught:
        deploy(program, folder / "provider.toml", "more")
    assert caught.value.reason is AbortReason.STORAGE
    monkeypatch.undo()
    with connect(folder / "client.toml") as client:
        assert [m.name for m in client.models()] == ["net"]
    for party in range(3):
        assert [p.suffix for p in (folder / f"party{party}-data").iterdir()] == [".deployment"]
    assert answers(folder)


@pytest.mark.usefixtures("servers")
def test_memory_over_the_limit_is_refused(folder: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "resident", lambda: 1 << 60)
    with connect(folder / "client.toml") as client, pytest.raises(PartyError, match="memory limit") as caught:
        client.infer("net", X)
    assert caught.value.reason is AbortReason.LIMIT
    with pytest.raises(PartyError, match="memory limit"):
        deploy(program, folder / "provider.toml", "more")
    monkeypatch.undo()
    assert answers(folder)


@pytest.mark.usefixtures("servers")
def test_an_error_inside_a_party_tells_nothing_but_its_kind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("the share is 42")

    monkeypatch.setattr(engine, "execute", fail)
    with connect(folder / "client.toml") as client, pytest.raises(PartyError) as caught:
        client.infer("net", X)
    assert caught.value.reason is AbortReason.INTERNAL
    assert "42" not in str(caught.value)
    monkeypatch.undo()
    assert answers(folder)


def test_a_stored_model_that_was_changed_is_not_served(trio: LocalTrio) -> None:
    path = next((trio.directory / "data1").glob("*.deployment"))
    content = path.read_bytes()
    kept = store.Store(1, path.parent, 4, vault.load_key(trio.directory / "storage1.key"))
    whole = path.with_suffix(".whole")
    path.rename(whole)  # the party has the file open, and goes on with it
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    kept.reload()
    assert kept.models() == []
    path.write_bytes(content[:-1])
    kept.reload()
    assert kept.models() == []
    whole.rename(path)
    kept.reload()
    assert [d.model for d in kept.models()] == ["net"]


def test_parties_started_by_hand_serve(tmp_path: Path, program: Program) -> None:
    folder = write_trio(tmp_path / "t")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hush.parties.server", "--config"]
    log = (tmp_path / "log").open("wb")
    processes = [
        subprocess.Popen([*command, str(folder / f"party{i}.toml")], env=environment, stderr=log) for i in range(3)
    ]
    try:
        client_file = folder / "client.toml"
        identity = config.load_client(client_file).identity("client")
        addresses = config.load_client(client_file).parties
        while not all(health.ask(a, i, identity, 2.0).well for i, a in enumerate(addresses)):
            assert all(process.poll() is None for process in processes)
            time.sleep(0.1)
        deploy(program, folder / "provider.toml", "net")
        with connect(client_file) as client:
            assert right(client.infer("net", X))
        processes[0].terminate()
        assert processes[0].wait(30) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
        log.close()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    folder = write_trio(tmp_path / "t")
    (folder / "party-0.pem").unlink()
    command = [sys.executable, "-m", "hush.parties.server", "--config", str(folder / "party0.toml")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "party-0.pem" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_address_in_use_is_said(trio: LocalTrio, tmp_path: Path) -> None:
    folder = write_trio(tmp_path / "t")
    settings = config.load_party(folder / "party0.toml")
    with PartyServer(settings), pytest.raises(ConfigError, match="cannot listen on"):
        PartyServer(settings).start()


def test_blame_is_followed_to_its_root() -> None:
    def blames(party: int | None, reason: AbortReason = AbortReason.DEADLINE) -> PartyError:
        return PartyError(party, reason)

    def root(reports: dict[int, PartyError]) -> Any:
        return root_cause(reports, next(iter(reports))).party

    assert root({2: blames(0), 0: blames(1)}) == 1
    assert root({2: blames(0), 0: blames(1), 1: blames(2)}) in (0, 1)
    assert root({0: blames(1), 1: blames(0)}) == 1
    assert root({0: blames(1), 1: blames(1, AbortReason.INTERNAL)}) == 1
    assert root({0: blames(0, AbortReason.DISCONNECTED), 1: blames(0)}) == 0
    assert root({1: blames(0), 0: blames(None, AbortReason.CLOSED)}) == 0
    closed = AbortReason.CLOSED
    assert root({1: blames(2, closed), 2: blames(0, closed), 0: blames(1, AbortReason.DIGEST)}) == 1
    assert root({0: blames(None, closed)}) is None


def test_logs_of_a_failure_name_reason_and_party(trio: LocalTrio) -> None:
    events = [json.loads(line) for p in range(3) for line in trio.log(p).splitlines() if line.startswith("{")]
    assert all(e["reason"] in AbortReason.__members__ for e in events if e["event"] == "call failed")
