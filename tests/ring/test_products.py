"""Matrix products, convolutions and elementwise products: every backend against Python integers and each other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from integers import RINGS, convolution, element, elements, integers, rings, seeds, strided

from hush.mpc.ring import RING64, Ring
from hush.mpc.ring.kernels import Kernels
from hush.mpc.ring.torch_backend import TorchKernels

REFERENCE = TorchKernels()
layouts = st.integers(0, 2)
small = st.integers(0, 9)


@given(seed=seeds, ring=rings, m=small, k=small, n=small, left=layouts, right=layouts)
def test_matmul_equals_integers(
    kernels: Kernels, seed: int, ring: Ring, m: int, k: int, n: int, left: int, right: int
) -> None:
    x, y = elements(seed, ring, m, k), elements(seed + 1, ring, k, n)
    expected = element(integers(x) @ integers(y) if k else integers(torch.zeros(m, n)), ring)
    got = kernels.matmul(strided(x, left), strided(y, right), ring)
    assert got.dtype == ring.dtype
    assert torch.equal(got, expected)


sides = st.sampled_from([1, 2, 5, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 97, 130])
depths = st.sampled_from([1, 2, 3, 31, 64, 127, 128, 129, 255, 257, 300, 520])


@given(seed=seeds, ring=rings, m=sides, k=depths, n=sides, left=layouts, right=layouts)
@example(seed=0, ring=Ring(64), m=193, k=513, n=97, left=0, right=0)
@example(seed=1, ring=Ring(64), m=200, k=600, n=130, left=1, right=1)
@example(seed=2, ring=Ring(32), m=129, k=515, n=260, left=0, right=0)
@example(seed=3, ring=Ring(64), m=130, k=514, n=261, left=0, right=2)
def test_products_equal_the_reference_at_block_edges(
    kernels: Kernels, seed: int, ring: Ring, m: int, k: int, n: int, left: int, right: int
) -> None:
    x = (elements(seed, ring, m, k), elements(seed + 1, ring, m, k))
    y = (elements(seed + 2, ring, k, n), elements(seed + 3, ring, k, n))
    mine = tuple(strided(v, left) for v in x), tuple(strided(v, right) for v in y)
    assert torch.equal(kernels.matmul(mine[0][0], mine[1][0], ring), REFERENCE.matmul(x[0], y[0], ring))
    assert torch.equal(kernels.cross_matmul(mine[0], mine[1], ring), REFERENCE.cross_matmul(x, y, ring))


@given(seed=seeds, ring=rings, m=sides, k=depths, n=sides, left=layouts, right=layouts)
@example(seed=1, ring=Ring(64), m=300, k=600, n=130, left=1, right=1)
@example(seed=2, ring=Ring(32), m=129, k=515, n=260, left=0, right=2)
def test_roles_make_the_product_together(
    kernels: Kernels, seed: int, ring: Ring, m: int, k: int, n: int, left: int, right: int
) -> None:
    """Three parties that rotate over three spans: their parts sum to the product, and each equals the reference's."""
    x = [elements(seed + i, ring, m, k) for i in range(3)]
    y = [elements(seed + 3 + i, ring, k, n) for i in range(3)]
    edges, total = (0, n // 3, 2 * n // 3, n), torch.zeros(m, n, dtype=ring.dtype)
    for party in range(3):
        pairs = (x[party], x[(party + 1) % 3]), (y[party], y[(party + 1) % 3])
        spans = [((party - turn) % 3, edges[turn], edges[turn + 1]) for turn in range(3)]
        mine = tuple(strided(v, left) for v in pairs[0]), tuple(strided(v, right) for v in pairs[1])
        part = kernels.role_matmul(*mine, spans, ring)
        assert torch.equal(part, REFERENCE.role_matmul(*pairs, spans, ring))
        total = ring.reduce(total + part)
    whole = ring.reduce(x[0] + x[1] + x[2]), ring.reduce(y[0] + y[1] + y[2])
    assert torch.equal(total, REFERENCE.matmul(*whole, ring))


@pytest.mark.parametrize("ring", RINGS, ids=str)
@pytest.mark.parametrize("value", [-1, -(2**63), 2**63 - 1])
def test_long_sums_wrap(kernels: Kernels, ring: Ring, value: int) -> None:
    x = ring.reduce(torch.full((3, 5000), value))
    expected = element(integers(x) @ integers(x.mT), ring)
    assert torch.equal(kernels.matmul(x, x.mT, ring), expected)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3, 4, 5), (5, 6)),
        ((2, 1, 7, 9), (3, 9, 4)),
        ((4, 5), (3, 5, 2)),
        ((2, 3, 4, 5), (2, 3, 5, 6)),
        ((0, 3, 4), (4, 5)),
        ((2, 0, 4), (4, 5)),
        ((2, 3, 0), (0, 5)),
        ((1, 1), (1, 1)),
        ((12, 128, 32), (12, 32, 128)),
    ],
)
def test_batches_broadcast_as_torch_matmul(kernels: Kernels, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    x = (elements(1, RING64, *left), elements(2, RING64, *left))
    y = (elements(3, RING64, *right), elements(4, RING64, *right))
    assert torch.equal(kernels.matmul(x[0], y[0], RING64), torch.matmul(x[0], y[0]))
    expected = torch.matmul(x[0], y[0] + y[1]) + torch.matmul(x[1], y[0])
    assert torch.equal(kernels.cross_matmul(x, y, RING64), expected)


def test_heads_of_a_permuted_tensor(kernels: Kernels) -> None:
    queries, keys = (elements(s, RING64, 2, 40, 3, 16).transpose(1, 2) for s in (1, 2))
    assert torch.equal(kernels.matmul(queries, keys.mT, RING64), torch.matmul(queries, keys.mT))


def test_inputs_stay_as_they_are(kernels: Kernels) -> None:
    x, y = elements(1, RING64, 70, 70), elements(2, RING64, 70, 70)
    before = x.clone(), y.clone()
    kernels.cross_matmul((x, y), (y, x), RING64)
    kernels.cross_mul((x, y), (y, x), RING64)
    kernels.to_planes(x, 64, RING64)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_threads_change_nothing(kernels: Kernels, threads: int) -> None:
    shapes = [((150, 300), (300, 170)), ((5, 90, 70), (5, 70, 90)), ((2, 300, 40), (2, 40, 100))]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for left, right in shapes:
            x, y = elements(1, RING64, *left), elements(2, RING64, *right)
            assert torch.equal(kernels.matmul(x, y, RING64), torch.matmul(x, y))
    finally:
        torch.set_num_threads(before)


SHAPES = [
    ((), ()),
    ((1,), (1,)),
    ((0,), (0,)),
    ((5,), ()),
    ((3, 5, 70), (70,)),
    ((3, 5, 70), (3, 1, 70)),
    ((3, 5, 70), (3, 5, 1)),
    ((3, 1, 4), (1, 5, 1)),
    ((2, 0), (1,)),
    ((65, 33), (65, 33)),
]


@given(seed=seeds, ring=rings, shapes=st.sampled_from(SHAPES), swap=st.booleans(), left=layouts, right=layouts)
def test_cross_mul_equals_integers(
    kernels: Kernels,
    seed: int,
    ring: Ring,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    swap: bool,
    left: int,
    right: int,
) -> None:
    a, b = reversed(shapes) if swap else shapes
    x = (elements(seed, ring, *a), elements(seed + 1, ring, *a))
    y = (elements(seed + 2, ring, *b), elements(seed + 3, ring, *b))
    (x0, x1), (y0, y1) = ([integers(v) for v in side] for side in (x, y))
    got = kernels.cross_mul(
        (strided(x[0], left), strided(x[1], right)), (strided(y[0], right), strided(y[1], right)), ring
    )
    assert torch.equal(got, element(x0 * (y0 + y1) + x1 * y0, ring))


CONVOLUTIONS = [  # x, w, stride, padding, dilation, groups
    ((1, 1, 1), (1, 1, 1), (1,), (0,), (1,), 1),
    ((2, 4, 20), (6, 4, 3), (2,), (1,), (1,), 1),
    ((2, 4, 21), (4, 1, 3), (1,), (2,), (2,), 4),
    ((1, 3, 9, 11), (4, 3, 3, 2), (2, 1), (1, 2), (1, 2), 1),
    ((2, 6, 7, 7), (4, 3, 3, 3), (1, 3), (0, 1), (2, 1), 2),
    ((1, 3, 16, 16), (20, 3, 4, 4), (4, 4), (0, 0), (1, 1), 1),
    ((0, 3, 5, 5), (2, 3, 2, 2), (1, 1), (0, 0), (1, 1), 1),
]


@given(seed=seeds, ring=rings, case=st.sampled_from(CONVOLUTIONS), layout=layouts)
def test_convolutions_equal_integers(kernels: Kernels, seed: int, ring: Ring, case: tuple, layout: int) -> None:
    shape, kernel, *geometry = case
    x = (elements(seed, ring, *shape), elements(seed + 1, ring, *shape))
    w = (elements(seed + 2, ring, *kernel), elements(seed + 3, ring, *kernel))
    plain = convolution(x[0], w[0], *geometry)
    mine = tuple(strided(v, layout) for v in x), tuple(strided(v, layout) for v in w)
    assert torch.equal(kernels.conv(mine[0][0], mine[1][0], *geometry, ring), element(plain, ring))
    both = plain + convolution(x[0], w[1], *geometry) + convolution(x[1], w[0], *geometry)
    assert torch.equal(kernels.cross_conv(mine[0], mine[1], *geometry, ring), element(both, ring))


def test_large_convolution_equals_the_reference(kernels: Kernels) -> None:
    x, w = elements(1, RING64, 2, 16, 30, 30), elements(2, RING64, 33, 16, 5, 5)
    geometry = ((1, 1), (2, 2), (1, 1), 1)
    assert torch.equal(kernels.conv(x, w, *geometry, RING64), REFERENCE.conv(x, w, *geometry, RING64))
