"""Cases of `test_cuda.py`: products by residues beside integers and beside the reference."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from hush.mpc.ring import Ring, backends
from hush.mpc.ring.cuda import limbs, residues
from hush.mpc.ring.cuda.backend import CudaKernels

REFERENCE = backends.get("torch")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RINGS = [Ring(64), Ring(32), Ring(45), Ring(40), Ring(63), Ring(33), Ring(17), Ring(16), Ring(11), Ring(1)]
ENDS = [0, 1, -1, 127, 128, -128, -129, 65535, -65536, 1 << 62, -(1 << 62), (1 << 63) - 1, -(1 << 63)]


def uniform(ring: Ring, *shape: int) -> Tensor:
    return ring.reduce(torch.randint(-(1 << 63), (1 << 63) - 1, shape))


def by_residues(x: Tensor, y: Tensor, ring: Ring, *, by_columns: bool) -> Tensor:
    """x [items, M, K] @ y [items or 1, K, N]."""
    split_right = residues.split_right if by_columns else residues.split
    left, right = residues.split(x.to(DEVICE), ring.bits), split_right(y.to(DEVICE), ring.bits)
    made = residues.product(left, right, ring.dtype)
    assert made.dtype == ring.dtype
    return ring.settle(made).cpu()


def same(x: Tensor, y: Tensor, ring: Ring, *, by_columns: bool = True) -> None:
    """The product is the reference's."""
    assert torch.equal(by_residues(x, y, ring, by_columns=by_columns), REFERENCE.matmul(x, y, ring))


def test_the_moduli_are_coprime_and_enough() -> None:
    """And no more than are needed: what the docstring of `residues` claims, in Python's integers."""
    moduli = residues.MODULI
    assert math.lcm(*moduli) == math.prod(moduli)
    assert max(moduli) == 256
    assert all((m << 19) > (1 << 26) for m in moduli)
    for bits in range(1, 65):
        n, largest = residues.count(bits), residues.DEPTH << (2 * bits - 2)
        assert 8 * largest < 3 * math.prod(moduli[:n])
        assert n == 1 or 8 * largest >= 3 * math.prod(moduli[: n - 1])
    assert [residues.count(bits) for bits in (64, 40, 32)] == [18, 12, 10]
    assert residues.fewer(64)
    assert residues.fewer(33)
    assert not residues.fewer(32)


