"""Sessions give back what they hold when they end, well or not, without waiting for the collector of cycles."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from parties_harness import write_trio
from support.programs import compiled
from torch import nn

from hush.mpc.errors import PartyError
from hush.mpc.ring import backends
from hush.parties import config, engine, health
from hush.parties.client import connect, deploy
from hush.parties.device_memory import Card
from hush.parties.footprint import footprint
from hush.parties.server import PartyServer

X = torch.linspace(-1, 1, 16).reshape(2, 8)


class _Trio:
    """Three servers in this process, each with a card that has room for one session and a half."""

    def __init__(self, folder: Path) -> None:
        program = compiled(nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3)), (X,))
        self.folder, need = write_trio(folder), footprint(program)
        for path in self.folder.glob("party*.toml"):
            path.write_text(path.read_text().replace("[tls]", "limits = {deadline_s = 6.0}\n[tls]"))
        most = need.weights + need.work * 3 // 2
        self.cards = [Card(backends.get(), most) for _ in range(3)]
        self.configs = [config.load_party(self.folder / f"party{i}.toml") for i in range(3)]
        self.servers = [PartyServer(c, card) for c, card in zip(self.configs, self.cards, strict=True)]
        for server in self.servers:
            server.start()
        deploy(program, self.folder / "provider.toml", "net")

    def infer(self) -> None:
        """One session."""
        with connect(self.folder / "client.toml") as client:
            client.infer("net", X)

    @property
    def open(self) -> int:
        """Sessions that have room on a card."""
        return sum(len(work) for card in self.cards for work in card._work)


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[_Trio]:
    made = _Trio(tmp_path)
    gc.collect()
    gc.disable()
    try:
        yield made
    finally:
        gc.enable()
        for server in made.servers:
            server.stop()


def _until(true: Callable[[], bool]) -> bool:
    until = time.monotonic() + 10
    while not true() and time.monotonic() < until:
        time.sleep(0.02)
    return true()


def test_good_and_failed_sessions_leave_nothing_behind(trio: _Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next session finds room, and the tensors of a failed run are gone at once."""
    trio.infer()
    assert _until(lambda: trio.open == 0)
    held: list[weakref.ref[torch.Tensor]] = []

    def failing(*_: object, **__: object) -> Iterator[None]:
        big = torch.zeros(1000)
        held.append(weakref.ref(big))
        yield from ()
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    real = engine.execute
    monkeypatch.setattr(engine, "execute", failing)
    with pytest.raises(PartyError):
        trio.infer()
    monkeypatch.setattr(engine, "execute", real)
    assert held
    assert _until(lambda: trio.open == 0)
    assert _until(lambda: all(ref() is None for ref in held))
    trio.infer()


def test_a_party_whose_gpu_is_lost_says_so_and_takes_no_session(trio: _Trio) -> None:
    trio.cards[1]._lose("cuda:0 failed: restart the party, on another GPU or the CPU")
    with pytest.raises(PartyError, match="cuda:0 failed: restart the party") as refused:
        trio.infer()
    assert refused.value.party == 1
    asked = health.ask(trio.configs[1].address, 1, trio.configs[0].identity(), 5.0)
    assert not asked.well
    assert health.ask(trio.configs[0].address, 0, trio.configs[1].identity(), 5.0).well
