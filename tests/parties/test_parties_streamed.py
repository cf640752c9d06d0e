"""Weights that stay seeds where a party computes: which may, and that answers and costs are the same."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

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
from hush.mpc.ring.cuda import rows
from hush.mpc.ring.seeded import Seeded
from hush.parties.threads import ThreadTrio

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 104)).eval()
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
            assert sum(isinstance(p, Seeded) for pair in parts for p in pair) == (8 if seeds else 0)
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
