"""Deployments that are interrupted, damaged, or do not fit: they go on, or leave nothing, and never half serve."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from parties_harness import write_trio
from torch import Tensor, nn

from hush.mpc.compiler import Program, WeightSpec, compile_module
from hush.mpc.errors import AbortReason, PartyError, ProgramError
from hush.parties import config, memory, provider, resume, shares, shelf, store, vault
from hush.parties.cli import main
from hush.parties.client import connect, deploy, remove
from hush.parties.server import PartyServer
from hush.parties.weights import FIRST, StoredWeights
from hush.proto.party_pb2 import Copies

X = torch.linspace(-1, 1, 16).reshape(2, 8)
LIMITS = "limits = {deadline_s = 8}\n"


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3)).eval()


@pytest.fixture(scope="module")
def program() -> Program:
    return compile_module(network(), (X,))


class Trio:
    """Three parties that serve in this process and keep models on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._running = folder, dict[int, ExitStack]()
        for party in range(3):
            self.start(party)

    def start(self, party: int) -> PartyServer:
        stack = ExitStack()
        server = stack.enter_context(PartyServer(config.load_party(self.folder / f"party{party}.toml")))
        self._running[party] = stack
        return server

    def stop(self, party: int) -> None:
        self._running.pop(party).close()

    def restart(self) -> None:
        for party in range(3):
            self.stop(party)
        for party in range(3):
            self.start(party)

    def close(self) -> None:
        for party in list(self._running):
            self.stop(party)

    # ------------------------------------------------------------------ what there is
    @property
    def provider(self) -> Path:
        return self.folder / "provider.toml"

    @property
    def ticket(self) -> Path:
        return self.folder / "net.deploying"

    def data(self, party: int) -> Path:
        return self.folder / f"party{party}-data"

    def files(self, suffix: str = "") -> list[list[str]]:
        """Each party's files by suffix."""
        return [sorted(p.suffix for p in self.data(i).glob("*" + suffix)) for i in range(3)]

    def models(self) -> list[str]:
        with connect(self.folder / "client.toml") as client:
            return [m.name for m in client.models()]

    def answer(self, model: str = "net") -> Tensor:
        with connect(self.folder / "client.toml") as client:
            found: Tensor = client.infer(model, X)
            return found

    def settle(self) -> None:
        """Wait until the parties have noticed that the provider is gone."""
        until = time.monotonic() + 20
        while any(self.store(i)._arriving or self.store(i)._staged for i in range(3)):
            assert time.monotonic() < until
            time.sleep(0.02)

    def idle(self) -> None:
        """Wait until no session is open: they end a moment after their client."""
        until = time.monotonic() + 20
        while any(self.store(i)._users.total() for i in range(3)):
            assert time.monotonic() < until
            time.sleep(0.02)

    def store(self, party: int) -> store.Store:
        return STORES[party]


STORES: dict[int, store.Store] = {}


@pytest.fixture
def trio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trio]:
    folder = write_trio(tmp_path / "t")
    for path in folder.glob("party*.toml"):
        path.write_text(path.read_text().replace("[tls]", f"{LIMITS}[tls]"))
    honest = store.Store.__init__

    def noted(self: store.Store, party: int, *args: Any, **options: Any) -> None:
        honest(self, party, *args, **options)
        STORES[party] = self

    monkeypatch.setattr(store.Store, "__init__", noted)
    made = Trio(folder)
    yield made
    made.close()


def right(answer: Tensor, seed: int = 0) -> bool:
    with torch.no_grad():
        return torch.allclose(answer, network(seed)(X), atol=2e-3)


class Killed(BaseException):
    """The provider's end, in the middle of things."""


