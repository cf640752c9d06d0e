"""Two processes that are CrypTen's parties, for tests: `python -m tests.crypten.pair RANK FOLDER JOB` is one of them.

A job is a JSON file, a list of ["module:function", arguments]; each function is called with the party's rank and the
arguments, at both parties alike. Party 0 writes what it returns, tensors, to `results.npz` in the folder, by number.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]
_PATIENCE = 240.0


def run_pair(folder: Path, work: Sequence[tuple[str, Sequence[Any]]]) -> list[Tensor]:
    """What party 0 returns for each piece of work. AssertionError with the processes' complaints if one fails."""
    job = folder / "job.json"
    job.write_text(json.dumps(work))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-W", "ignore", "-m", "tests.crypten.pair"]
    processes = []
    for rank in range(2):
        with (folder / f"party{rank}.log").open("wb") as log:
            arguments = [*command, str(rank), str(folder), str(job)]
            processes.append(subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=log, stderr=log))
    try:
        status = [process.wait(_PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert status == [0, 0], "\n".join((folder / f"party{rank}.log").read_text()[-2000:] for rank in range(2))
    with np.load(folder / "results.npz") as found:
        return [torch.from_numpy(found[str(index)]) for index in range(len(work))]


def main(rank: int, folder: Path, job: Path) -> None:
    """One party."""
    from hush.protocols.crypten import world

    torch.set_num_threads(1)
    world.join(rank, folder / "rendezvous")
    results = {}
    for index, (name, arguments) in enumerate(json.loads(job.read_text())):
        module, _, function = name.partition(":")
        results[str(index)] = getattr(importlib.import_module(module), function)(rank, *arguments).numpy()
    if rank == 0:
        np.savez(folder / "results.npz", **results)
    world.leave()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
