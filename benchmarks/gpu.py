"""A GPU's figures in one command: ring products beside what else multiplies, steps, streams, networks end to end.

    python benchmarks/gpu.py                              # on a machine with a GPU; writes results/gpu.json, gpu.md
    TRITON_INTERPRET=1 python benchmarks/gpu.py --quick   # no GPU: does it run? tiny sizes, printed, nothing written

Products at 4096^3: our int8 limbs mod 2^64 and 2^32 (with the second operand's limbs made each time, and kept), limbs
of 16 bits in float64 (the reference), one float64 product of the same size, int64 multiply-adds without tensor cores
(plain Triton) and one int8 product of the library: rates in 10^12 multiply-adds a second, medians after a warm-up, the
device synchronised. Steps: bytes read and written a second. Networks: `hush bench --device cuda`, all three parties on
the one GPU, three processes over mutual TLS, beside the CPU's run of the same command.

Published beside them, other hardware: SIGMA GPT-2 1.6 s (two parties and a dealer), PUMA LLaMA-7B 200 s a token.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from figures import machine

from hush.mpc.ring import RING32, RING64, Ring, backends
from hush.mpc.ring.cuda import limbs
from hush.mpc.ring.cuda.backend import CudaKernels
from hush.mpc.ring.cuda.launch import interpreted, launch
from hush.mpc.ring.torch_backend import TorchKernels
from hush.mpc.ring.widths import Widths

RESULTS = Path(__file__).parent / "results"
NETWORKS = (
    "bench bert-base --size paper --seq 128 --repeat 3",
    "bench gpt2-base --size paper --seq 32 --new 2",
    "bench llama-7b --size paper --seq 8 --new 2",
)
Data = dict[str, Any]


@triton.jit
def _simt(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), dtype=tl.int64)
    for k in range(K):
        left = tl.load(a + rows * K + k, mask=rows < M, other=0)
        right = tl.load(b + k * N + columns, mask=columns < N, other=0)
        total += left[:, None] * right[None, :]
    inside = (rows < M)[:, None] & (columns < N)[None, :]
    tl.store(c + rows[:, None] * N + columns[None, :], total, mask=inside)


def simt(a: Tensor, b: Tensor) -> Tensor:
    """a @ b mod 2^64 by 64-bit multiply-adds."""
    out = torch.empty(a.shape[0], b.shape[1], dtype=torch.int64, device=a.device)
    launch(_simt, (triton.cdiv(a.shape[0], 64), triton.cdiv(b.shape[1], 64)), a, b, out, *out.shape, a.shape[1], 64, 64)
    return out


# ---------------------------------------------------------------------- measuring
def seconds(run: Callable[[], Any], repeat: int) -> float:
    """The median of some runs after one."""
    times = []
    for _ in range(repeat + 1):
        wait()
        begin = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def wait() -> None:
    """Until the device has done what it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def uniform(ring: Ring, *shape: int, device: torch.device) -> Tensor:
    """Ring elements."""
    return ring.reduce(torch.randint(-(1 << 63), (1 << 63) - 1, shape, device=device))


def products(kernels: CudaKernels, size: int, repeat: int) -> Data:
    """10^12 multiply-adds a second."""
    device, work = kernels.device, size**3 / 1e12
    found: Data = {"size": size}
    for ring in (RING64, RING32):
        x, y = (uniform(ring, size, size, device=device) for _ in range(2))
        right = limbs.split(y.unsqueeze(0), ring.bits)
        runs: dict[str, Callable[[], Any]] = {
            "int8 limbs": lambda x=x, y=y, ring=ring: kernels.matmul(x, y, ring),  # type: ignore[misc]
            "int8 limbs, the second's kept": lambda x=x, right=right, ring=ring: limbs.product(  # type: ignore[misc]
                limbs.split(x.unsqueeze(0), ring.bits), right, ring.dtype
            ),
            "float64 limbs": lambda x=x, y=y, ring=ring: TorchKernels(limbs=True).matmul(x, y, ring),  # type: ignore[misc]
        }
        if ring == RING64:
            runs["int64 SIMT"] = lambda x=x, y=y: simt(x, y)  # type: ignore[misc]
            real = x.double(), y.double()
            runs["one float64 product"] = lambda real=real: real[0] @ real[1]  # type: ignore[misc]
            if not interpreted():
                small = x.to(torch.int8), y.to(torch.int8).T.contiguous().T
                runs["one int8 product"] = lambda small=small: torch._int_mm(*small)  # type: ignore[misc]
            assert torch.equal(kernels.matmul(x[:64], y, ring), simt(x[:64], y)), "the products differ"
        found[f"2^{ring.bits}"] = {name: work / seconds(run, repeat) for name, run in runs.items()}
    return found


