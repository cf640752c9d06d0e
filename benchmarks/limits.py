"""How close a run is to what this machine allows: benchmarks/results/limits.json.

    python benchmarks/limits.py                       # bert12 and gpt2_12_32, the peers' workloads
    python benchmarks/limits.py --workload bert2 --output /tmp/limits.json

For each workload the floor is the sum of: the ring's matrix products of all three parties at the kernel's own rate on
all cores; each party's bytes at the rate of `loopback.py`; its rounds at the latency of `loopback.py`. Beside it the
wall time of a run (three processes, mutual TLS over loopback TCP, secret weights) and its factor to the floor; and the
products' processor time inside the run beside that of the kernel alone on operands of the same shapes. All in one run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

import hush
from benchmarks import loopback
from benchmarks.peers.run import machine, note
from benchmarks.peers.workloads import named
from hush.mpc.compiler import Program, predict
from hush.mpc.ring import RING64, Ring, backends
from hush.mpc.secret import Shared
from hush.mpc.step import Step
from hush.parties.cli.measure import cores, versions
from hush.parties.client import connect, deploy
from hush.parties.local import LocalTrio
from hush.protocols.replicated.cost import ReplicatedCost
from hush.protocols.replicated.products import matrix_products

OUTPUT = Path(__file__).parent / "results" / "limits.json"
_COLD = 64 << 20  # bytes of different operands that no cache holds
SHAPES = ((128, 768, 3072), (128, 3072, 768))  # of a BERT-base layer: rows, depth, columns


class Counting(ReplicatedCost):
    """The cost model, which also counts the multiply-adds of matrix products, of all parties, and the products by the
    shapes of their operands."""

    def __init__(self, program: Program) -> None:
        super().__init__(program.ring, program.frac)
        self.multiplications = 0
        self.shapes: Counter[tuple[torch.Size, torch.Size, int]] = Counter()

    def matmul(self, x: Shared, y: Shared, *, frac: int | None = None, ring: Ring | None = None) -> Step[Shared]:
        """Counted, then as it is."""
        rows = torch.broadcast_shapes(x.shape[:-1], (*y.shape[:-2], 1)).numel()
        self.multiplications += matrix_products(y.shape[-1]) * rows * x.shape[-1] * y.shape[-1]
        self.shapes[x.shape, y.shape, x.ring.bits] += 1
        return super().matmul(x, y, frac=frac, ring=ring)


def counted(program: Program) -> Counting:
    """The matrix products of a program."""
    model = Counting(program)
    predict(program, model)
    return model


def alone_s(shapes: Counter[tuple[torch.Size, torch.Size, int]], repeat: int = 5) -> float:
    """Processor seconds that the kernel alone takes for the products of one party, each by the best of some runs on
    operands that are cold, as in a run where each weight is used once."""
    before, whole = torch.get_num_threads(), 0.0
    torch.set_num_threads(1)
    for (left, right, bits), count in shapes.items():
        ring = Ring(bits)
        copies = max(2, min(8, _COLD // (2 * ring.dtype.itemsize * right.numel())))
        x = (ring.reduce(_uniform(*left)), ring.reduce(_uniform(*left)))
        weights = [(ring.reduce(_uniform(*right)), ring.reduce(_uniform(*right))) for _ in range(copies)]
        best = float("inf")
        for _ in range(repeat):
            begin = time.thread_time()
            for y in weights:
                _product(x, y, ring)
            best = min(best, time.thread_time() - begin)
        whole += count * best / copies
    torch.set_num_threads(before)
    return whole


def _product(x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], ring: Ring) -> Tensor:
    """A party's part, as `products.local_product` asks for it."""
    kernels, columns = backends.get(), y[0].shape[-1]
    if matrix_products(columns) == 6:
        return kernels.cross_matmul(x, y, ring)
    return kernels.role_matmul(x, y, [(r, r * columns // 3, (r + 1) * columns // 3) for r in range(3)], ring)


def kernel_rate(repeat: int = 5) -> float:
    """Multiply-adds a second of the kernel alone, on one core, weights cold: as in a run, each is used once."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    kernels, rates = backends.get(), []
    for rows, depth, columns in SHAPES:
        weights = [(_uniform(depth, columns), _uniform(depth, columns)) for _ in range(6)]
        x, best = (_uniform(rows, depth), _uniform(rows, depth)), float("inf")
        spans = [(role, role * columns // 3, (role + 1) * columns // 3) for role in range(3)]
        for _ in range(repeat):
            begin = time.thread_time()
            for w in weights:
                kernels.role_matmul(x, w, spans, RING64)
            best = min(best, time.thread_time() - begin)
        rates.append(len(weights) * 5 / 3 * rows * depth * columns / best)
    torch.set_num_threads(before)
    return statistics.mean(rates)


def _uniform(*shape: int) -> Tensor:
    return torch.randint(-(1 << 62), 1 << 62, shape)


def measured(name: str, repeat: int, rates: dict[str, float]) -> dict[str, Any]:
    """One workload: its run, its floor, and the rate of the products in it."""
    work = named(name)
    program = hush.compile(work.module, work.args, work.kwargs)
    model, cost = counted(program), program.cost
    count = model.multiplications
    assert cost is not None
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HUSH_TIMED_PARTY"] = folder
        with LocalTrio(unix=False, entry=(str(Path(__file__).parent / "timed_party.py"),)) as trio:
            deploy(program, trio.provider_config, name)
            with connect(trio.config) as client:
                session = client.session(name)
                session.infer(work.args, work.kwargs)
                runs = [session.infer(work.args, work.kwargs).report for _ in range(repeat)]
        inside = [json.loads(path.read_text()) for path in sorted(Path(folder).iterdir())]
    seconds = statistics.median(r.seconds for r in runs)
    floor = {
        "products_s": count / rates["multiply_adds_per_s_core"] / cores(),
        "bytes_s": max(cost.bytes_sent) / rates["bytes_per_s"],
        "rounds_s": cost.rounds * rates["round_s"],
    }
    whole = sum(floor.values())
    spent = sum(i["products_cpu_s"] for i in inside) / (repeat + 1)
    rate, alone = count / spent, 3 * alone_s(model.shapes)
    return {
        "workload": name,
        "seconds": seconds,
        "multiply_adds": count,
        "bytes_sent": list(cost.bytes_sent),
        "rounds": cost.rounds,
        "floor": floor | {"sum_s": whole},
        "factor": seconds / whole,
        "products_in_run_per_s_core": rate,
        "products_alone_cpu_s": alone,
        "products_in_run_cpu_s": spent,
        "products_in_run": alone / spent,
        "peak_rss": list(runs[-1].peak_rss),
        "weight_shares": 16 * sum(torch.Size(s.shape).numel() for s in program.weight_specs),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", nargs="*", default=["bert12", "gpt2_12_32"])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    note("the link alone")
    rates = loopback.measure()
    note("the kernel alone")
    rates["multiply_adds_per_s_core"] = kernel_rate()
    rows = []
    for name in options.workload:
        note(name)
        rows.append(measured(name, options.repeat, rates))
        note(f"{name}: {rows[-1]['seconds']:.2f} s, {rows[-1]['factor']:.2f} times the floor")
    result = {"measured": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions(), "rates": rates}
    result |= {"command": "python benchmarks/limits.py", "rows": rows}
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
