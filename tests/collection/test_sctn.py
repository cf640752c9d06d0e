"""SCTN: sparse convolutions, transport and set convolutions are what they stand for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hush.models.initial import seeded
from hush.models.registry import get
from hush.models.sctn import SCTN, TINY, SCTNConfig, SetConv, SparseConv, SparseNorm, matches, prepare, scene

SIDE = 6


def network(c: SCTNConfig = TINY) -> SCTN:
    made = seeded(lambda: SCTN(c))
    assert isinstance(made, SCTN)
    return made


def occupied(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Some voxels of a small box [V, 3] and their features [V, 4]."""
    numbers = torch.Generator().manual_seed(seed)
    places = (torch.rand(SIDE, SIDE, SIDE, generator=numbers) < 0.2).nonzero()
    return places, torch.randn(len(places), 4, generator=numbers)


def dense(places: Tensor, features: Tensor, side: int = SIDE) -> Tensor:
    box = torch.zeros(side, side, side, features.shape[1])
    box[tuple(places.T)] = features
    return box.permute(3, 0, 1, 2)[None]


def kernel_of(conv: SparseConv) -> Tensor:
    """[D, C, 3, 3, 3]."""
    return conv.kernel.unflatten(0, (3, 3, 3)).permute(4, 3, 0, 1, 2)


def read(box: Tensor, places: Tensor) -> Tensor:
    return box[0].permute(1, 2, 3, 0)[tuple(places.T)]


def test_parameters_at_paper_size() -> None:
    """By hand from the official code. A block of width D is two convolutions 27 D D and two norms 2 D; on the way down
    343 3 -> 64 and 27 of 64 -> 64 -> 128 -> 128, on the way up 27 of 128, 256, 192 -> 128, then 192 -> 64, 64 -> 64
    with bias; in the transformer 3 -> 32 -> 64 with biases and batch norms and three 64 64; set convolutions 3 + 3, 32
    + 3, 64 + 3 -> 32, 64, 128 with three norms each; 128 -> 3; epsilon and gamma."""

    def block(d: int) -> int:
        return 2 * (27 * d * d + 2 * d) + 2 * d  # and the norm before it

    def refine(a: int, d: int) -> int:
        return (a + 3) * d + 2 * d * d + 3 * 2 * d

    down = 343 * 3 * 64 + 27 * (64 * 64 + 64 * 128 + 128 * 128) + 2 * block(64) + 2 * block(128)
    up = 27 * (128 + 256 + 192) * 128 + 3 * block(128) + 192 * 64 + 64 * 64 + 64
    points = (3 * 32 + 32) + 2 * 32 + (32 * 64 + 64) + 2 * 64 + 3 * 64 * 64
    refinement = refine(3, 32) + refine(32, 64) + refine(64, 128) + 128 * 3 + 3
    assert get("sctn").sizes["paper"].parameters() == down + up + points + refinement + 2 == 7_788_229


