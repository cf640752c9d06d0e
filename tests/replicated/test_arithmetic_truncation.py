"""Truncation at the edges of its domain, between rings, exactly, and many times over."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hush.mpc.ring import RING32, RING64, Ring
from tests.support.trio import Trio

CHUNK = 250_000
WIDTHS = [(RING64, 12), (RING64, 18), (RING64, 20), (RING32, 12), (Ring(40), 9)]
widths = pytest.mark.parametrize(("ring", "frac"), WIDTHS, ids=lambda v: str(getattr(v, "bits", v)))


def extremes(ring: Ring, count: int, generator: torch.Generator) -> Tensor:
    """Elements near the largest |z| that may be truncated, [-2^(k-2), 2^(k-2)): half of them within 2^20 of an edge."""
    top = 1 << (ring.bits - 2)
    near = torch.randint(min(top, 1 << 20), (count,), generator=generator)
    anywhere = torch.randint(top, (count,), generator=generator)
    size = torch.where(torch.randint(2, (count,), generator=generator).bool(), top - 1 - near, anywhere)
    z = torch.where(torch.randint(2, (count,), generator=generator).bool(), size, -1 - size)
    z[:6] = torch.tensor([top - 1, -top, 0, -1, 1, top // 2])[: len(z)]
    return z


def worst(trio: Trio, ring: Ring, frac: int, count: int, seed: int, product: bool) -> set[int]:
    """Deviations from the floor over `count` truncations near the largest |z|, by z = z * 1 or as a shared input."""
    z = extremes(ring, count, torch.Generator().manual_seed(seed))
    secret = trio.share_elements(ring.reduce(z), frac=frac, ring=ring)
    one = trio.share_elements(torch.ones((), dtype=torch.int64), frac=0, ring=ring)
    if product:
        result = trio.run(lambda p, a, b: p.mul(a, b, frac=0), secret, one)
    else:
        result = trio.run(lambda p, a: p.truncate(a, 0), secret)
    return set((ring.signed(trio.elements(result)) - (z >> frac)).unique().tolist())


@widths
@pytest.mark.parametrize("product", [True, False], ids=["product", "shared"])
def test_near_the_largest_values_the_result_is_the_floor_or_one_more(ring: Ring, frac: int, product: bool) -> None:
    assert worst(Trio(ring, frac), ring, frac, CHUNK, 1, product) == {0, 1}


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("product", [True, False], ids=["product", "shared"])
def test_a_hundred_million_truncations(product: bool) -> None:
    trio = Trio()
    for chunk in range(50_000_000 // CHUNK):
        assert worst(trio, RING64, 18, CHUNK, chunk, product) == {0, 1}


def test_the_mean_of_many_truncations_is_the_value() -> None:
    trio, count = Trio(), 60_000
    x = torch.full((count,), 0.3, dtype=torch.float64)
    mean = trio.reveal(trio.run(lambda p, a: p.truncate(a, 0), trio.share(x))).mean()
    assert abs(mean - 0.3) < 6 * 0.46 / count**0.5
    narrow = trio.run(lambda p, a: p.truncate(a, 0, ring=RING32), trio.share(x + 7))
    assert abs(trio.reveal(narrow).mean() - 7.3) < 6 * 0.65 / count**0.5


@pytest.mark.parametrize("size", [5, 20_000])
def test_a_narrow_ring_takes_one_round_for_products_and_none_for_shared_values(size: int) -> None:
    trio = Trio()
    x = torch.linspace(-100, 100, size, dtype=torch.float64)
    x = torch.round(x * 2**18) / 2**18
    X = trio.share(x)
    one = trio.share(1.0)
    product = trio.run(lambda p, a, b: p.mul(a, b, frac=12, ring=RING32), X, one)
    assert product[0].ring == RING32
    assert (trio.reveal(product) - x).abs().max() * 2**12 <= 1.5
    assert len(trio.traffic) == 1
    shared = trio.run(lambda p, a: p.truncate(a, 12, ring=RING32), X)
    assert (trio.reveal(shared) - x).abs().max() * 2**12 <= 1.5
    same_scale = trio.run(lambda p, a: p.truncate(a, 18, ring=RING32), X)
    assert torch.equal(trio.reveal(same_scale), x)
    assert trio.traffic == []


def test_a_narrow_result_is_right_however_large_the_product_was() -> None:
    """No failure at random: quotients that fit the narrow ring, from products that fill the wide one."""
    trio, ring = Trio(), Ring(46)
    z = extremes(RING64, 30_000, torch.Generator().manual_seed(5)) * 2  # all of the ring, two's complement
    secret = trio.share_elements(z, frac=18)
    result = trio.run(lambda p, a: p.truncate(a, 0, ring=ring), secret)
    deviation = ring.signed(ring.reduce(trio.elements(result) - (z >> 18)))
    assert set(deviation.unique().tolist()) <= {-1, 0, 1, 2}


@pytest.mark.parametrize("size", [7, 13_000])
def test_widening_is_fused_into_the_last_truncation(size: int) -> None:
    trio = Trio(RING32, 12)
    x = torch.round(torch.linspace(-7.9, 7.9, size, dtype=torch.float64) * 2**12) / 2**12
    X = trio.share(x)
    wide = trio.run(lambda p, a: p.mul(a, a, ring=RING64), X)
    assert wide[0].ring == RING64
    deviation = trio.reveal(wide) * 2**12 - torch.floor(x * x * 2**12)
    assert set(deviation.unique().tolist()) <= {0.0, 1.0}
    assert len(trio.traffic) == 2
    as_is = trio.run(lambda p, a: p.truncate(a, 12, ring=RING64), X)
    assert torch.equal(trio.reveal(as_is), x)


@widths
@pytest.mark.parametrize("size", [6, 7000])
def test_exact_truncation_is_the_floor(ring: Ring, frac: int, size: int) -> None:
    trio = Trio(ring, frac)
    z = extremes(ring, size, torch.Generator().manual_seed(6))
    secret = trio.share_elements(ring.reduce(z), frac=frac, ring=ring)
    for drop in (1, 5, frac):
        result = trio.run(lambda p, a, d=drop: p.truncate(a, frac - d, exact=True), secret)
        assert torch.equal(ring.signed(trio.elements(result)), z >> drop)


def test_exact_truncation_between_rings() -> None:
    trio = Trio()
    x = torch.round(torch.linspace(-100, 100, 501, dtype=torch.float64) * 2**18) / 2**18
    narrow = trio.run(lambda p, a: p.truncate(a, 12, ring=RING32, exact=True), trio.share(x))
    assert torch.equal(trio.reveal(narrow), torch.floor(x * 2**12) / 2**12)
    small = Trio(RING32, 12)
    wide = small.run(lambda p, a: p.truncate(a, 5, ring=RING64, exact=True), small.share(x / 2))
    exact = torch.floor(torch.round(x / 2 * 2**12) / 2**7) / 2**5
    assert torch.equal(small.reveal(wide), exact)


@pytest.mark.parametrize("frac", [1, 2])
def test_every_value_of_a_ring_of_four_bits(frac: int) -> None:
    ring = Ring(4)
    trio = Trio(ring, frac)
    z = torch.arange(-4, 4).repeat(500)
    secret = trio.share_elements(ring.reduce(z), frac=frac, ring=ring)
    one = trio.share_elements(torch.ones_like(z), frac=0, ring=ring)
    for out in (ring, Ring(3), Ring(6)):
        shared = trio.run(lambda p, a, o=out: p.truncate(a, 0, ring=o), secret)
        product = trio.run(lambda p, a, b, o=out: p.mul(a, b, frac=0, ring=o), secret, one)
        for result in (shared, product):
            deviation = out.signed(out.reduce(trio.elements(result) - (z >> frac)))
            allowed = {-1, 0, 1, 2} if out.bits <= 4 - frac else {0, 1}
            assert set(deviation.unique().tolist()) <= _wrapped(out, allowed)


def _wrapped(ring: Ring, values: set[int]) -> set[int]:
    """The same deviations as two's complement numbers of a small ring."""
    return {int(ring.signed(ring.reduce(torch.tensor(v)))) for v in values}
