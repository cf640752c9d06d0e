"""Cases of `test_cuda.py` at the sizes of networks on a GPU, and at toy sizes in the interpreter: against the CPU's
kernels, bit for bit."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor

from hush.mpc.ring import RING32, RING64, Ring, backends
from hush.mpc.ring.cuda.backend import CudaKernels
from hush.mpc.ring.cuda.launch import interpreted
from hush.mpc.ring.seeded import Seeded
from hush.mpc.ring.widths import Widths

HOST, GPU = backends.get(), backends.get("cuda")
TOY = interpreted()
WIDTH, INNER = (32, 96) if TOY else (4096, 11008)  # of LLaMA-7B
NUMEL = 200 if TOY else (1 << 22) + 5
PAIR = tuple[Tensor, Tensor]


def uniform(ring: Ring, *shape: int) -> Tensor:
    """Ring elements."""
    return ring.reduce(torch.randint(-(1 << 63), (1 << 63) - 1, shape))


def there(value: Any) -> Any:
    """On the GPU, of tuples each; what is no tensor as it is."""
    if isinstance(value, tuple) and not isinstance(value, Widths):
        return tuple(map(there, value))
    return value.to(GPU.device) if isinstance(value, Tensor) else value


def same(name: str, *arguments: Any) -> None:
    """What a kernel makes, and what it writes to."""
    own = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
    moved = [there(a.clone() if isinstance(a, Tensor) else a) for a in arguments]
    made, due = getattr(GPU, name)(*moved), getattr(HOST, name)(*own)
    pairs = zip((made, *moved), (due, *own), strict=True)
    for a, b in [(a, b) for a, b in pairs if isinstance(b, Tensor)]:
        assert torch.equal(a.cpu(), b)
    if isinstance(due, tuple):
        assert all(torch.equal(a.cpu(), b) for a, b in zip(made, due, strict=True))


@pytest.mark.parametrize("products", ["limbs", "residues"])
@pytest.mark.parametrize("rows", [1, 8, 9, 20] if TOY else [1, 8, 32, 128, 1000])
def test_layers(rows: int, products: str) -> None:
    """Down and up a block, by roles, with limbs made anew and kept."""
    kernels = CudaKernels(GPU.device, kept=1 << 30, products=products)  # type: ignore[arg-type]
    for ring in (RING64, RING32):
        for depth, columns in ((WIDTH, INNER), (INNER, WIDTH)):
            x: PAIR = (uniform(ring, rows, depth), uniform(ring, rows, depth))
            w: PAIR = (uniform(ring, columns, depth), uniform(ring, columns, depth))
            edges = [(0, 0, columns // 3), (1, columns // 3, columns // 2), (2, columns // 2, columns)]
            due = HOST.role_matmul(x, (w[0].T, w[1].T), edges, ring)
            own, moved = there(x), there(w)
            for _ in range(2):
                assert torch.equal(kernels.role_matmul(own, (moved[0].T, moved[1].T), edges, ring).cpu(), due)


@pytest.mark.parametrize("rows", [1, 9] if TOY else [1, 8, 128])
def test_layers_of_keystreams(rows: int) -> None:
    """Both components seeds, and one of them."""
    shape = (8, WIDTH) if TOY else (INNER, WIDTH)
    seeds = [Seeded.of(os.urandom(32), bytes(12), RING64, shape) for _ in range(2)]
    whole = [seed.expanded() for seed in seeds]
    own = [seed.on(GPU.device, GPU.keystream) for seed in seeds]
    x: PAIR = (uniform(RING64, rows, WIDTH), uniform(RING64, rows, WIDTH))
    due = HOST.cross_matmul(x, (whole[0].T, whole[1].T), RING64)
    for right in ((own[0].T, own[1].T), (own[0].T, there(whole[1]).T)):
        assert torch.equal(GPU.cross_matmul(there(x), right, RING64).cpu(), due)


def test_a_convolution() -> None:
    channels, side = (3, 6) if TOY else (64, 56)
    x, w = uniform(RING64, 2, channels, side, side), uniform(RING64, 9, channels, 3, 3)
    same("conv", x, w, (2, 2), (1, 1), (1, 1), 1, RING64)


def test_planes_steps_and_selections() -> None:
    """Of more elements than a program has, and not a multiple of anything."""
    w, words = Widths(RING64, RING64, 18), -(-NUMEL // 64)
    flat = [uniform(RING64, NUMEL) for _ in range(4)]
    low, mask, more = (uniform(w.top, NUMEL) for _ in range(3))
    same("to_planes", flat[0], 16, RING64, 3)
    same("from_planes", torch.randint(-(1 << 63), (1 << 63) - 1, (16, words)), NUMEL, RING64)
    same("spread", torch.randint(-(1 << 63), (1 << 63) - 1, (3, words)), NUMEL, RING32)
    same("answer", flat[0], flat[1], low, mask, flat[2], w)
    same("correct", flat[3], HOST.answer(flat[0], flat[1], low, mask, flat[2].clone(), w), w)
    same("split", (flat[0], flat[1]), flat[2], flat[3], low, (mask, more), flat[1], w)
    same("cross_mul", (flat[0], flat[1]), (flat[2], flat[3]), RING64)
    bits = tuple(torch.randint(-(1 << 63), (1 << 63) - 1, (words,)) for _ in range(2))
    same("deal_choice", bits, (flat[0], flat[1]), (flat[2], flat[3]), RING64)


def test_a_long_keystream() -> None:
    nbytes = 1000 if TOY else (1 << 26) + 3
    key = os.urandom(32)
    assert torch.equal(GPU.keystream(key, bytes(12), nbytes).cpu(), HOST.keystream(key, bytes(12), nbytes))
