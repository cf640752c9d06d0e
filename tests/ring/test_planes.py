"""Bit planes: every backend against bits counted by hand, and the round trip."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from integers import elements, planes_of, rings, seeds, strided

from hush.mpc.ring import RING64, Ring
from hush.mpc.ring.kernels import Kernels
from hush.mpc.ring.torch_backend import TorchKernels

REFERENCE = TorchKernels()
counts = st.one_of(st.sampled_from([0, 1, 63, 64, 65, 511, 512, 513, 1000]), st.integers(0, 700))
widths = st.integers(0, 64)


@given(seed=seeds, ring=rings, numel=st.integers(0, 130), planes=widths, shift=st.integers(0, 40))
def test_to_planes_counts_bits(kernels: Kernels, seed: int, ring: Ring, numel: int, planes: int, shift: int) -> None:
    x = elements(seed, ring, numel)
    assert torch.equal(kernels.to_planes(x, planes, ring, shift), planes_of(x, planes, ring, shift))


@given(seed=seeds, ring=rings, numel=counts, planes=widths, shift=st.integers(0, 64))
def test_planes_equal_the_reference(
    kernels: Kernels, seed: int, ring: Ring, numel: int, planes: int, shift: int
) -> None:
    x = elements(seed, ring, numel)
    assert torch.equal(kernels.to_planes(x, planes, ring, shift), REFERENCE.to_planes(x, planes, ring, shift))
    # random words also fill the last word past the last element: that must not reach any element
    dealt = strided(elements(seed, RING64, planes, -(-numel // 64)), seed % 3)
    assert torch.equal(kernels.from_planes(dealt, numel, ring), REFERENCE.from_planes(dealt, numel, ring))
    assert torch.equal(kernels.spread(dealt, numel, ring), REFERENCE.spread(dealt, numel, ring))


@given(seed=seeds, ring=rings, numel=counts)
def test_round_trip(kernels: Kernels, seed: int, ring: Ring, numel: int) -> None:
    x = elements(seed, ring, numel)
    planes = kernels.to_planes(x, ring.bits, ring)
    assert torch.equal(kernels.from_planes(planes, numel, ring), x)
    spread = kernels.spread(planes, numel, ring)
    assert spread.shape == (ring.bits, numel)
    total = sum((row.to(torch.int64) << bit for bit, row in enumerate(spread)), torch.zeros(numel, dtype=torch.int64))
    assert torch.equal(ring.reduce(total), x)


def test_any_shape_and_layout_is_flattened(kernels: Kernels) -> None:
    x = elements(3, RING64, 7, 30)
    for how in range(3):
        assert torch.equal(kernels.to_planes(strided(x, how), 9, RING64, 5), planes_of(x, 9, RING64, 5))


def test_one_plane_of_a_repeated_row(kernels: Kernels) -> None:
    plane = elements(1, RING64, 1, 3)
    wide = plane.expand(8, 3)
    assert torch.equal(kernels.from_planes(wide, 150, RING64), REFERENCE.from_planes(wide.clone(), 150, RING64))
    assert torch.equal(kernels.spread(wide, 150, RING64), REFERENCE.spread(wide.clone(), 150, RING64))


def test_logic_on_planes_is_logic_on_elements(kernels: Kernels) -> None:
    x, y = elements(1, RING64, 300), elements(2, RING64, 300)
    both = kernels.to_planes(x, 64, RING64) & kernels.to_planes(y, 64, RING64)
    assert torch.equal(kernels.from_planes(both, 300, RING64), x & y)
