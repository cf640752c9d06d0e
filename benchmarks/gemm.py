"""Rates of the ring products beside torch's float32 matmul on the same core: `python benchmarks/gemm.py [--json]`.

One thread, one process. The kernels of a shape take turns, several times round, and each figure is the median over the
rounds, so that a busy machine slows all of them alike. Rates are 10^9 multiply-adds a second of processor time; a
replicated product (`cross`) counts as two products. The yardstick is 128x3072x768: `int64 / float32` there is the ratio
that the project's first milestone asks to be at least 0.7 where AVX-512DQ exists.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hush.mpc.ring import RING32, RING64, Ring, backends
from hush.mpc.ring.kernels import Kernels

YARDSTICK = (1, 128, 3072, 768)
SHAPES = [  # batch, m, k, n
    YARDSTICK,
    (1, 128, 768, 3072),
    (1, 128, 768, 768),
    (1, 128, 384, 1536),
    (1, 32, 384, 1536),
    (1, 8, 3072, 768),
    (1, 8, 384, 384),
    (12, 128, 32, 128),
    (12, 128, 128, 32),
    (12, 128, 64, 128),
]
ROUND_MACS = 5e8  # work of one timing: long beside the clock's resolution


@dataclass(frozen=True)
class Row:
    """Median rates of one shape, 10^9 multiply-adds a second."""

    shape: tuple[int, int, int, int]
    rates: dict[str, float]

    @property
    def ratio(self) -> float:
        return self.rates["int64"] / self.rates["float32"]


def integers(ring: Ring, *shape: int) -> Tensor:
    """Uniform ring elements."""
    generator = torch.Generator().manual_seed(0)
    return ring.reduce(torch.randint(-(2**63), 2**63 - 1, shape, generator=generator))


def contestants(kernels: Kernels, shape: tuple[int, int, int, int]) -> dict[str, tuple[Callable[[], object], int]]:
    """Name -> what to run, and how many products it is."""
    batch, m, k, n = shape
    left, right = ((m, k), (k, n)) if batch == 1 else ((batch, m, k), (batch, k, n))
    a, b = torch.randn(left), torch.randn(right)
    runs: dict[str, tuple[Callable[[], object], int]] = {"float32": (partial(torch.matmul, a, b), 1)}
    for ring in (RING64, RING32):
        x = (integers(ring, *left), integers(ring, *left))
        y = (integers(ring, *right), integers(ring, *right))
        transposed = y[0].mT.contiguous().mT
        name = f"int{ring.bits}"
        runs[name] = (partial(kernels.matmul, x[0], y[0], ring), 1)
        runs[f"{name} cross"] = (partial(kernels.cross_matmul, x, y, ring), 2)
        runs[f"{name} transposed"] = (partial(kernels.matmul, x[0], transposed, ring), 1)
    return runs


def seconds(run: Callable[[], object], repeat: int) -> float:
    """Processor time of one run, the mean over `repeat` in a row."""
    start = time.thread_time()
    for _ in range(repeat):
        run()
    return (time.thread_time() - start) / repeat


def measure(kernels: Kernels, shape: tuple[int, int, int, int], rounds: int) -> Row:
    """One shape: warm up, then `rounds` turns of every contestant."""
    batch, m, k, n = shape
    macs = batch * m * k * n
    repeat = max(1, int(ROUND_MACS / macs))
    runs = contestants(kernels, shape)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, (run, _) in runs.items():
            taken = seconds(run, repeat)
            if turn:
                times[name].append(taken)
    rates = {name: runs[name][1] * macs / statistics.median(times[name]) / 1e9 for name in runs}
    return Row(shape, rates)


def table(rows: list[Row], about: str) -> Table:
    """For people."""
    names = list(rows[0].rates)
    out = Table("shape", *names, "int64 / float32", title=f"10^9 multiply-adds/s, one core, {about}")
    for row in rows:
        batch, m, k, n = row.shape
        label = f"{m}x{k} @ {k}x{n}" if batch == 1 else f"{batch} of {m}x{k} @ {k}x{n}"
        out.add_row(label, *(f"{row.rates[name]:.1f}" for name in names), f"{row.ratio:.2f}")
    return out


def main(
    backend: Annotated[str | None, typer.Option(help="cpu or torch; default: the best")] = None,
    isa: Annotated[str | None, typer.Option(help="cpu's instruction set: avx512, avx2 or portable")] = None,
    rounds: Annotated[int, typer.Option(help="turns of every kernel")] = 9,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Measure every shape."""
    torch.set_num_threads(1)
    kernels = backends.get(backend)
    if isa is not None:
        from hush.mpc.ring.cpu_backend import CpuKernels

        kernels = CpuKernels(isa)
    about = getattr(kernels, "about", kernels.name)
    rows = [measure(kernels, shape, rounds) for shape in SHAPES]
    if as_json:
        ratio = next(row.ratio for row in rows if row.shape == YARDSTICK)
        shown = [asdict(row) | {"ratio": round(row.ratio, 3)} for row in rows]
        print(json.dumps({"kernels": about, "torch": torch.__version__, "ratio": round(ratio, 3), "shapes": shown}))
    else:
        Console(width=160).print(table(rows, about))


if __name__ == "__main__":
    typer.run(main)