def test_a_sparse_convolution_is_a_dense_one_read_at_voxels() -> None:
    conv, (places, features) = seeded(lambda: SparseConv(4, 5)), occupied()
    assert isinstance(conv, SparseConv)
    found = conv(features[None], matches(places, places, 3).float()[None])[0]
    wanted = read(F.conv3d(dense(places, features), kernel_of(conv), padding=1), places)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_coarser_and_finer_convolutions_are_dense_ones() -> None:
    down, up = seeded(lambda: SparseConv(4, 5)), seeded(lambda: SparseConv(5, 4))
    assert isinstance(down, SparseConv)
    assert isinstance(up, SparseConv)
    places, features = occupied()
    coarse = torch.unique(places // 2, dim=0)
    structure = matches(coarse, places, 3, 2).float()[None]
    low = down(features[None], structure)[0]
    torch.testing.assert_close(
        low, read(F.conv3d(dense(places, features), kernel_of(down), stride=2, padding=1), coarse), atol=1e-5, rtol=1e-5
    )
    high = up(low[None], structure.permute(0, 3, 2, 1))[0]
    whole = F.conv_transpose3d(
        dense(coarse, low, SIDE // 2), kernel_of(up).transpose(0, 1), stride=2, padding=1, output_padding=1
    )
    torch.testing.assert_close(high, read(whole, places), atol=1e-5, rtol=1e-5)


def test_norm_is_over_occupied_voxels() -> None:
    norm, x = SparseNorm(4), torch.randn(1, 10, 4, generator=torch.Generator().manual_seed(0))
    share = F.pad(torch.full((1, 7), 10 / 7), (0, 3))
    wanted = F.instance_norm(x[:, :7].transpose(1, 2), eps=1e-8).transpose(1, 2)
    torch.testing.assert_close(norm(x, share)[:, :7], wanted, atol=1e-5, rtol=1e-4)


def test_room_that_no_voxel_takes_changes_nothing() -> None:
    made, clouds = network(), scene(TINY.points, 3)[:2]
    roomy = network(replace(TINY, voxels=(48, 40, 32)))
    found, wanted = roomy(*prepare(roomy.config, *clouds)), made(*prepare(TINY, *clouds))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)
    with pytest.raises(ValueError, match="room"):
        prepare(replace(TINY, voxels=(4, 4, 4)), *clouds)


def test_transport_is_one_iteration_of_sinkhorn() -> None:
    """As FLOT has it, in sums and powers, in double precision."""
    made, numbers = network().double(), torch.Generator().manual_seed(0)
    features = torch.randn(1, 2, 12, 6, generator=numbers).double()
    points = torch.randn(1, 2, 12, 3, generator=numbers).double()
    support = (torch.cdist(points[:, 0], points[:, 1]) < 3.0).double()
    assert 0 < support.mean() < 1
    epsilon, gamma = made.epsilon.exp() + 0.025, made.gamma.exp()
    source, target = F.normalize(features, dim=-1).unbind(1)
    k = torch.exp(-(1 - source @ target.transpose(1, 2)) / epsilon) * support
    power, even = gamma / (gamma + epsilon), torch.full((1, 12, 1), 1 / 12).double()
    b = (even / (k.transpose(1, 2) @ even + 1e-8)) ** power
    a = (even / (k @ b + 1e-8)) ** power
    plan = a * k * b.transpose(1, 2)
    wanted = plan @ points[:, 1] / (plan.sum(-1, keepdim=True) + 1e-8) - points[:, 0]
    torch.testing.assert_close(made.transport(features, points, support), wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("epsilon", "low", "high"), [(-5.0, 0.0, 1e-3), (0.0, 0.5, 9.0)])
def test_only_a_small_entropy_recovers_a_shift(epsilon: float, low: float, high: float) -> None:
    """Features that tell points apart, a rigid motion: each point finds itself at entropy 0.03, and not at 1.03."""
    made, numbers = network(replace(TINY, epsilon=epsilon)), torch.Generator().manual_seed(0)
    features, cloud = torch.randn(1, 128, 64, generator=numbers), 2 * torch.randn(1, 128, 3, generator=numbers)
    shift = torch.tensor([1.0, -0.5, 0.25])
    pair = torch.stack([cloud, cloud + shift], 1)
    flow = made.transport(torch.stack([features, features], 1), pair, torch.ones(1, 128, 128))
    assert low <= (flow - shift).norm(dim=-1).mean() <= high


def test_flow_does_not_depend_on_the_order_of_points() -> None:
    made, (source, target, _) = network(), scene(TINY.points, 5)
    order, other = (torch.randperm(TINY.points, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    flow = made(*prepare(TINY, source, target))
    # A voxel's features are its first point's: points that share one keep their order.
    voxels = (source / TINY.voxel_size).floor(), (target / TINY.voxel_size).floor()
    order, other = (_keeping(o, v) for o, v in zip((order, other), voxels, strict=True))
    torch.testing.assert_close(made(*prepare(TINY, source[order], target[other])), flow[:, order], atol=1e-3, rtol=1e-3)


def _keeping(order: Tensor, voxels: Tensor) -> Tensor:
    """An order in which points of one voxel stand as they stood."""
    where = torch.unique(voxels, dim=0, return_inverse=True)[1]
    kept = order.clone()
    for voxel in where.unique():
        taken = (where[order] == voxel).nonzero()[:, 0]
        kept[taken] = order[taken].sort().values
    return kept


def test_set_convolution_looks_neighbours_up_first_as_well() -> None:
    """The official order: features of neighbours beside directions, three layers, the largest."""
    conv = seeded(lambda: SetConv(5, 8))
    assert isinstance(conv, SetConv)
    numbers = torch.Generator().manual_seed(0)
    x, near = torch.randn(1, 10, 5, generator=numbers), torch.randint(10, (10, 4), generator=numbers)
    edges = torch.randn(1, 10, 4, 3, generator=numbers)
    seen = torch.cat([x[:, near], edges], -1)
    for layer, norm in ((conv.fc1, conv.bn1), (conv.fc2, conv.bn2), (conv.fc3, conv.bn3)):
        seen = F.leaky_relu(norm(layer(seen).movedim(-1, 1)), 0.1).movedim(1, -1)
    found = conv(x, F.one_hot(near, 10).float()[None], edges)
    torch.testing.assert_close(found, seen.amax(2), atol=1e-5, rtol=1e-4)
