"""Products of few rows on a GPU, bit for bit the reference's: see `test_cuda.py`, which runs these."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from hush.mpc.ring import RING64, Ring, backends
from hush.mpc.ring.cuda import rows
from hush.mpc.ring.seeded import Seeded
from hush.mpc.ring.torch_backend import TorchKernels

GPU = backends.get("cuda")
REFERENCE = TorchKernels()
NONCE = bytes(range(12))


@pytest.fixture(autouse=True)
def several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of a depth of 32: the interpreter takes its time."""
    monkeypatch.setattr(rows, "_SPAN", 32)
    monkeypatch.setattr(rows, "_READ", (16, 32))


def uniform(ring: Ring, *shape: int) -> Tensor:
    """Ring elements."""
    return ring.reduce(torch.randint(-(1 << 63), (1 << 63) - 1, shape))


def seeded(ring: Ring, *shape: int) -> tuple[Seeded, Tensor]:
    """A keystream on the device, and what it is made of in main memory by the CPU's kernels."""
    whole = Seeded.of(os.urandom(32), NONCE, ring, shape)
    return whole.on(GPU.device, GPU.keystream), whole.expanded()


def same(ring: Ring, x: Tensor, right: Tensor, due: Tensor) -> None:
    """x @ right on the device and x @ due by the reference."""
    assert rows.usable(x.shape[0], right)
    made = ring.settle(rows.product(x.to(GPU.device), right)).cpu()
    assert torch.equal(made, REFERENCE.matmul(x, due, ring))


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (1, 100, 65), (3, 64, 30), (8, 33, 7)])
@pytest.mark.parametrize("ring", [RING64, Ring(45), Ring(32), Ring(20)], ids=str)
def test_elements_that_are_read(ring: Ring, m: int, k: int, n: int) -> None:
    x, y, turned = uniform(ring, m, k), uniform(ring, k, n), uniform(ring, n, k).T
    for right in (y, turned, uniform(ring, k, n + 5)[:, 2 : n + 2]):
        same(ring, x, right.to(GPU.device) if right is y else _there(right), right)


def _there(view: Tensor) -> Tensor:
    """On the device, strides as they are."""
    flat = view._base.to(GPU.device)
    return flat.as_strided(view.size(), view.stride(), view.storage_offset())


@pytest.mark.parametrize(("ring", "m", "k", "n"), [(RING64, 1, 40, 33), (Ring(45), 3, 40, 5), (RING64, 8, 8, 1)])
def test_keystreams_along_the_depth(ring: Ring, m: int, k: int, n: int) -> None:
    x = uniform(ring, m, k)
    right, due = seeded(ring, n, k)
    same(ring, x, right.T, due.T)
    same(ring, x, right.T[:, n // 2 :], due.T[:, n // 2 :])
    if k > 8:
        same(ring, x[:, : k - 8], right.T[8:], due.T[8:])


@pytest.mark.parametrize(("ring", "m", "k", "n"), [(RING64, 1, 5, 1040), (Ring(45), 3, 3, 40), (RING64, 8, 1, 8)])
def test_keystreams_along_the_columns(ring: Ring, m: int, k: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_SPAN", 2)
    x = uniform(ring, m, k)
    right, due = seeded(ring, k, n)
    same(ring, x, right, due)
    if n == 40:
        same(ring, x, right[:, 8:], due[:, 8:])


def test_what_these_kernels_do_not_take() -> None:
    right, _ = seeded(RING64, 16, 24)
    assert rows.usable(8, right)
    assert rows.usable(1, right.T)
    assert not rows.usable(rows.FEW + 1, right)
    assert not rows.usable(0, right)
    assert not rows.usable(1, right[:, 1:])  # begins within a block
    assert not rows.usable(1, right[::2].T[::2])  # no line of neighbours
    assert not rows.usable(1, seeded(RING64, 16, 12)[0])  # lines begin within blocks
    assert not rows.usable(1, seeded(Ring(32), 16, 24)[0])
    assert not rows.usable(1, torch.zeros(2, 3, 4))


def test_products_of_nothing() -> None:
    for m, k, n in ((1, 0, 3), (2, 5, 0)):
        made = rows.product(
            torch.zeros(m, k, dtype=torch.int64, device=GPU.device), torch.zeros(k, n, dtype=torch.int64)
        )
        assert made.shape == (m, n)
        assert not made.any()
