"""SCTN: Li, Zheng, Giancola, Ghanem, "SCTN: Sparse Convolution-Transformer Network for Scene Flow Estimation", AAAI
2022, arXiv 2105.04447.

Two point clouds, and the motion of each point of the first. A sparse convolutional U-net over voxels gives features,
which are brought to points; a transformer over all points of a cloud adds to them; optimal transport between the
features says where points go; three set convolutions refine that flow. Checked against the authors' code, and FLOT's
(valeoai/FLOT) for transport and set convolutions: levels and widths; norms before the skips are taken and no ReLU
there; unit features of voxels, brought to points by the inverse distance to the corners of 32 voxels; batch norm in the
network of places, one head without output layer; entropy exp(-5) + 0.025; one Sinkhorn iteration; 32 neighbours.
Voxels' features are the coordinates of one of their points: checked in a network built on that code, ours is the first.

Secret: everything about the clouds but their number of points. The client has both clouds, and computes what depends
on coordinates alone (`prepare`), since comparing and sorting them on shares would cost more than the network: the
patches of the first convolution (its input is the client's own), interpolation weights, which points are near
(one-hot rows), directions to them, which points can reach each other; and for each level which voxel is whose neighbour
at which of 27 offsets, as matrices of 0 and 1 [W, 27, V]. A sparse convolution is then two products: each voxel's
contribution at each offset, and the sum by such a matrix of what reaches a voxel. The matrix from a level to the next
serves, transposed, for the way back up. Public: the room for voxels at each level; how much of it is taken is secret,
as `share` carries the number into the norms. The matrices grow with the square of the room: the paper's size is here to
be described and counted, it is not meant to be run on shares.

Transport is written in logarithms, the same function. With K = exp(-C / epsilon) and p = gamma / (gamma + epsilon),
one iteration scales columns by (sum_i K_ij + N 1e-8)^-p, rows by what cancels in the mean over targets: a softmax over
targets of log K_ij - p log(sum_i K_ij + N 1e-8). Two 1e-8 are left out: in the last division, and next to the row sums;
a point that reaches no other is matched by its features alone, where the code has it move to the origin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.initial import seeded
from hush.models.registry import Call, Entry, Size, register
from hush.models.sketch import Arrows


@dataclass(frozen=True, slots=True)
class SCTNConfig:
    """Sizes; the defaults are those of the official code."""

    points: int = 8192  # of each cloud
    voxels: tuple[int, ...] = (4096, 2048, 512, 128)  # room at each level, each half as fine as the one before
    channels: tuple[int, ...] = (64, 64, 128, 128)  # of the encoder, by level
    tr_channels: tuple[int, ...] = (64, 128, 128, 128)  # of the decoder: last layer, then by level
    out_channels: int = 64
    voxel_size: float = 0.05
    conv1_kernel_size: int = 7
    upsample_k: int = 32
    refine: int = 32  # channels of the first of three set convolutions
    nb_neighbors: int = 32
    epsilon: float = -5.0  # logarithm of the entropy's weight, to which 0.025 is added; learned
    gamma: float = 0.0  # logarithm of the mass's weight; learned
    reach: float = 10.0  # no transport farther than this
    transformer: bool = True


class SparseConv(nn.Module):
    """A convolution over occupied voxels: `structure` says which voxel is whose neighbour at which offset."""

    def __init__(self, inputs: int, outputs: int, volume: int = 27) -> None:
        super().__init__()
        bound = (inputs * volume) ** -0.5
        self.kernel = nn.Parameter(torch.empty(volume, inputs, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor, structure: Tensor) -> Tensor:
        """[B, V, C], [B, W, K, V] -> [B, W, D]: what a voxel gives at each offset, then the sum of what reaches one."""
        volume, _, width = self.kernel.shape
        given = x @ self.kernel.transpose(0, 1).flatten(1)
        given = given.reshape(*x.shape[:2], volume, width).transpose(1, 2).flatten(1, 2)
        out: Tensor = structure.flatten(2) @ given
        return out


class SparseNorm(nn.Module):
    """Instance norm over occupied voxels: `share` is V / their number at each, 0 at a place that none has. (1 / their
    number would be rounded more coarsely by a fixed point.)"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, share: Tensor) -> Tensor:
        """[B, V, C], [B, V] -> [B, V, C]."""
        x = x - share[:, None] @ x / x.shape[1]
        x = x * 16  # of small entries' squares a fixed point then keeps eight more bits; the norm is the same
        variance = share[:, None] @ x.square() / x.shape[1]
        return x * torch.rsqrt(variance + 256e-8) * self.weight + self.bias