def steps(kernels: CudaKernels, numel: int, repeat: int) -> Data:
    """10^9 bytes read and written a second."""
    device, w = kernels.device, Widths(RING64, RING64, 18)
    mine, got, low, mask, base = (uniform(RING64, numel, device=device) for _ in range(5))
    cases: dict[str, tuple[Callable[[], Any], int]] = {
        "answer": (lambda: kernels.answer(mine, got, low, mask, base, w), 48),
        "split": (lambda: kernels.split((mine, got), low, mask, base, (low, mask), base, w), 80),
        "cross_mul": (lambda: kernels.cross_mul((mine, got), (low, mask), RING64), 40),
        "to_planes, 16": (lambda: kernels.to_planes(mine, 16, RING64), 10),
        "keystream": (lambda: kernels.keystream(bytes(32), bytes(12), 8 * numel), 8),
    }
    return {name: each * numel / seconds(run, repeat) / 1e9 for name, (run, each) in cases.items()}


def networks() -> Data:
    """Rows of `hush bench`, on the GPU and on the CPU; what does not fit or fail says why."""
    rows: Data = {}
    for line in NETWORKS:
        for device in ("cuda", "cpu"):
            command = f"{line} --device {device} --json"
            print(f"hush {command}", file=sys.stderr)
            done = subprocess.run([sys.executable, "-m", "hush", *command.split()], capture_output=True, text=True)
            rows[command] = json.loads(done.stdout)[0] if done.returncode == 0 else {"failed": done.stderr[-400:]}
    return rows


# ---------------------------------------------------------------------- command
def page(made: Data) -> str:
    """Tables."""
    parts = [f"# GPU\n\n`python benchmarks/gpu.py` ({made['measured']}, {made['device']}, torch {torch.__version__})."]
    for ring in ("2^64", "2^32"):
        parts.append(_table(("10^12 multiply-adds a second", ring), made["products"][ring], "{:.2f}"))
    parts.append(_table(("step", "GB/s"), made["steps"], "{:.0f}"))
    seconds_ = {line: row.get("secure_s", row.get("failed")) for line, row in made.get("networks", {}).items()}
    parts.append(_table(("command", "seconds"), seconds_, "{}"))
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Data, form: str) -> str:
    lines = [head, ["---"] * len(head), *((name, form.format(value)) for name, value in rows.items())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; exit status."""
    parser = argparse.ArgumentParser(description="Figures of a GPU.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and no networks, nothing written")
    options = parser.parse_args(arguments)
    kernels = backends.get("cuda")
    assert isinstance(kernels, CudaKernels)
    size, numel, repeat = (64, 1 << 10, 1) if options.quick else (4096, 1 << 26, 10)
    made: Data = {"measured": time.strftime("%Y-%m-%d"), "machine": machine(), "device": kernels.about}
    made |= {"products": products(kernels, size, repeat), "steps": steps(kernels, numel, repeat)}
    if not options.quick:
        made["networks"] = networks()
        (RESULTS / "gpu.json").write_text(json.dumps(made, indent=1) + "\n")
        (RESULTS / "gpu.md").write_text(page(made))
    print(page(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
