"""Weights that stay seeds where a party computes: which may, and that answers and costs are the same."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.programs import compiled
from torch import Tensor, nn

from hush.mpc.compiler import compile_module
from hush.mpc.ring import backends
from hush.mpc.ring.seeded import Seeded
from hush.mpc.secret import Shared
from hush.parties import shares
from hush.parties.placement import Placed
from hush.parties.streamed import streamed
from hush.parties.threads import ThreadTrio
from hush.parties.wire import frame_bytes


class _Uses(nn.Module):
    """Weights that are multiplied by, looked up, added, and both."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(8, 6)
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 6, bias=False)
        self.norm, self.mixed = nn.LayerNorm(6), nn.Parameter(torch.rand(6, 6))
        self.conv = nn.Conv1d(6, 6, 1)

    def forward(self, ids: Tensor) -> Tensor:
        """[1, 6] -> [1, 6, 6]."""
        x = self.norm(self.second(torch.relu(self.first(self.table(ids)))))
        x = self.conv(x.transpose(1, 2)).transpose(1, 2)
        return (x @ self.mixed) * self.mixed


def test_what_is_only_multiplied_by_may_stay_seeds() -> None:
    program = compile_module(_Uses().eval(), (torch.tensor([[1, 2, 3, 4, 5, 6]]),))
    by_shape = {spec.name: tuple(spec.shape) for spec in program.weight_specs}
    assert sorted(by_shape[name] for name in streamed(program)) == [(6, 16), (16, 6)]
    public = compile_module(_Uses().eval(), (torch.tensor([[1, 2, 3, 4, 5, 6]]),), weights="public")
    assert streamed(public) == frozenset()


def test_tied_tables_are_looked_up_and_stay_expanded() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(8, 6)

        def forward(self, ids: Tensor) -> Tensor:
            return self.table(ids) @ self.table.weight.T

    program = compile_module(Tied().eval(), (torch.tensor([[1, 2]]),))
    looked_up = {s.name for s in program.weight_specs if tuple(s.shape) == (8, 6)}
    assert not streamed(program) & looked_up


def test_every_turn_of_a_program_that_generates_counts() -> None:
    """What one turn multiplies by and another adds would be expanded whole by the other."""

    class Multiplies(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.rand(6, 6))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.w

    class Adds(Multiplies):
        def forward(self, x: Tensor) -> Tensor:
            return x * self.w

    first, other = (compile_module(made().eval(), (torch.rand(6, 6),)) for made in (Multiplies, Adds))
    names = {spec.name for spec in first.weight_specs}
    assert names == {spec.name for spec in other.weight_specs}
    for firsts, then in (((first,), first), ((first, other), first), ((first,), other)):
        program: Any = SimpleNamespace(
            weights_mode="secret",
            weight_specs=first.weight_specs,
            firsts=firsts,
            generation=SimpleNamespace(then=then),
        )
        assert streamed(program) == (names if other not in (*firsts, then) else set())


def test_sessions_that_start_together_place_each_weight_once() -> None:
    program = compiled(nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4)), (torch.zeros(2, 8),))
    kernels: Any = SimpleNamespace(seeds=True, device=torch.device("cpu"), keystream=backends.get().keystream)
    asked: list[str] = []

    class Slow(dict[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            asked.append(name)
            time.sleep(0.01)
            return super().__getitem__(name)

    source, placed = Slow({s.name: torch.zeros(s.shape) for s in program.weight_specs}), Placed(kernels)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(placed.weights, [source] * 3))
    assert sorted(asked) == sorted(source)
    assert all(weights.keys() == source.keys() for weights in found)


def test_a_trio_that_is_closed_holds_no_weights() -> None:
    program = compiled(nn.Linear(8, 4), (torch.ones(2, 8),))
    trio = ThreadTrio(program)
    engines = trio._engines
    held = [weakref.ref(p) for e in engines for v in e.placed._weights.values() for p in v.parts]  # type: ignore[union-attr]
    assert held
    trio.infer((torch.rand(2, 8),))
    trio.close()
    assert len(engines) == 3
    assert all(ref() is None for ref in held)


def test_seeds_are_expanded_where_they_are_placed_but_for_those_that_stay() -> None:
    program = compiled(nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)), (torch.zeros(2, 8),))
    names, kernels = [s.name for s in program.weight_specs], backends.get()
    chosen = streamed(program)
    assert len(chosen) == 2
    for index, frames in enumerate(shares.weight_frames(program)):
        for party, frame in enumerate(frames):
            value = shares.unpack_weight(party, program, [], index, frame_bytes(frame), seeded=True)
            whole = shares.unpack_weight(party, program, [], index, frame_bytes(frame))
            placed = Placed(kernels, chosen)
            placed.take(names[index], value)
            made = placed._weights[names[index]]
            assert isinstance(value, Shared)
            assert isinstance(made, Shared)
            assert isinstance(whole, Shared)
            seeds = [isinstance(part, Seeded) for part in made.parts]
            assert sum(seeds) == (0 if names[index] not in chosen else 2 if party == 0 else 1)
            assert all(torch.equal(a + 0, b) for a, b in zip(made.parts, whole.parts, strict=True))