class ResBlock(nn.Module):
    """Two sparse convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = SparseConv(width, width), SparseConv(width, width)
        self.norm1, self.norm2 = SparseNorm(width), SparseNorm(width)

    def forward(self, x: Tensor, same: Tensor, share: Tensor) -> Tensor:
        """[B, V, C] -> [B, V, C]."""
        inner = F.relu(self.norm1(self.conv1(x, same), share))
        return F.relu(self.norm2(self.conv2(inner, same), share) + x)


class SparseUNet(nn.Module):
    """Down to coarser voxels and back up, with what was seen on the way down."""

    def __init__(self, c: SCTNConfig) -> None:
        super().__init__()
        down, up = c.channels, c.tr_channels
        self.conv1 = nn.Linear(3 * c.conv1_kernel_size**3, down[0], bias=False)
        self.convs = nn.ModuleList(SparseConv(a, b) for a, b in pairwise(down))
        self.norms, self.blocks = nn.ModuleList(map(SparseNorm, down)), nn.ModuleList(map(ResBlock, down))
        below = [up[i + 1] + down[i] for i in range(1, len(down) - 1)] + [down[-1]]
        self.convs_tr = nn.ModuleList(SparseConv(a, b) for a, b in zip(below, up[1:], strict=True))
        self.norms_tr = nn.ModuleList(map(SparseNorm, up[1:]))
        self.blocks_tr = nn.ModuleList(map(ResBlock, up[1:]))
        self.conv1_tr = nn.Linear(down[0] + up[1], up[0], bias=False)
        self.final = nn.Linear(up[0], c.out_channels)

    def forward(self, patches: Tensor, shares: list[Tensor], same: list[Tensor], coarser: list[Tensor]) -> Tensor:
        """[B, V, 3 k^3] -> [B, V, D]."""
        x, skips = self.conv1(patches), []
        for level, (norm, block) in enumerate(zip(self.norms, self.blocks, strict=True)):
            if level:
                x = self.convs[level - 1](x, coarser[level - 1])
            x = norm(x, shares[level])
            skips.append(x)
            x = block(x, same[level], shares[level])
        for level in reversed(range(len(coarser))):
            x = self.convs_tr[level](x, coarser[level].permute(0, 3, 2, 1))
            x = self.blocks_tr[level](self.norms_tr[level](x, shares[level]), same[level], shares[level])
            x = torch.cat([x, skips[level]], -1)
        out: Tensor = self.final(F.relu(self.conv1_tr(x)))
        return out


class TransformerBlock(nn.Module):
    """Attention of all points of a cloud to all, over features to which a network of their places is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        first, second = nn.Linear(3, half), nn.Linear(half, width)
        norms = nn.BatchNorm1d(half), nn.BatchNorm1d(width)
        self.point_net = nn.Sequential(first, norms[0], nn.ReLU(), second, norms[1], nn.ReLU())
        self.w_qs, self.w_ks, self.w_vs = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, xyz: Tensor, features: Tensor) -> Tensor:
        """[B, N, 3], [B, N, D] -> [B, N, D]."""
        x = features + self.point_net(xyz.flatten(0, 1)).reshape(features.shape)
        return F.scaled_dot_product_attention(self.w_qs(x), self.w_ks(x), self.w_vs(x))


