"""Rates of ring products beside what else multiplies, of tiles, and of the steps that read and write memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from gpu.timing import Data, Findings, Job, guarded, note, seconds
from hush.mpc.ring import RING32, RING64, Ring, backends
from hush.mpc.ring.cuda import limbs, residues, tiles
from hush.mpc.ring.cuda import rows as direct
from hush.mpc.ring.cuda.backend import CudaKernels
from hush.mpc.ring.cuda.launch import interpreted, launch
from hush.mpc.ring.seeded import Seeded
from hush.mpc.ring.torch_backend import TorchKernels
from hush.mpc.ring.widths import Widths

SQUARE, TOY = 4096, 32
DEPTH, COLUMNS, ROWS = 4096, (4096, 11008), (1, 8, 32, 128)  # of LLaMA-7B's layers; tokens
TOY_DEPTH, TOY_COLUMNS, TOY_ROWS = 32, (48,), (1, 8)
_LEAST = 15.0  # seconds that must be left for one more row of a sweep
Runs = dict[str, Callable[[], Any]]


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


def kernels() -> CudaKernels:
    """The GPU's."""
    found = backends.get("cuda")
    assert isinstance(found, CudaKernels)
    return found


def uniform(ring: Ring, *shape: int) -> Tensor:
    """Ring elements on the device."""
    return ring.reduce(torch.randint(-(1 << 63), (1 << 63) - 1, shape, device=kernels().device))


class Ways:
    """One product x [M, K] @ y [K, N], the small numbers of y kept."""

    def __init__(self, x: Tensor, y: Tensor, ring: Ring) -> None:
        self.x, self.y, self.ring = x, y, ring
        self.limbs, self.residues = limbs.split_right(y[None], ring.bits), residues.split_right(y[None], ring.bits)

    def by_limbs(self, **options: Any) -> Tensor:
        """[1, M, N]."""
        return limbs.product(limbs.split(self.x[None], self.ring.bits), self.limbs, self.ring.dtype, **options)

    def limbs_anew(self) -> Tensor:
        """[1, M, N], those of y made as well."""
        right = limbs.split_right(self.y[None], self.ring.bits)
        return limbs.product(limbs.split(self.x[None], self.ring.bits), right, self.ring.dtype)

    def by_stacked_limbs(self, **options: Any) -> Tensor:
        """[1, M, N], of few rows."""
        return limbs.few(limbs.split(self.x[None], self.ring.bits), self.limbs, self.ring.dtype, **options)

    def by_residues(self, **options: Any) -> Tensor:
        """[1, M, N]."""
        left = residues.split(self.x[None], self.ring.bits)
        return residues.product(left, self.residues, self.ring.dtype, **options)

    def residues_anew(self) -> Tensor:
        """[1, M, N], those of y made as well."""
        right = residues.split_right(self.y[None], self.ring.bits)
        left = residues.split(self.x[None], self.ring.bits)
        return residues.product(left, right, self.ring.dtype)


def int8_products(name: str, bits: int) -> int | None:
    """How many int8 products a product of ring elements is, by the name of its row."""
    if name.startswith("int8 limbs"):
        return limbs.count(bits) * (limbs.count(bits) + 1) // 2
    if name.startswith("int8 residues"):
        return residues.count(bits)
    return 1 if name == "one int8 product" else None


def _rate(run: Callable[[], Any], work: float, repeat: int) -> Data | float:
    found: Data | float = guarded(lambda: work / seconds(run, repeat) / 1e12)
    return found


# ---------------------------------------------------------------------- squares
def products(job: Job) -> Findings:
    """10^12 multiply-adds a second at 4096^3 mod 2^64 and 2^32; first whether all ways agree."""
    size = TOY if job.quick else SQUARE
    for ring in (RING64, RING32):
        x, y = uniform(ring, size, size), uniform(ring, size, size)
        ways = Ways(x, y, ring)
        yield f"exact, 2^{ring.bits}", guarded(partial(_agree, ways))
        runs: Runs = {
            "int8 limbs": ways.limbs_anew,
            "int8 limbs, the second's kept": ways.by_limbs,
            "int8 residues": ways.residues_anew,
            "int8 residues, the second's kept": ways.by_residues,
            "float64 limbs": partial(TorchKernels(limbs=True).matmul, x, y, ring),
        } | (_others(x, y) if ring == RING64 else {})
        for name, run in runs.items():
            note(f"{size}^3 mod 2^{ring.bits}: {name}")
            yield f"{size}^3, 2^{ring.bits}, {name}", _rate(run, float(size**3), job.repeat)


def _others(x: Tensor, y: Tensor) -> Runs:
    """Multiplications of other numbers, and of these without tensor cores."""
    real, small = (x.double(), y.double()), (x.to(torch.int8), y.to(torch.int8).T.contiguous().T)
    runs: Runs = {"int64 SIMT": partial(simt, x, y), "one float64 product": partial(torch.matmul, *real)}
    return runs if interpreted() else runs | {"one int8 product": partial(torch._int_mm, *small)}


def _agree(ways: Ways) -> bool:
    """Rows of the products by all ways; AssertionError where they differ."""
    few = Ways(ways.x[:64], ways.y, ways.ring)
    due = ways.ring.settle(simt(few.x.long(), few.y.long()).to(ways.ring.dtype))
    assert torch.equal(kernels().matmul(few.x, few.y, ways.ring), due), "a party's products differ"
    assert torch.equal(ways.ring.settle(few.by_limbs()[0]), due), "int8 limbs differ from 64-bit multiply-adds"
    assert torch.equal(ways.ring.settle(few.by_residues()[0]), due), "int8 residues differ from 64-bit multiply-adds"
    return True