RUN = """
import torch
from torch import nn
from hush.mpc.compiler import compile_module
from hush.mpc.ring import backends
from hush.mpc.ring.cuda import rows
from hush.mpc.ring.seeded import Seeded
from hush.parties.threads import ThreadTrio

torch.manual_seed(0)
vars(backends.get("cuda"))["keystream"] = backends.get().keystream  # the same numbers, in no time
net = nn.Linear(8, 104)
count, real = [0, 0], rows.product

def product(left, right):
    count[isinstance(right, Seeded)] += 1
    return real(left, right)

rows.product = product
for n in (2, 11):
    x = torch.randn(n, 8)
    program = compile_module(net, (x,))
    made = []
    for seeds in (False, True):
        count[:] = 0, 0
        with ThreadTrio(program, backend="cuda", seeds=seeds) as trio:
            made.append(trio.infer((x,)))
            parts = [v.parts for e in trio._engines for v in e.placed._weights.values()]
            assert sum(isinstance(p, Seeded) for pair in parts for p in pair) == (4 if seeds else 0)
        assert bool(count[1]) == (seeds and n == 2), count
        assert float((made[-1].output - net(x)).detach().abs().max()) < 1e-3
    assert made[0].report.cost == made[1].report.cost
print("alike")
"""


@pytest.mark.cuda
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton")
def test_parties_with_seeds_answer_alike_at_one_cost() -> None:
    """Few rows, which expand them as they multiply, and more, which expand them first."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "alike" in done.stdout


SERVED = """
import sys
from pathlib import Path
import torch
from torch import nn
from parties_harness import write_trio
from hush.mpc.compiler import compile_module
from hush.mpc.ring import backends
from hush.mpc.ring.seeded import Seeded
from hush.parties import config, vault, weights
from hush.parties.client import connect, deploy
from hush.parties.device_memory import Card
from hush.parties.server import PartyServer

folder, stored, seeds = Path(sys.argv[1]), sys.argv[2] == "True", sys.argv[3] == "True"
torch.manual_seed(0)
net = nn.Linear(8, 40)
x = torch.linspace(-1, 1, 16).reshape(2, 8)
loads, real = [0], weights.StoredWeights._load

def load(self, index):
    loads[0] += 1
    return real(self, index)

weights.StoredWeights._load = load
write_trio(folder)
for i in range(3):
    path = folder / f"party{i}.toml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith(("data_dir", "storage_key"))]
    more = 'device = "cuda"\\nlimits = {deadline_s = 60.0}\\n'
    if stored:
        vault.create_key(folder / f"key{i}")
        more += f"data_dir = 'data{i}'\\nstorage_key = 'key{i}'\\n"
    path.write_text("\\n".join(lines).replace("[tls]", more + "[tls]") + "\\n")
kernels = backends.get("cuda")
vars(kernels)["keystream"] = backends.get().keystream  # the same numbers, in no time
cards = [Card(kernels, 1 << 40) for _ in range(3)]
if seeds:
    for card in cards:
        card.claims = lambda parties, program, tenant, of=card.claims, **_: of(parties, program, tenant, seeds=True)
servers = [PartyServer(config.load_party(folder / f"party{i}.toml"), cards[i]) for i in range(3)]
for server in servers:
    server.start()
deploy(compile_module(net, (x,)), folder / "provider.toml", "net")
for session in range(2):
    with connect(folder / "client.toml") as client:
        answer = client.infer("net", x)
        assert float((answer - net(x)).detach().abs().max()) < 1e-3
    placed = [m.placed for c in cards for models in c._models for m in models.values()]
    assert len(placed) == 3
    held = [p for one in placed for v in one._weights.values() for p in v.parts]
    assert sum(isinstance(p, Seeded) for p in held) == (4 if seeds else 0)
    assert loads[0] == (6 if stored else 0), loads
    assert all(server._store.seeds for server in servers)
print("served")
import os
os._exit(0)
"""


@pytest.mark.cuda
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton")
@pytest.mark.parametrize(("stored", "seeds"), [(False, True), (True, False)])
def test_servers_place_a_model_once_from_memory_or_from_disk(stored: bool, seeds: bool, tmp_path: Path) -> None:
    """Two sessions: the second reads, decrypts and places nothing again."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths}
    command = [sys.executable, "-c", SERVED, str(tmp_path), str(stored), str(seeds)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert "served" in done.stdout, done.stderr[-3000:]