def test_sums_are_reduced_exactly() -> None:
    """u I >> 36 is floor(u/m) for every u where it could fail first, the last of each m in a row, and all m."""
    for m in residues.MODULI:
        inverse = -(-(1 << 36) // m)
        u = torch.arange(m - 1, 1 << 28, m, dtype=torch.int64)
        quotient = (u * inverse) >> 36
        assert torch.equal(quotient, torch.arange(len(u)))
        assert torch.equal(((u - (m - 1)) * inverse) >> 36, quotient)  # and the first: the function is monotone


def test_residues_are_those_of_the_centred_number() -> None:
    for ring in RINGS:
        x = ring.reduce(torch.cat([uniform(Ring(64), 1000), torch.tensor(ENDS)]))
        made = residues.split(x.to(DEVICE), ring.bits).cpu()
        assert len(made) == residues.count(ring.bits)
        numbers = ring.signed(x).tolist()
        for m, row in zip(residues.MODULI, made, strict=False):
            assert row.tolist() == [(v + m // 2) % m - m // 2 for v in numbers]


def test_bits_above_the_ring_are_of_no_matter() -> None:
    for bits in (40, 11):
        x = uniform(Ring(bits), 100)
        above = x.long() + (torch.randint(-9, 9, x.shape) << bits)
        assert torch.equal(residues.split(above.to(DEVICE), bits), residues.split(x.to(DEVICE), bits))


def test_residues_of_views_and_of_nothing() -> None:
    x = uniform(Ring(64), 5, 14)
    rows, columns = residues.split(x.T.to(DEVICE), 64), residues.split_right(x.T.to(DEVICE), 64)
    assert rows.shape == columns.shape == (18, 14, 5)
    assert rows.is_contiguous()
    assert columns.stride(-2) == 1
    assert torch.equal(rows, columns)
    assert torch.equal(rows[:, ::2], residues.split(x.T[::2].to(DEVICE), 64))
    assert residues.split(x[:0].to(DEVICE), 40).shape == (12, 0, 14)
    assert residues.split_right(x[:, :0].to(DEVICE), 40).shape == (12, 5, 0)


def test_the_remainder_of_every_number_in_range() -> None:
    """The largest of both signs and their neighbours, around 0, with the largest t_i and S, and many."""
    draw = random.Random(5)
    for n in range(1, len(residues.MODULI) + 1):
        moduli = residues.MODULI[:n]
        most = (3 * math.prod(moduli) - 1) // 8
        full = sum(math.prod(moduli) // m for m in moduli)  # t_i = 1; of its negative, t_i = m_i - 1
        numbers = [s * v for s in (1, -1) for v in (0, 1, 2, most, most - 1, full, 1 << 64, 1 << 138) if v <= most]
        numbers += [draw.randint(-most, most) for _ in range(500)]
        sums = torch.tensor([[v % m for v in numbers] for m in moduli], dtype=torch.uint8).to(DEVICE)
        for dtype, bits in ((torch.int64, 64), (torch.int32, 32)):
            wrapped = [(v + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1)) for v in numbers]
            due, out = torch.tensor(wrapped, dtype=dtype), torch.empty(len(numbers), dtype=dtype, device=DEVICE)
            residues.combine(sums, out)
            assert torch.equal(out.cpu(), due)
            residues.combine(sums, out, more=True)
            assert torch.equal(out.cpu(), due + due)


def test_products() -> None:
    """With the second operand's residues by columns and by rows; the last is of large tiles."""
    for ring in RINGS:
        for m, n, k in ((1, 1, 1), (5, 7, 3), (2, 37, 65)):
            same(uniform(ring, 1, m, k), uniform(ring, 1, k, n), ring)
    for ring in (Ring(64), Ring(45)):
        for by_columns in (True, False):
            same(uniform(ring, 1, 33, 131), uniform(ring, 1, 131, 37), ring, by_columns=by_columns)


def test_products_of_the_largest_numbers() -> None:
    """The integer product at its bound, 2^126 D for 2^64, of both signs; and what is one below."""
    for ring in (Ring(64), Ring(45)):
        low, high = -(1 << (ring.bits - 1)), (1 << (ring.bits - 1)) - 1
        x = ring.reduce(torch.tensor([low, low + 1, high])).reshape(1, 3, 1).expand(1, 3, residues.DEPTH)
        same(x, x.transpose(1, 2), ring)


def test_sums_of_the_largest_residues() -> None:
    """-128 and 127 in every residue, so the largest int32 sums: residues of -128 and 127 themselves."""
    left = torch.full((18, 1, 2, residues.DEPTH), -128, dtype=torch.int8, device=DEVICE)
    right = torch.full((18, 1, residues.DEPTH, 2), -128, dtype=torch.int8, device=DEVICE)
    right[..., 1] = 127
    made = residues.product(left, right, torch.int64).cpu()
    assert made.tolist() == [[[1 << 26, -128 * 127 * residues.DEPTH]] * 2]


def test_deep_products_are_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Ring(64)
    same(uniform(ring, 1, 2, residues.DEPTH + 1), uniform(ring, 1, residues.DEPTH + 1, 3), ring)
    monkeypatch.setattr(residues, "DEPTH", 64)
    for k in (63, 64, 65, 145):
        same(uniform(ring, 2, 2, k), uniform(ring, 1, k, 3), ring)
        same(torch.full((1, 1, k), -(1 << 63)), torch.full((1, k, 1), (1 << 63) - 1), ring, by_columns=False)


def test_many_items_views_and_broadcast() -> None:
    for ring in (Ring(64), Ring(40)):
        same(uniform(ring, 3, 5, 9), uniform(ring, 3, 9, 4), ring)
        same(uniform(ring, 3, 5, 9), uniform(ring, 1, 9, 4), ring)
        same(uniform(ring, 3, 9, 5).transpose(1, 2), uniform(ring, 3, 4, 9).transpose(1, 2), ring)
        same(uniform(ring, 2, 5, 18)[..., ::2], uniform(ring, 2, 9, 8)[..., ::2], ring)
    left, right = (residues.split(uniform(Ring(64), 2, 9, 9).to(DEVICE), 64) for _ in range(2))
    views = left.transpose(-1, -2), right[..., ::2]
    made, due = residues.product(*views, torch.int64), residues.product(*(v.contiguous() for v in views), torch.int64)
    assert torch.equal(made, due)


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 0, 3, 4), (2, 3, 0, 4), (2, 3, 4, 0)])
def test_products_of_nothing(shape: tuple[int, ...]) -> None:
    items, m, k, n = shape
    same(uniform(Ring(64), items, m, k), uniform(Ring(64), items, k, n), Ring(64))


def test_they_are_the_products_of_limbs() -> None:
    for ring in (Ring(64), Ring(32)):
        x, y = uniform(ring, 2, 40, 70).to(DEVICE), uniform(ring, 1, 70, 34).to(DEVICE)
        by_limbs = limbs.product(limbs.split(x, ring.bits), limbs.split(y, ring.bits), ring.dtype)
        assert torch.equal(by_residues(x, y, ring, by_columns=True), ring.settle(by_limbs).cpu())


def test_the_backend_takes_them_where_they_are_fewer() -> None:
    """Products of matrices, kept and batched, of `CudaKernels(products="residues")`."""
    kernels = CudaKernels(DEVICE, kept=1 << 16, products="residues")
    spans = [(0, 0, 7), (1, 7, 14), (2, 14, 20)]
    for ring, each in ((Ring(64), 18), (Ring(45), 13), (Ring(32), 4)):
        x, y = _pair(ring, 2, 5, 9), _pair(ring, 9, 20)
        due = REFERENCE.cross_matmul(_host(x), _host(y), ring)
        for _ in range(2):
            assert torch.equal(kernels.cross_matmul(x, y, ring).cpu(), due)
            assert kernels._limbs_of._bytes == each * 18 * 20
        made = kernels.role_matmul(x, y, spans, ring)
        assert torch.equal(made.cpu(), REFERENCE.role_matmul(_host(x), _host(y), spans, ring))
        z = _pair(ring, 2, 9, 4)
        assert torch.equal(kernels.cross_matmul(x, z, ring).cpu(), REFERENCE.cross_matmul(_host(x), _host(z), ring))
        del y


def _pair(ring: Ring, *shape: int) -> tuple[Tensor, Tensor]:
    return uniform(ring, *shape).to(DEVICE), uniform(ring, *shape).to(DEVICE)


def _host(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return pair[0].cpu(), pair[1].cpu()