class SetConv(nn.Module):
    """A small network of each neighbour's features and direction, the largest answer of all neighbours."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs + 3, outputs, bias=False)
        self.fc2, self.fc3 = (nn.Linear(outputs, outputs, bias=False) for _ in range(2))
        self.bn1, self.bn2, self.bn3 = (nn.InstanceNorm2d(outputs, affine=True) for _ in range(3))

    def forward(self, x: Tensor, neighbours: Tensor, edges: Tensor) -> Tensor:
        """[B, N, C], [B, N, K, N], [B, N, K, 3] -> [B, N, D]; the first layer before neighbours are looked up."""
        seen, turned = self.fc1.weight[:, :-3], self.fc1.weight[:, -3:]
        x = (neighbours.flatten(1, 2) @ F.linear(x, seen)).reshape(*edges.shape[:3], -1) + F.linear(edges, turned)
        x = F.leaky_relu(_over_edges(self.bn1, x), 0.1)
        x = F.leaky_relu(_over_edges(self.bn2, self.fc2(x)), 0.1)
        return F.leaky_relu(_over_edges(self.bn3, self.fc3(x)).amax(2), 0.1)  # the slope is rising: the max goes first


def _over_edges(norm: nn.Module, x: Tensor) -> Tensor:
    """A norm of [B, C, N, K] applied to [B, N, K, C]."""
    normed: Tensor = norm(x.movedim(-1, 1))
    return normed.movedim(1, -1)


class SCTN(nn.Module):
    """Features of both clouds, transport between them, refinement of the flow."""

    def __init__(self, c: SCTNConfig) -> None:
        super().__init__()
        self.config = c
        self.gamma, self.epsilon = nn.Parameter(torch.tensor(c.gamma)), nn.Parameter(torch.tensor(c.epsilon))
        self.unet, self.pct = SparseUNet(c), TransformerBlock(c.out_channels)
        n = c.refine
        self.ref_conv1, self.ref_conv2, self.ref_conv3 = SetConv(3, n), SetConv(n, 2 * n), SetConv(2 * n, 4 * n)
        self.fc = nn.Linear(4 * n, 3)

    def transport(self, features: Tensor, points: Tensor, support: Tensor) -> Tensor:
        """[B, 2, N, D], [B, 2, N, 3], [B, N, N] -> the coarse flow [B, N, 3]."""
        source, target = F.normalize(features, dim=-1, eps=1e-4).unbind(1)
        epsilon, gamma = self.epsilon.exp() + 0.025, self.gamma.exp()
        logs = (source @ target.transpose(1, 2) - 1) * (1 / epsilon) + (support - 1) * 64
        least = torch.full_like(logs[:, :1], math.log(logs.shape[1] * 1e-8))
        columns = torch.cat([logs, least], 1).logsumexp(1, keepdim=True)
        plan = (logs - gamma / (gamma + epsilon) * columns).softmax(-1)
        return plan @ points[:, 1] - points[:, 0]

    def forward(
        self,
        points: Tensor,
        patches: Tensor,
        interpolation: Tensor,
        neighbours: Tensor,
        edges: Tensor,
        support: Tensor,
        *structure: Tensor,
    ) -> Tensor:
        """What `prepare` makes of two clouds -> the flow of the first [B, N, 3]."""
        dtype, levels = points.dtype, len(self.config.voxels)
        places = [part.flatten(0, 1).to(dtype) for part in structure]
        shares, same, coarser = places[:levels], places[levels : 2 * levels], places[2 * levels :]
        voxels = F.normalize(self.unet(patches.flatten(0, 1), shares, same, coarser), dim=-1)
        features = interpolation.flatten(0, 1) @ voxels
        if self.config.transformer:
            features = features + self.pct(points.flatten(0, 1), features)
        flow = self.transport(features.reshape(*points.shape[:3], -1), points, support.to(dtype))
        x, neighbours = flow, neighbours.to(dtype)
        for conv in (self.ref_conv1, self.ref_conv2, self.ref_conv3):
            x = conv(x, neighbours, edges)
        refined: Tensor = flow + self.fc(x)
        return refined


def offsets(size: int) -> Tensor:
    """[size^3, 3]: the places of a kernel around its middle."""
    return torch.cartesian_prod(*[torch.arange(size) - size // 2] * 3)


def matches(around: Tensor, places: Tensor, size: int, stride: int = 1) -> Tensor:
    """[W, 3], [V, 3] -> [W, size^3, V]: 1 where a voxel lies at an offset from the middle of another."""
    away = places[None] - stride * around[:, None]
    return (away[:, None] == offsets(size)[None, :, None]).all(-1).long()


def padded(x: Tensor, *shape: int) -> Tensor:
    """Zeros behind, up to a shape."""
    if any(n > room for n, room in zip(x.shape, shape, strict=True)):
        raise ValueError(f"{tuple(x.shape)} entries, and room for {shape}: give voxels more room or a larger size")
    return F.pad(x, [side for n, room in reversed(list(zip(x.shape, shape, strict=True))) for side in (0, room - n)])


def voxelised(c: SCTNConfig, cloud: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """A cloud [N, 3] -> patches, interpolation, structure: what the network takes of it."""
    found, where = torch.unique((cloud / c.voxel_size).floor().long(), dim=0, return_inverse=True)
    first = torch.full((len(found),), len(cloud)).scatter_reduce(0, where, torch.arange(len(cloud)), "amin")
    levels = [found]
    for _ in c.voxels[1:]:
        levels.append(torch.unique(torch.div(levels[-1], 2, rounding_mode="floor"), dim=0))
    size = c.conv1_kernel_size
    patches = (matches(found, found, size).float() @ cloud[first]).flatten(1)
    near, places = torch.cdist(cloud, found * c.voxel_size).topk(min(c.upsample_k, len(found)), largest=False)
    weight = 1 / (near + 1e-7)
    between = torch.zeros(len(cloud), len(found)).scatter(1, places, weight / weight.sum(1, keepdim=True))
    rooms = list(zip(levels, c.voxels, strict=True))
    shares = [padded(torch.full((len(v),), room / len(v)), room) for v, room in rooms]
    same = [padded(matches(v, v, 3), room, 27, room) for v, room in rooms]
    coarser = [padded(matches(low, high, 3, 2), few, 27, many) for (high, many), (low, few) in pairwise(rooms)]
    interpolation = padded(between, len(cloud), c.voxels[0])
    return padded(patches, c.voxels[0], 3 * size**3), interpolation, [*shares, *same, *coarser]


def prepare(c: SCTNConfig, source: Tensor, target: Tensor) -> Call:
    """The client's work: two clouds [N, 3] -> the network's arguments, with a batch of one."""
    (patches0, between0, first), (patches1, between1, second) = (voxelised(c, cloud) for cloud in (source, target))
    near = torch.cdist(source, source).argsort(stable=True, dim=-1)[:, : c.nb_neighbors]
    support = (torch.cdist(source, target) < c.reach).long()
    both = [torch.stack(pair) for pair in zip([patches0, between0, *first], [patches1, between1, *second], strict=True)]
    edges = source[near] - source[:, None]
    whole = torch.stack([source, target]), *both[:2], F.one_hot(near, len(source)), edges, support, *both[2:]
    return tuple(part[None] for part in whole)


def stacked(calls: Sequence[Call]) -> Call:
    """Calls of one example each as a batch."""
    return tuple(torch.cat(parts) for parts in zip(*calls, strict=True))


def scene(points: int, seed: int, bodies: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Bodies of random points, each moved by its own vector: two clouds in other orders and the flow, each [N, 3]."""
    numbers = torch.Generator().manual_seed(seed)
    body = torch.arange(points) % bodies
    middle, moved = (torch.rand(bodies, 3, generator=numbers) * 2 - 1 for _ in range(2))
    cloud = 1.5 * middle[body] + 0.3 * torch.randn(points, 3, generator=numbers)
    flow = 0.6 * moved[body]
    return cloud, (cloud + flow)[torch.randperm(points, generator=numbers)], flow


