"""Cases of `test_cuda.py`: implicit convolutions of the backend `cuda` beside the reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from cuda_cases import GPU, LARGE, same, uniform
from integers import convolution, element, elements, strided
from torch import Tensor

from hush.mpc.errors import ShapeError
from hush.mpc.ring import Ring
from hush.mpc.ring.cuda import convolve, limbs
from hush.mpc.ring.cuda.backend import CudaKernels
from hush.mpc.ring.cuda.tiles import Tile

RINGS = [Ring(64), Ring(32), Ring(45), Ring(11), Ring(1)]
ONE = ((1, 1), (0, 0), (1, 1), 1)
CASES = [  # input, kernels, stride, padding, dilation, groups
    ((1, 1, 1), (1, 1, 1), (1,), (0,), (1,), 1),
    ((2, 4, 20), (6, 4, 3), (2,), (1,), (1,), 1),
    ((2, 3, 21), (3, 1, 3), (1,), (2,), (2,), 3),
    ((1, 6, 13), (9, 2, 5), (3,), (4,), (1,), 3),
    ((1, 3, 9, 11), (4, 3, 3, 2), (2, 1), (1, 2), (1, 2), 1),
    ((2, 6, 7, 7), (4, 3, 3, 3), (1, 3), (0, 1), (2, 1), 2),
    ((1, 3, 16, 16), (20, 3, 4, 4), (4, 4), (0, 0), (1, 1), 1),
    ((3, 2, 5, 4), (2, 2, 1, 1), (2, 3), (3, 0), (1, 1), 1),  # windows that see nothing but padding
    ((1, 34, 2, 4), (7, 34, 2, 1), (1, 1), (0, 1), (1, 1), 1),  # channels in runs, a tile and some more
    ((2, 4, 3, 5, 4), (6, 2, 2, 3, 1), (1, 2, 1), (1, 1, 0), (1, 1, 2), 2),
]
EMPTY = [((0, 3, 5, 5), (2, 3, 2, 2)), ((2, 3, 5, 5), (0, 3, 2, 2)), ((2, 0, 5, 5), (2, 0, 2, 2))]


@contextmanager
def altered(where: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(where, name)
    setattr(where, name, value)
    try:
        yield
    finally:
        setattr(where, name, before)


def pairs(ring: Ring, x: tuple[int, ...], w: tuple[int, ...], layout: int = 0) -> list[tuple[Tensor, Tensor]]:
    made = [elements(seed, ring, *shape) for seed, shape in enumerate((x, x, w, w))]
    there = [strided(v, layout) for v in made]
    return [(there[0], there[1]), (there[2], there[3])]


@pytest.mark.parametrize("few", [0, 1 << 30], ids=["tiles", "lanes"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolutions_by_tiles_and_by_lanes(case: tuple, few: int) -> None:
    """All geometries in all rings; each of both ways does what is left to the other by default."""
    shape, kernel, *geometry = case
    with altered(convolve, "FEW", few):
        for turn, ring in enumerate(RINGS if few else RINGS[::2]):
            x, w = pairs(ring, shape, kernel, turn % 3)
            same("conv", x[0], w[0], *geometry, ring)
            if ring.bits == 64:
                same("cross_conv", x, w, *geometry, ring)


@pytest.mark.parametrize("case", CASES[4:6], ids=str)
def test_convolutions_equal_integers(case: tuple) -> None:
    shape, kernel, *geometry = case
    for few in (0, 1 << 30):
        with altered(convolve, "FEW", few):
            for ring in (Ring(64), Ring(45)):
                (x, _), (w, _) = pairs(ring, shape, kernel)
                made = GPU.conv(x.to(GPU.device), w.to(GPU.device), *geometry, ring).cpu()
                assert torch.equal(made, element(convolution(x, w, *geometry), ring))


def test_convolutions_of_nothing() -> None:
    for few in (0, 1 << 30):
        with altered(convolve, "FEW", few):
            for shape, kernel in EMPTY:
                x, w = ([v.to(GPU.device) for v in pair] for pair in pairs(Ring(64), shape, kernel))
                due = torch.zeros(shape[0], kernel[0], 4, 4, dtype=torch.int64)
                assert torch.equal(GPU.conv(x[0], w[0], *ONE, Ring(64)).cpu(), due)
                assert torch.equal(GPU.cross_conv(x, w, *ONE, Ring(64)).cpu(), due)


def test_convolutions_over_several_tiles() -> None:
    """Rows, pixels and depth past a tile, of the large size and of the small; every group is on its own."""
    ring = Ring(32)
    for channels in (70, 16, 64 * LARGE):
        image, kernel = uniform(ring, 2, 2 * channels, 9, 9), uniform(ring, 2 * 35, channels, 2, 2)
        same("conv", image, kernel, (1, 1), (1, 0), (1, 1), 2, ring)


def test_convolutions_of_the_largest_digits() -> None:
    """-128 in every limb of both: the largest int32 sums; then a depth that is cut, in runs and across places."""
    ring, low = Ring(64), 0x7F7F7F7F7F7F7F80
    x, w = torch.full((1, 64, 3, 3), low), torch.full((9, 64, 2, 2), low)
    same("conv", x, w, *ONE, ring)
    for channels, depth in ((32, 1), (32, 8 * 70), (5, 8 * 40)):
        with altered(limbs, "_DEPTH", depth):
            same("conv", uniform(ring, 1, channels, 4, 4), uniform(ring, 9, channels, 2, 2), *ONE, ring)


def test_a_depth_whose_sum_would_wrap_is_cut() -> None:
    """Four products of -128 by -128, 2^15 deep, are 2^31: uncut, int32 wraps where the ring still sees it."""
    ring, low, depth = Ring(64), 0x7F7F7F7F7F7F7F80, 1 << 15
    x, w = torch.full((1, depth, 1), low), torch.full((8, depth, 1), low)
    with altered(convolve, "_SMALL", Tile(16, 16, 4096 if LARGE == 1 else 32, 4)):  # fewer steps to interpret
        same("conv", x, w, (1,), (0,), (1,), 1, ring)
        with altered(limbs, "_DEPTH", 1 << 20), pytest.raises(AssertionError):
            same("conv", x, w, (1,), (0,), (1,), 1, ring)


def test_operands_of_odd_layouts_stay_as_they_are() -> None:
    ring = Ring(64)
    x, w = uniform(ring, 2, 5, 6, 4).permute(0, 3, 1, 2), uniform(ring, 3, 2, 4, 10).permute(3, 2, 0, 1)
    before = x.clone(), w.clone()
    same("conv", x, w, (1, 1), (1, 1), (1, 1), 1, ring)
    same("conv", x[:, :1].expand(2, 4, 5, 6), w.flip(0), (1, 1), (1, 1), (1, 1), 1, ring)
    assert torch.equal(x, before[0])
    assert torch.equal(w, before[1])


def test_misfits_are_named() -> None:
    ring = Ring(64)
    with pytest.raises(ShapeError, match="larger than its padded input"):
        GPU.conv(uniform(ring, 1, 1, 2, 2), uniform(ring, 1, 1, 3, 3), *ONE, ring)
    for shape, groups in (((4, 2, 1, 1), 1), ((3, 2, 1, 1), 2), ((4, 4, 1), 1)):
        with pytest.raises(ShapeError, match="do not fit"):
            GPU.conv(uniform(ring, 1, 4, 2, 2), uniform(ring, *shape), (1, 1), (0, 0), (1, 1), groups, ring)


def test_four_dimensions_go_to_the_reference() -> None:
    ring = Ring(64)
    x, w = pairs(ring, (1, 2, 3, 2, 3, 2), (3, 2, 2, 1, 2, 1))
    geometry = (1,) * 4, (0,) * 4, (1,) * 4, 1
    same("conv", x[0], w[0], *geometry, ring)
    same("cross_conv", x, w, *geometry, ring)


def test_limbs_of_kernels_are_kept() -> None:
    ring, most = Ring(64), 1 << 20
    kept = CudaKernels(GPU.device, kept=most)
    x, w = ([v.to(GPU.device) for v in pair] for pair in pairs(ring, (1, 3, 6, 6), (8, 3, 2, 2)))
    due = GPU.cross_conv(x, w, *ONE, ring)
    for _ in range(2):
        assert torch.equal(kept.cross_conv(x, w, *ONE, ring), due)
        assert kept._limbs_of._bytes == 8 * 2 * w[0].numel()
    w[0].add_(1)
    assert torch.equal(kept.cross_conv(x, w, *ONE, ring), GPU.cross_conv(x, w, *ONE, ring))
    assert torch.equal(kept.conv(x[0], w[0], *ONE, ring), GPU.conv(x[0], w[0], *ONE, ring))
    del w
    assert kept._limbs_of._bytes == 0
