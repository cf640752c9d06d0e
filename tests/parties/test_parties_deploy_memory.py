"""What deploying takes in memory: the largest tensor decides, not the model, at the provider and at the parties."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hush.mpc.compiler import compile_module
from hush.parties.client import connect
from hush.parties.config import Limits
from hush.parties.local import LocalTrio

WIDTH, LAYERS = 900, 60
FLOATS = 4 * WIDTH * WIDTH  # bytes of one tensor as the checkpoint has it
X = torch.linspace(-1, 1, WIDTH)[None]

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")


class Tall(nn.Module):
    """Many matrices, all alike, and no more than a row of activations."""

    def __init__(self) -> None:
        super().__init__()
        numbers = torch.Generator().manual_seed(0)
        scale = WIDTH**-0.5
        made = [torch.randn(WIDTH, WIDTH, generator=numbers) * scale for _ in range(LAYERS)]
        self.layers = nn.ParameterList([nn.Parameter(m, requires_grad=False) for m in made])

    def forward(self, x: Tensor) -> Tensor:
        """[1, WIDTH] -> [1, WIDTH]."""
        for layer in self.layers:
            x = torch.relu(x @ layer)
        return x


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    """A program file and a checkpoint in two shards; and what the network gives."""
    here = tmp_path_factory.mktemp("tall")
    module = Tall().eval()
    compile_module(module, (X,)).save(here / "tall.hush")
    state = dict(module.state_dict())
    index = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(state)}
    for file in set(index.values()):
        save_file({n: t for n, t in state.items() if index[n] == file}, str(here / file))
    (here / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (here / "config.json").write_text(json.dumps({"model_type": "tall"}))
    return here, module(X)


PROVIDER = """
import sys
from pathlib import Path
from hush.parties import cli, provider
from hush.parties.cli import deploy
def peak():
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))
before = peak()
status = cli.main(sys.argv[1:])
print(f"peak {before} {peak()}")
sys.exit(status)
"""


def peak(process: int) -> int:
    """Largest resident memory of a process so far, in bytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def test_memory_is_bounded_by_the_largest_tensor(folder: tuple[Path, Tensor]) -> None:
    """A model of 194 MB, 389 MB as shares: each process grows by a small part of that."""
    here, due = folder
    limits = Limits(deadline_s=30)
    with LocalTrio(limits=limits, threads=1, data=True) as trio:
        files = {"authority": "ca.pem", "certificate": "provider.pem", "key": "provider.key"}
        lines = [f"parties = {list(trio.addresses)!r}", "deadline_s = 30", "[tls]"]
        lines += [f"{key} = '{trio.directory / name}'" for key, name in files.items()]
        settings = here / "provider.toml"
        settings.write_text("\n".join(lines))
        before = [peak(p.pid) for p in trio.processes]
        command = [sys.executable, "-c", PROVIDER, "deploy", str(here / "tall.hush"), "--checkpoint", str(here)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, "--config", str(settings)], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert "tall is deployed" in done.stdout
        own = [int(n) * 1024 for n in done.stdout.split("peak ")[1].split()]
        grown = [own[1] - own[0], *(peak(p.pid) - b for p, b in zip(trio.processes, before, strict=True))]
        total = LAYERS * FLOATS
        assert grown[0] < total * 0.65, grown  # the model as the checkpoint has it
        assert max(grown[1:]) < total * 0.5, grown  # a quarter of the ring elements that parties 1 and 2 receive
        with connect(trio.config) as client:
            assert torch.allclose(client.infer("tall", X), due, atol=1e-2)