def interrupted(trio: Trio, program: Program, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment whose provider ends after so many weights."""
    honest, sent = provider._send_together, [0]

    def stop(wires: Any, frames: Any) -> None:
        if sent[0] == after:
            until = time.monotonic() + 20  # what was sent has arrived: how far it got is decided
            while any(i.held < after for s in STORES.values() for i in s._arriving.values()):
                assert time.monotonic() < until
                time.sleep(0.01)
            raise Killed
        sent[0] += 1
        honest(wires, frames)

    monkeypatch.setattr(provider, "_send_together", stop)
    with pytest.raises(Killed):
        deploy(program, trio.provider, "net", resume=trio.ticket)
    monkeypatch.setattr(provider, "_send_together", honest)
    trio.settle()


def resumed(trio: Trio, program: Program) -> list[int]:
    """The same deployment again: what its progress says."""
    seen: list[int] = []
    deploy(program, trio.provider, "net", resume=trio.ticket, progress=lambda count, of: seen.append(count))
    return seen


# ---------------------------------------------------------------------- at rest
def test_models_are_reloaded_and_come_to_memory_when_used(trio: Trio, program: Program) -> None:
    other = compile_module(network(1), (X,))
    deploy(program, trio.provider, "net")
    deploy(other, trio.provider, "other")
    numbers = sum(torch.Size(s.shape).numel() for s in program.weight_specs)
    trio.restart()
    assert trio.models() == ["net", "other"]
    weights = [trio.store(i).find("net").weights for i in range(3)]
    assert all(isinstance(w, StoredWeights) and w.missing == 16 * numbers for w in weights)
    assert right(trio.answer("net"), 0)
    assert right(trio.answer("other"), 1)
    assert [w.missing for w in weights if isinstance(w, StoredWeights)] == [0, 0, 0]
    sizes = [next(trio.data(i).glob("*.deployment")).stat().st_size for i in range(3)]
    assert (
        sizes[1] - sizes[0]
        == sizes[2] - sizes[0]
        == sum(
            vault.stored_size(8 * torch.Size(s.shape).numel() + 32) - vault.stored_size(64)
            for s in program.weight_specs
        )
    )  # party 0 stores two seeds a weight
    assert remove(trio.provider, "net")
    assert trio.files() == [[".deployment"]] * 3


def test_weights_that_nobody_uses_make_room(trio: Trio, program: Program) -> None:
    """The longest unused first, and never those of a session that is open."""
    for model in ("net", "other"):
        deploy(program, trio.provider, model)
        assert right(trio.answer(model))
    trio.idle()
    numbers = sum(torch.Size(s.shape).numel() for s in program.weight_specs)
    for party in range(3):
        kept = trio.store(party)
        net, other = kept.find("net"), kept.find("other")

        def fits(kept: store.Store = kept) -> bool:
            return sum(16 * numbers - d.missing for d in kept.models()) <= 16 * numbers

        assert not fits()
        with kept.using(net), kept.using(other):
            assert not kept.relieve(fits)
        with kept.using(net):
            pass  # so that it is the one used last
        assert kept.relieve(fits)
        assert (net.missing, other.missing) == (0, 16 * numbers)
    assert right(trio.answer("other"))
    assert trio.store(0).find("other").missing == 0


def test_room_is_made_before_a_session_is_refused(
    trio: Trio, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in ("net", "other"):
        deploy(program, trio.provider, model)
    assert right(trio.answer("other"))
    trio.idle()
    loaded, calls = trio.store(1).find("other"), [0]

    def resident() -> int:
        calls[0] += 1
        return 0 if loaded.missing else 1 << 60

    monkeypatch.setattr(memory, "resident", resident)
    for party in (0, 2):  # in this process three share what is one party's
        weights = trio.store(party).find("other").weights
        assert isinstance(weights, StoredWeights)
        weights.drop()
    while not loaded.missing:
        with suppress(PartyError):  # of parties that have nothing to drop
            assert right(trio.answer("net"))
    assert right(trio.answer("net"))
    assert calls[0] > 3


@pytest.mark.parametrize("where", ["weight", "end", "cut", "key"])
def test_a_file_that_cannot_be_read_is_said_and_the_others_serve(
    trio: Trio, program: Program, where: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    deploy(program, trio.provider, "net")
    (path,) = trio.data(1).glob("*.deployment")
    deploy(program, trio.provider, "other")
    trio.stop(1)
    content, complaint = path.read_bytes(), "is damaged, or was changed"
    if where == "weight":
        place = len(content) // 2
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    elif where == "end":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif where == "cut":
        path.write_bytes(content[: len(content) // 2])
        complaint = "cut short"
    else:
        key = trio.folder / "k"
        vault.create_key(key)
        theirs = vault.Writer(path, vault.Seal(vault.load_key(key), bytes.fromhex(path.stem), 1))
        theirs.close()
        complaint = "another storage key"
    with caplog.at_level(logging.ERROR):
        trio.start(1)
        with pytest.raises(PartyError) as caught:
            trio.answer("net")
    if where == "key":  # not even its name can be read
        assert caught.value.reason is AbortReason.UNKNOWN_MODEL
    else:
        assert (caught.value.party, caught.value.reason) == (1, AbortReason.STORAGE) or where != "weight"
        with pytest.raises(PartyError, match=complaint):
            trio.store(1).find("net")
    assert complaint in " ".join(str(r.__dict__.get("detail")) for r in caplog.records)
    assert trio.models() == ["other"]
    assert right(trio.answer("other"))
    capfd.readouterr()
    assert main(["doctor", "--config", str(trio.folder / "party1.toml")]) == 1
    out = " ".join(capfd.readouterr().out.split())
    assert "whole" in out
    assert main(["doctor", "--config", str(trio.folder / "party0.toml")]) == 0
    deploy(program, trio.provider, "net")
    assert right(trio.answer("net"))
    if where != "key":
        assert trio.files(".deployment") == [[".deployment"] * 2] * 3  # the damaged one is gone


# ---------------------------------------------------------------------- what does not fit
@pytest.mark.parametrize("ticketed", [True, False])
def test_a_disk_that_is_full_in_the_middle_leaves_nothing(
    trio: Trio, program: Program, ticketed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(program, trio.provider, "old")
    honest, left = vault.Writer._write, [6000]

    def full(self: vault.Writer, data: bytes) -> None:
        if self.path.parent == trio.data(2):
            left[0] -= len(data)
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        honest(self, data)

    left[0] += len(program.data)
    monkeypatch.setattr(vault.Writer, "_write", full)
    with pytest.raises(PartyError, match="No space left on device") as caught:
        deploy(program, trio.provider, "net", resume=trio.ticket if ticketed else None)
    assert (caught.value.party, caught.value.reason) == (2, AbortReason.STORAGE)
    monkeypatch.undo()
    trio.settle()
    assert trio.files() == [[".deployment"]] * 3
    assert not trio.ticket.exists()
    assert trio.models() == ["old"]
    trio.restart()
    assert trio.models() == ["old"]
    assert right(trio.answer("old"))


def test_what_will_not_fit_is_refused_before_it_is_sent(
    trio: Trio, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shelf.shutil.disk_usage("/")
    monkeypatch.setattr(shelf.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    sent: list[int] = []
    with pytest.raises(PartyError, match="MB are needed"):
        deploy(program, trio.provider, "net", progress=lambda count, of: sent.append(count))
    assert trio.files() == [[], [], []]


def test_a_real_full_disk(trio: Trio, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system of 16 KB, where that can be had, which is said to have room."""
    usage = shelf.shutil.disk_usage("/")
    monkeypatch.setattr(shelf.shutil, "disk_usage", lambda path: usage._replace(free=1 << 40))
    trio.stop(1)
    trio.data(1).mkdir(exist_ok=True)
    if os.system(f"mount -t tmpfs -o size=16k none {trio.data(1)} 2>/dev/null"):
        pytest.skip("no file system can be mounted here")
    try:
        trio.start(1)
        with pytest.raises(PartyError) as caught:
            deploy(program, trio.provider, "net", resume=trio.ticket)
        assert (caught.value.party, caught.value.reason) == (1, AbortReason.STORAGE)
        assert "No space left on device" in caught.value.detail
        trio.settle()
        assert trio.files() == [[], [], []]
        assert trio.models() == []
    finally:
        os.system(f"umount -l {trio.data(1)}")


# ---------------------------------------------------------------------- interrupted
def test_an_interrupted_deployment_goes_on_where_it_stopped(
    trio: Trio, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = len(program.weight_specs)
    interrupted(trio, program, total // 2, monkeypatch)
    assert trio.models() == []
    assert trio.files() == [[".partial"]] * 3
    assert stat.S_IMODE(trio.ticket.stat().st_mode) == 0o600
    trio.restart()
    assert trio.models() == []
    assert resumed(trio, program) == list(range(total // 2, total + 1))
    assert trio.files() == [[".deployment"]] * 3
    assert not trio.ticket.exists()
    assert right(trio.answer())
    trio.restart()
    assert right(trio.answer())


def test_parties_that_hold_different_parts_are_each_given_the_rest(
    trio: Trio, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one party's file the end is missing, of another's a weight in the middle is damaged."""
    total = len(program.weight_specs)
    interrupted(trio, program, total - 1, monkeypatch)
    for party, spoil in ((1, lambda b: b[:-3]), (2, lambda b: b[: len(b) - 4000] + b"\0" * 8 + b[len(b) - 3992 :])):
        (path,) = trio.data(party).glob("*.partial")
        path.write_bytes(spoil(path.read_bytes()))
    seen = resumed(trio, program)
    assert 0 < seen[0] < total - 1
    assert seen == list(range(seen[0], total + 1))
    assert right(trio.answer())


def test_weights_that_changed_meanwhile_are_dealt_anew(
    trio: Trio, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parties keep no share of the old weights, and the new ones come under another secret."""
    total = len(program.weight_specs)
    interrupted(trio, program, total - 1, monkeypatch)
    before = json.loads(trio.ticket.read_text())
    changed = network()
    with torch.no_grad():
        changed[0].weight[0, 0] += 0.125
        due = changed(X)
    seen = resumed(trio, program.bind(changed))
    try:
        assert seen == list(range(1, total + 1))
        assert trio.files() == [[".deployment"]] * 3
        assert trio.store(0).find("net").id.hex() != before["deployment"]
        assert torch.allclose(trio.answer(), due, atol=2e-3)
    finally:
        program.bind(network())


def test_a_weight_that_changed_before_it_was_sent_goes_on(
    trio: Trio, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = len(program.weight_specs)
    interrupted(trio, program, 1, monkeypatch)
    held = json.loads(trio.ticket.read_text())["deployment"]
    first = program.weight_specs[0].name
    changed = network(2)
    mixed = compile_module(changed, (X,)).recipe and dict(program.bind(changed).weights or {})
    mixed[first] = dict(program.bind(network()).weights or {})[first]
    program.weights = mixed
    try:
        assert resumed(trio, program) == list(range(1, total + 1))
        assert trio.store(0).find("net").id.hex() == held
    finally:
        program.bind(network())


def test_a_deployment_whose_last_word_was_lost_is_dealt_anew(
    trio: Trio, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parties serve it, and the provider did not hear so. Weights that changed since must not pass for deployed."""
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda self, **k: None if self == trio.ticket else unlink(self, **k))
    deploy(program, trio.provider, "net", resume=trio.ticket)
    monkeypatch.undo()
    before = trio.store(0).find("net").id
    assert trio.ticket.exists()
    try:
        assert resumed(trio, program.bind(network(3))) == list(range(1, len(program.weight_specs) + 1))
        assert trio.store(0).find("net").id != before
        assert trio.files() == [[".deployment"]] * 3
        assert not trio.ticket.exists()
        assert right(trio.answer(), 3)
    finally:
        program.bind(network())


@pytest.mark.parametrize("how", ["age", "start", "success", "word"])
def test_what_is_stale_is_removed(trio: Trio, program: Program, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(trio, program, 2, monkeypatch)
    parts = [next(trio.data(i).glob("*.partial")) for i in range(3)]
    old = time.time() - store.AGE - 60
    if how in ("age", "start"):
        for part in parts:
            os.utime(part, (old, old))
    if how == "age":
        deploy(program, trio.provider, "other")
    elif how == "start":
        trio.restart()
    elif how == "success":
        deploy(program, trio.provider, "net")
    else:
        deployment = bytes.fromhex(parts[0].stem)
        for party in range(3):
            trio.store(party).give_up(deployment)
    assert not any(part.exists() for part in parts)
    assert resumed(trio, program)[0] == 1
    assert right(trio.answer())


def test_what_is_given_up_while_it_arrives_is_not_kept(tmp_path: Path, program: Program) -> None:
    kept = store.Store(0, tmp_path / "d", 2, bytes(32))
    header = _header(program)
    kept.begin(header, program.data, program).add(memoryview(bytes(64)))
    kept.give_up(header.deployment)
    kept.discard(header.deployment, keep=True)
    assert list((tmp_path / "d").iterdir()) == []


def test_few_interrupted_deployments_are_kept(tmp_path: Path, program: Program) -> None:
    """The one that goes on is not among those that make room."""
    kept, headers = store.Store(0, tmp_path / "d", 9, bytes(32)), [_header(program) for _ in range(7)]
    for age, header in enumerate(headers):
        kept.begin(header, program.data, program).add(memoryview(bytes(64)))
        kept.discard(header.deployment, keep=True)
        when = time.time() - 1000 + age
        os.utime(tmp_path / "d" / f"{header.deployment.hex()}.partial", (when, when))
    left = sorted((tmp_path / "d").iterdir(), key=lambda p: p.stat().st_mtime)
    assert [p.stem for p in left] == [h.deployment.hex() for h in headers[-5:]]
    assert kept.begin(headers[-5], program.data, program).held == 1


def test_without_a_ticket_nothing_is_kept(trio: Trio, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(wires: Any, frames: Any) -> None:
        raise Killed

    monkeypatch.setattr(provider, "_send_together", stop)
    with pytest.raises(Killed):
        deploy(program, trio.provider, "net")
    trio.settle()
    assert trio.files() == [[], [], []]


def test_weights_that_are_missing_are_said_before_anything_is_sent(trio: Trio, program: Program) -> None:
    with pytest.raises(ProgramError, match="bind it"):
        deploy(compile_like(program), trio.provider, "net", resume=trio.ticket)
    assert not trio.ticket.exists()


def compile_like(program: Program) -> Program:
    """The same program as a file has it: without weights."""
    from hush.mpc.compiler import parse

    return parse(program.data)


# ---------------------------------------------------------------------- seeds
SPEC = WeightSpec("w", (2, 3), 18)
ELEMENTS = torch.arange(6).reshape(2, 3)


def _ticket(path: Path) -> resume.Ticket:
    return resume.take(path, {"model": "m", "program": "p", "roster": "r"})


def test_seeds_are_the_same_for_the_same_weight_and_for_no_other(tmp_path: Path) -> None:
    ticket = _ticket(tmp_path / "t")
    again = _ticket(tmp_path / "t")
    assert again.again
    assert again.seeds(3, SPEC, ELEMENTS) == ticket.seeds(3, SPEC, ELEMENTS)
    changed = ELEMENTS.clone()
    changed[1, 2] += 1
    others: Sequence[Callable[[], tuple[bytes, bytes]]] = (
        lambda: ticket.seeds(3, SPEC, changed),
        lambda: ticket.seeds(4, SPEC, ELEMENTS),
        lambda: ticket.seeds(3, WeightSpec("v", (2, 3), 18), ELEMENTS),
        lambda: ticket.seeds(3, WeightSpec("w", (2, 3), 17), ELEMENTS),
        lambda: ticket.seeds(3, WeightSpec("w", (3, 2), 18), ELEMENTS.reshape(3, 2)),
        lambda: _ticket(tmp_path / "u").seeds(3, SPEC, ELEMENTS),
    )
    found = [seed for pair in (ticket.seeds(3, SPEC, ELEMENTS), *(make() for make in others)) for seed in pair]
    assert len(set(found)) == len(found)
    assert {len(seed) for seed in found} == {32}


def test_a_ticket_is_for_one_program_name_and_roster(tmp_path: Path) -> None:
    first = _ticket(tmp_path / "t")
    what = {"model": "m", "program": "p", "roster": "r"}
    for key in what:
        other = resume.take(tmp_path / "t", what | {key: "another"})
        assert not other.again
        assert (other.deployment, other.secret) != (first.deployment, first.secret)
        first = resume.take(tmp_path / "t", what)
    (tmp_path / "t").write_text("{}")
    assert not _ticket(tmp_path / "t").again
    assert first.secret.hex() not in repr(first)


def test_what_is_dealt_again_is_what_was_dealt(program: Program, tmp_path: Path) -> None:
    """Bit for bit, from any weight on; and the hashes before it are those that the parties give of it."""
    ticket, header = _ticket(tmp_path / "t"), _header(program)
    once = [[b"".join(p) for p in f] for f in shares.weight_frames(program, ticket.seeds)]
    from_2 = [[b"".join(p) for p in f] for f in shares.weight_frames(program, ticket.seeds, 2)]
    assert from_2 == once[2:]
    assert once != [[b"".join(p) for p in f] for f in shares.weight_frames(program)]
    copying = [shares.Copying(party, program, header) for party in range(3)]
    dealt = list(shares.dealt_prefix(program, header, ticket.seeds))
    for count in range(len(once) + 1):
        for party in range(3):
            told = copying[party].seeds()
            assert shares.matches(told, party, dealt[count])
            assert not shares.matches(told, party, dealt[count - 1])
            assert b"" in (told.own, told.next) or party == 0  # nothing of component 2
            if not count:
                continue
            assert not shares.matches(Copies(own=told.next, next=told.own, common=told.common), party, dealt[count])
        for party in range(3 if count < len(once) else 0):
            copying[party].add(program.weight_specs[count], once[count][party])


def test_public_weights_go_on_as_well(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    public = compile_module(network(), (X,), weights="public")
    interrupted(trio, public, 2, monkeypatch)
    assert resumed(trio, public)[0] == 2
    assert right(trio.answer())


def _header(program: Program) -> Any:
    from hush.parties.keys import VERSION
    from hush.proto.party_pb2 import Deploy

    header = Deploy(version=VERSION, model="m", deployment=os.urandom(16), program=bytes.fromhex(program.digest))
    header.resumable = True
    return header


def test_a_kept_part_is_of_the_announcement_it_began_with(tmp_path: Path, program: Program) -> None:
    """Under the same id, another name or program begins anew."""
    kept = store.Store(0, tmp_path / "d", 4, bytes(32))
    header = _header(program)
    kept.begin(header, program.data, program).add(memoryview(bytes(64)))
    kept.discard(header.deployment, keep=True)
    assert FIRST == 2
    again = kept.begin(header, program.data, program)
    assert again.held == 1
    kept.discard(header.deployment, keep=True)
    header.model = "n"
    assert kept.begin(header, program.data, program).held == 0