PAPER = SCTNConfig()
TINY = replace(
    PAPER,
    points=32,
    voxels=(32, 32, 24),
    channels=(8, 8, 16),
    tr_channels=(16, 16, 16),
    out_channels=16,
    voxel_size=0.3,
    conv1_kernel_size=3,
    upsample_k=4,
    refine=8,
    nb_neighbors=4,
)
CONFIGS = {"tiny": TINY, "paper": PAPER}
SIZES = {s: Size(partial(SCTN, c), seq=c.points, longest=c.points, fixed=True) for s, c in CONFIGS.items()}


def build(size: str, source: str | None) -> nn.Module:
    """Random weights with seed 0: no checkpoint of the paper is known to us."""
    return seeded(SIZES[size].architecture)


def example(size: str, seq: int, batch: int, seed: int) -> Call:
    """Two clouds of moving bodies, other ones for each seed."""
    c = CONFIGS[size]
    return stacked([prepare(c, *scene(c.points, 1000 * seed + i)[:2]) for i in range(batch)])


def calibration(size: str, seq: int, batch: int) -> list[Call]:
    """More scenes."""
    return [example(size, seq, batch, 100 + seed) for seed in range(4)]


def sketch(call: Call, output: Tensor) -> Arrows:
    """The flow of the first cloud, seen from above."""
    return Arrows("SCTN: the motion of each point", call[0][0, 0, :, :2], output[0, :, :2])


register(
    Entry(
        id="sctn",
        title="SCTN",
        paper="arXiv 2105.04447",
        task="scene flow",
        sizes=SIZES,
        build=build,
        example=example,
        calibration=calibration,
        err_bound=4e-3,
        sketch=sketch,
    )
)