# ---------------------------------------------------------------------- few rows
def rows(job: Job) -> Findings:
    """Products of few rows by a layer of LLaMA-7B mod 2^64: microseconds."""
    depth, widths, counts = (TOY_DEPTH, TOY_COLUMNS, TOY_ROWS) if job.quick else (DEPTH, COLUMNS, ROWS)
    for columns in widths:
        y = uniform(RING64, depth, columns)
        for count in counts:
            x = uniform(RING64, count, depth)
            ways, real = Ways(x, y, RING64), (x.double(), y.double())
            runs: Runs = {
                "int8 limbs": ways.limbs_anew,
                "int8 limbs, the second's kept": ways.by_limbs,
                "int8 residues, the second's kept": ways.by_residues,
                "one float64 product": partial(torch.matmul, *real),
            }
            if direct.usable(count, y):  # what a party takes for so few rows
                runs["64-bit multiply-adds"] = partial(direct.product, x, y)
                runs["64-bit multiply-adds, a weight's way"] = partial(direct.product, x, y.T.contiguous().T)
                runs["64-bit multiply-adds, a keystream"] = partial(direct.product, x, _keystream(columns, depth).T)
            note(f"{count} x {depth} x {columns}")
            yield (
                f"{count} x {depth} x {columns}",
                {name: guarded(lambda run=run: 1e6 * seconds(run, job.repeat)) for name, run in runs.items()},  # type: ignore[misc]
            )


def _keystream(*shape: int) -> Seeded:
    """A component that is a seed."""
    return Seeded.of(bytes(32), bytes(12), RING64, shape).on(kernels().device, kernels().keystream)


# ---------------------------------------------------------------------- tiles
def sweep(job: Job) -> Findings:
    """10^12 multiply-adds a second mod 2^64 by the kernels' tiles, the second operand's small numbers kept."""
    shapes = [(TOY_ROWS[1], TOY_DEPTH, TOY_COLUMNS[0])] if job.quick else [(SQUARE,) * 3]
    shapes += [] if job.quick else [(count, DEPTH, COLUMNS[1]) for count in ROWS[1:]]
    for m, k, n in shapes:
        ways = Ways(uniform(RING64, m, k), uniform(RING64, k, n), RING64)
        for name, product, candidates in _candidates(ways):
            if not candidates:
                yield f"{m} x {k} x {n}, {name}", "these kernels have no tiles to choose from"
                continue
            note(f"{len(candidates)} tiles: {m} x {k} x {n}, {name}")
            yield f"{m} x {k} x {n}, {name}", _by_tile(product, candidates, float(m * k * n), job)


def _candidates(ways: Ways) -> list[tuple[str, Callable[..., Tensor], list[Any]]]:
    """How to multiply, and the tiles to try; those of stacked limbs where there are few rows."""
    small = ways.x.shape[0] < SQUARE
    shared = [getattr(tiles, name) for name in ("FEWEST", "FEW", "SMALL", "MIDDLE")] if small else []
    found = [
        ("limbs", ways.by_limbs, [*limbs.CANDIDATES, *shared]),
        ("residues", ways.by_residues, [*residues.CANDIDATES, *shared]),
    ]
    stacked = limbs.stacked_rows(limbs.split(ways.x[None], ways.ring.bits))
    if stacked in limbs.STACKED:
        tall = [tile for tile in limbs.STACKED_CANDIDATES if tile.rows >= stacked]
        found.append(("stacked limbs", ways.by_stacked_limbs, tall))
    return [(name, product, list(dict.fromkeys(which))) for name, product, which in found]


def _by_tile(product: Callable[..., Tensor], candidates: Sequence[Any], work: float, job: Job) -> Data:
    found: Data = {"as chosen": _rate(product, work, job.repeat)}
    due = guarded(product)
    for tile in candidates[:2] if job.quick else candidates:
        if job.left < _LEAST:
            found["left out"] = "no time was left for the other tiles"
            break
        found[_label(tile)] = guarded(partial(_checked_rate, partial(product, tile=tile), due, work, job.repeat))
    return found


def _checked_rate(run: Callable[[], Tensor], due: Any, work: float, repeat: int) -> float:
    if isinstance(due, Tensor):
        assert torch.equal(run(), due), "the products differ"
    return work / seconds(run, repeat) / 1e12


def _label(tile: Any) -> str:
    return f"{tile.rows} x {tile.columns} x {tile.depth}, {tile.warps} warps, {tile.stages} stages"


# ---------------------------------------------------------------------- steps
def steps(job: Job) -> Findings:
    """10^9 bytes read and written a second."""
    gpu, w, numel = kernels(), Widths(RING64, RING64, 18), 1 << (10 if job.quick else 26)
    mine, got, low, mask, base, drawn, first, second = (uniform(RING64, numel) for _ in range(8))
    cases: dict[str, tuple[Callable[[], Any], int]] = {
        "answer": (partial(gpu.answer, mine, got, low, mask, base, w), 48),
        "split": (partial(gpu.split, (mine, got), mask, drawn, low, (first, second), base, w), 80),
        "cross_mul": (partial(gpu.cross_mul, (mine, got), (low, mask), RING64), 40),
        "to_planes, 16": (partial(gpu.to_planes, mine, 16, RING64), 10),
        "keystream": (partial(gpu.keystream, bytes(32), bytes(12), 8 * numel), 8),
    }
    for name, (run, each) in cases.items():
        yield name, guarded(lambda run=run, each=each: each * numel / seconds(run, job.repeat) / 1e9)  # type: ignore[misc]
