"""IFactFormer: kernels along axes, iterations of one block, and rollouts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hush.models.ifactformer import (
    CONFIGS,
    TINY,
    FABlock3D,
    IFactFormer,
    LowRankKernel,
    PoolingReducer,
    example,
    rollout,
)
from hush.models.initial import seeded
from hush.models.registry import get


def field(batch: int = 2, width: int | None = None) -> Tensor:
    numbers = torch.Generator().manual_seed(0)
    return torch.randn(batch, *TINY.grid, width or TINY.dim, generator=numbers)


@pytest.mark.parametrize(("letter", "mixed"), [("m", 3 * 480), ("o", 480)])
def test_parameters_at_paper_size(letter: str, mixed: int) -> None:
    """By hand, with D = 96, h d = 480, kernels of 3 h d: the lift 3 groups of 1 -> 16 with bias and 48 D; frequencies
    3 D/2 and a layer D -> D; a norm, D h d values, D D; a reducer D D, a norm, D -> 2 D, D -> D; a kernel two of
    D 3 h d; mixed D and D D; the head D 48, 48 -> 3 with bias. For -m 1.163M, which the official code counts, too."""
    d, inner = 96, 480
    lift, positions = 48 + 48 + 48 * d, 3 * 48 + d * d + d
    reducer = d * d + 2 * d + (d * 2 * d + 2 * d) + (d * d + d)
    block = 2 * d + d * inner + d * d + 3 * (reducer + 2 * d * 3 * inner) + mixed * d + d * d
    counted = lift + positions + block + (d * 48 + 48 * 3 + 3)
    assert get(f"ifactformer-{letter}").sizes["paper"].parameters() == counted
    assert counted == {"m": 1_163_331, "o": 1_071_171}[letter]


def test_iterations_share_their_weights() -> None:
    once, often = (sum(p.numel() for p in IFactFormer(replace(TINY, n_layer=n)).parameters()) for n in (1, 10))
    assert once == often


def test_pooling_first_gives_what_pooling_last_gives() -> None:
    """The official order: both layers without bias on all of the grid, then the mean."""
    block, u = seeded(lambda: FABlock3D(TINY)), field()
    assert isinstance(block, FABlock3D)
    reducer = block.reducers[1]
    assert isinstance(reducer, PoolingReducer)
    line = reducer.to_in(block.to_in(u)).mean((1, 3))
    gate, value = reducer.gate(reducer.norm(line)).chunk(2, -1)
    kernel = block.kernels[1](reducer.out(torch.nn.functional.gelu(gate) * value))
    torch.testing.assert_close(block.kernel(u, 1), kernel, atol=1e-7, rtol=1e-3)


def test_kernel_of_a_constant_line_knows_distances_only() -> None:
    kernel = seeded(lambda: LowRankKernel(replace(TINY, init_gain=1.0), 0))
    line = torch.randn(1, 1, TINY.dim, generator=torch.Generator().manual_seed(1)).expand(1, TINY.grid[0], -1)
    found = kernel(line)
    torch.testing.assert_close(found[..., 1:, 1:], found[..., :-1, :-1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found[..., 0, :], found[..., 1, :], atol=1e-2)


@pytest.mark.parametrize("parallel", [True, False])
def test_chained_and_parallel_mix_along_the_axes(parallel: bool) -> None:
    """With kernels of our choice: a product of three permutations, or each of them beside the others."""
    block = seeded(lambda: FABlock3D(replace(TINY, parallel=parallel)))
    assert isinstance(block, FABlock3D)
    turned = [torch.roll(torch.eye(n), 1, 0).expand(2, TINY.heads, n, n) for n in TINY.grid]
    block.kernel = lambda u, axis: turned[axis]  # type: ignore[method-assign, assignment]
    u = field()
    v = block.to_v(block.in_norm(u)).unflatten(-1, (TINY.heads, -1))
    if parallel:
        mixed = torch.cat([torch.roll(v, 1, axis + 1) for axis in range(3)], -1)
    else:
        mixed = torch.roll(v, (1, 1, 1), (1, 2, 3))
    flat = mixed.flatten(-2)
    normed = (flat - flat.mean((1, 2, 3), keepdim=True)) / (
        flat.var((1, 2, 3), keepdim=True, unbiased=False) + 1e-5
    ).sqrt()
    expected = block.to_out2(torch.nn.functional.gelu(block.to_out1(normed)))
    torch.testing.assert_close(block(u), expected, atol=1e-5, rtol=1e-4)


def test_scale_of_kernels_is_normed_away() -> None:
    block, u = seeded(lambda: FABlock3D(replace(TINY, init_gain=100.0))), field()
    assert isinstance(block, FABlock3D)
    before = block(u)
    for kernel in block.kernels:
        assert isinstance(kernel, LowRankKernel)
        kernel.to_q.weight.mul_(8.0)
    torch.testing.assert_close(block(u), before, atol=1e-4, rtol=1e-3)


def test_rollout_feeds_each_answer_back() -> None:
    c = replace(TINY, in_time_window=2, steps=3)
    network = rollout(c).eval()
    (seen,) = example({"tiny": c}, "tiny", 0, 2, 0)
    with torch.inference_mode():
        ahead, window = network(seen), seen
        assert ahead.shape == (2, 3, *c.grid, c.out_dim)
        for step in range(c.steps):
            torch.testing.assert_close(ahead[:, step], network.network(window))
            window = torch.cat([window[:, 1:], ahead[:, step : step + 1]], 1)


def test_without_mixing_a_point_knows_itself_only() -> None:
    network = IFactFormer(TINY).eval().requires_grad_(False)
    (seen,) = example(CONFIGS, "tiny", 0, 1, 0)
    touched = seen.clone()
    touched[0, 0, 3, 2, 1] += 1.0
    moved = (network(touched) - network(seen)).abs().sum(-1)[0]
    assert (moved > 1e-6).sum() > 1
    for block in network.blocks:
        assert isinstance(block, FABlock3D)
        block.to_out2.weight.zero_()
    moved = (network(touched) - network(seen)).abs().sum(-1)[0]
    assert (moved > 1e-6).nonzero().tolist() == [[3, 2, 1]]
