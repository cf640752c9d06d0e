"""What deploying takes in memory: the largest tensor decides, not the model, at the provider and at the parties."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
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


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def peak(process: int) -> int:
    """Largest resident memory of a process so far, in bytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.fixture(scope="module")
def trio() -> Iterator[LocalTrio]:
    with LocalTrio(limits=Limits(deadline_s=30), threads=1, data=True) as made:
        yield made


def command(here: Path, trio: LocalTrio, name: str) -> list[str]:
    """A provider's process that deploys the checkpoint and prints its peaks."""
    files = {"authority": "ca.pem", "certificate": "provider.pem", "key": "provider.key"}
    lines = [f"parties = {list(trio.addresses)!r}", "deadline_s = 30", "[tls]"]
    lines += [f"{key} = '{trio.directory / file}'" for key, file in files.items()]
    (here / "provider.toml").write_text("\n".join(lines))
    what = ["deploy", str(here / "tall.hush"), "--checkpoint", str(here), "--name", name]
    return [sys.executable, "-c", PROVIDER, *what, "--config", str(here / "provider.toml")]


def run(argv: list[str]) -> str:
    """Standard output of a process that must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def right(trio: LocalTrio, name: str, due: Tensor) -> bool:
    with connect(trio.config) as client:
        return torch.allclose(client.infer(name, X), due, atol=1e-2)


def test_memory_is_bounded_by_the_largest_tensor(folder: tuple[Path, Tensor], trio: LocalTrio) -> None:
    """A model of 194 MB, 389 MB as shares: each process grows by a small part of that."""
    here, due = folder
    before = [peak(p.pid) for p in trio.processes]
    out = run(command(here, trio, "tall"))
    assert "tall is deployed" in out
    own = [int(n) * 1024 for n in out.split("peak ")[1].split()]
    grown = [own[1] - own[0], *(peak(p.pid) - b for p, b in zip(trio.processes, before, strict=True))]
    total = LAYERS * FLOATS
    assert grown[0] < total * 0.65, grown  # the model as the checkpoint has it
    assert max(grown[1:]) < total * 0.5, grown  # a quarter of the ring elements that parties 1 and 2 receive
    assert right(trio, "tall", due)


def test_a_provider_and_a_party_that_are_killed_go_on(folder: tuple[Path, Tensor], trio: LocalTrio) -> None:
    """What was written before is not written again."""
    here, due = folder
    provider = subprocess.Popen(command(here, trio, "again"), stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    until, parts = time.monotonic() + 100, list[Path]()
    while not parts or parts[0].stat().st_size < LAYERS * FLOATS // 2:
        assert time.monotonic() < until
        assert provider.poll() is None
        parts = list((trio.directory / "data1").glob("*.partial"))
        time.sleep(0.01)
    provider.kill()
    provider.wait()
    trio.processes[1].kill()
    trio.processes[1].wait()
    (ticket,) = here.glob("*.deploying")
    assert ticket.stat().st_mode & 0o777 == 0o600
    trio.launch(1)
    trio.wait(1)
    with connect(trio.config) as client:
        assert [m.name for m in client.models()] == ["tall"]
    (part,) = (trio.directory / "data1").glob("*.partial")
    file, size = part.stat().st_ino, part.stat().st_size
    first = part.read_bytes()[: size // 2]
    assert "again is deployed" in run(command(here, trio, "again"))
    whole = part.with_suffix(".deployment")
    assert whole.stat().st_ino == file
    assert whole.read_bytes()[: size // 2] == first
    assert not ticket.exists()
    assert not list(trio.directory.glob("data*/*.partial"))
    assert right(trio, "again", due)
