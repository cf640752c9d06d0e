"""IFactFormer-m and -o: Yang, Wang, Wang, "Implicit factorized transformer approach to fast prediction of turbulent
channel flows", 2024, arXiv 2412.18840.

A neural operator that takes a velocity field on a grid to the field one time step later. One block with shared weights
is applied `n_layer` times, u + F(u) / n_layer. F attends along each axis apart: it pools the field over the two other
axes, makes of the pooled line a kernel K = q k^T [n, n] without softmax, and mixes values along that axis by K. "-m"
mixes along the three axes in parallel and concatenates, "-o" (the original) mixes along one after the other.

Checked against the official code (huiyu-2002/IFactFormer-m): a grouped 1x1 convolution, GELU and a 1x1 convolution over
the time window lift the field; fixed random Fourier features of the position, through a linear layer, are added once;
kernels have `kernel_multiplier` times the width of a head, are not divided by its root, and start at gain 0.02; an
instance norm without weights closes the mixing; the head has no bias in its first layer. The frequencies of the
features are a parameter there that is never trained, and counted. Two things are ours: `Rollout`, since the code
predicts one step and feeds it back outside of the network; and the order of pooling and of the linear layers without
bias before it, which commute: pooling first leaves them the n entries of a line instead of all of the grid.

Secret: the field, every kernel, and in a rollout each field on the way, which no party sees: the client gets all of
them together. Public: the grid and its coordinates, hence rotary tables; the number of iterations and of steps.
Positions' features depend on the weights alone and are the owner's work. Fields are in units of the training data's
deviation: bringing them there is the client's work, and with the same units of input and output nothing is to be done
between the steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.initial import seeded
from hush.models.registry import Call, Entry, Size, register
from hush.models.sketch import Image


@dataclass(frozen=True, slots=True)
class IFactFormerConfig:
    """Sizes; the defaults are those of channel flow at a friction Reynolds number of 180."""

    grid: tuple[int, int, int] = (32, 33, 16)
    length: tuple[float, float, float] = (4 * math.pi, 2.0, 4 * math.pi / 3)
    in_dim: int = 3
    out_dim: int = 3
    in_time_window: int = 1
    dim: int = 96
    heads: int = 5
    dim_head: int = 96
    depth: int = 1
    n_layer: int = 10
    kernel_multiplier: int = 3
    parallel: bool = True  # "-m"; else chained, "-o"
    init_gain: float = 0.02
    fourier_scale: float = 8.0
    steps: int = 1  # of the rollout


class PoolingReducer(nn.Module):
    """A line of the field along one axis: the mean over the others, a norm, a gated MLP."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_in = nn.Linear(dim, dim, bias=False)
        self.norm = nn.LayerNorm(dim)
        self.gate, self.out = nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def forward(self, line: Tensor) -> Tensor:
        """The pooled field [B, n, D] -> [B, n, D]."""
        gate, value = self.gate(self.norm(self.to_in(line))).chunk(2, -1)
        out: Tensor = self.out(F.gelu(gate) * value)
        return out


class LowRankKernel(nn.Module):
    """K = q k^T over the places of one axis, with rotary positions by coordinate and without softmax."""

    cos: Tensor
    sin: Tensor

    def __init__(self, c: IFactFormerConfig, axis: int) -> None:
        super().__init__()
        self.heads, width = c.heads, c.dim_head * c.kernel_multiplier
        self.to_q, self.to_k = (nn.Linear(c.dim, width * c.heads, bias=False) for _ in range(2))
        for layer in (self.to_q, self.to_k):
            nn.init.xavier_uniform_(layer.weight, gain=c.init_gain)
        frequencies = 10000 ** -(torch.arange(0, width, 2) / width)
        angles = 64 * coordinates(c, axis)[:, None] * frequencies
        for name, table in (("cos", angles.cos()), ("sin", angles.sin())):
            self.register_buffer(name, torch.cat([table, table], -1), persistent=False)

    def rotated(self, x: Tensor) -> Tensor:
        """[B, n, h d] -> [B, h, n, d], each pair of entries turned by its place's angle."""
        x = x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)
        first, second = x.chunk(2, -1)
        return x * self.cos + torch.cat([-second, first], -1) * self.sin

    def forward(self, line: Tensor) -> Tensor:
        """[B, n, D] -> [B, h, n, n]."""
        return self.rotated(self.to_q(line)) @ self.rotated(self.to_k(line)).transpose(-1, -2)


class FABlock3D(nn.Module):
    """Factorised attention over a field: F of u + F(u) / n_layer."""

    def __init__(self, c: IFactFormerConfig) -> None:
        super().__init__()
        self.heads, self.parallel = c.heads, c.parallel
        self.in_norm = nn.LayerNorm(c.dim)
        self.to_v = nn.Linear(c.dim, c.heads * c.dim_head, bias=False)
        self.to_in = nn.Linear(c.dim, c.dim, bias=False)
        self.reducers = nn.ModuleList(PoolingReducer(c.dim) for _ in range(3))
        self.kernels = nn.ModuleList(LowRankKernel(c, axis) for axis in range(3))
        mixed = c.heads * c.dim_head * (3 if c.parallel else 1)
        self.norm = nn.InstanceNorm3d(mixed)
        self.to_out1, self.to_out2 = nn.Linear(mixed, c.dim, bias=False), nn.Linear(c.dim, c.dim, bias=False)

    def kernel(self, u: Tensor, axis: int) -> Tensor:
        """[B, X, Y, Z, D] -> [B, h, n, n] of one axis."""
        line = u.mean([other for other in (1, 2, 3) if other != axis + 1])
        made: Tensor = self.kernels[axis](self.reducers[axis](self.to_in(line)))
        return made

    def forward(self, u: Tensor) -> Tensor:
        """[B, X, Y, Z, D] -> [B, X, Y, Z, D]."""
        u = self.in_norm(u)
        v = self.to_v(u).unflatten(-1, (self.heads, -1))
        along = "bhij,bjlrhc->bilrhc", "bhij,bljrhc->blirhc", "bhij,blrjhc->blrihc"
        if self.parallel:
            mixed = torch.cat([torch.einsum(along[axis], self.kernel(u, axis), v) for axis in range(3)], -1)
        else:
            for axis in range(3):
                v = torch.einsum(along[axis], self.kernel(u, axis), v)
            mixed = v
        mixed = self.norm(mixed.flatten(-2).movedim(-1, 1)).movedim(1, -1)
        out: Tensor = self.to_out2(F.gelu(self.to_out1(mixed)))
        return out


class PositionFeatures(nn.Module):
    """Fixed random Fourier features of the grid's points, through a linear layer: of weights alone."""

    points: Tensor

    def __init__(self, c: IFactFormerConfig) -> None:
        super().__init__()
        drawn = torch.randn(3, c.dim // 2) * c.fourier_scale
        self.frequencies = nn.Parameter(drawn, requires_grad=False)
        self.linear = nn.Linear(c.dim, c.dim)
        axes = torch.meshgrid(*(coordinates(c, axis) for axis in range(3)), indexing="ij")
        self.register_buffer("points", torch.stack(axes, -1), persistent=False)

    def forward(self) -> Tensor:
        """-> [X, Y, Z, D]."""
        angles = 2 * math.pi * self.points @ self.frequencies
        out: Tensor = self.linear(torch.cat([angles.sin(), angles.cos()], -1))
        return out


class IFactFormer(nn.Module):
    """Lift, iterate the block, project: the field one step ahead."""

    def __init__(self, c: IFactFormerConfig) -> None:
        super().__init__()
        self.config = c
        half = c.dim // 2
        self.lift1 = nn.Conv2d(c.in_dim, half, 1, groups=c.in_dim)
        self.lift2 = nn.Conv2d(half, c.dim, (c.in_time_window, 1), bias=False)
        self.positions = nn.ModuleList(PositionFeatures(c) for _ in range(c.depth))
        self.blocks = nn.ModuleList(FABlock3D(c) for _ in range(c.depth))
        self.to_out1, self.to_out2 = nn.Linear(c.dim, half, bias=False), nn.Linear(half, c.out_dim)

    def forward(self, field: Tensor) -> Tensor:
        """The last fields [B, T, X, Y, Z, C] -> the next [B, X, Y, Z, C]."""
        grid = field.shape[2:5]
        u = self.lift2(F.gelu(self.lift1(field.movedim(-1, 1).flatten(3))))
        u = u.squeeze(2).transpose(1, 2).unflatten(1, grid)
        for position, block in zip(self.positions, self.blocks, strict=True):
            u = u + position()
            for _ in range(self.config.n_layer):
                u = u + block(u) / self.config.n_layer
        out: Tensor = self.to_out2(F.gelu(self.to_out1(u)))
        return out


class Rollout(nn.Module):
    """A network that predicts the next field, fed with its own answers: one program for all steps."""

    def __init__(self, network: nn.Module, steps: int) -> None:
        super().__init__()
        self.network, self.steps = network, steps

    def forward(self, field: Tensor) -> Tensor:
        """The last fields [B, T, X, Y, Z, C] -> those of the steps ahead [B, S, X, Y, Z, C]."""
        window, ahead = list(field.unbind(1)), []
        for _ in range(self.steps):
            ahead.append(self.network(torch.stack(window, 1)))
            window = [*window[1:], ahead[-1]]
        return torch.stack(ahead, 1)


def coordinates(c: IFactFormerConfig, axis: int) -> Tensor:
    """[n]: the points of one axis, ends included."""
    return torch.linspace(0, c.length[axis], c.grid[axis])


def rollout(c: IFactFormerConfig) -> Rollout:
    """The network and its steps."""
    return Rollout(IFactFormer(c), c.steps)


PAPER = IFactFormerConfig()
TINY = replace(PAPER, grid=(8, 6, 4), dim=24, heads=2, dim_head=12, n_layer=3, steps=2)


def waves(c: IFactFormerConfig, batch: int, seed: int, modes: int = 8) -> Tensor:
    """[B, T, X, Y, Z, C]: long waves, each component its own, drifting from one time to the next."""
    numbers = torch.Generator().manual_seed(seed)
    shape = batch, c.in_dim, modes
    turns = torch.randint(-2, 3, (*shape, 3), generator=numbers).float()
    phase, drift = (torch.rand(shape, generator=numbers) for _ in range(2))
    height = torch.randn(shape, generator=numbers) * (2 / modes) ** 0.5
    places = torch.meshgrid(*(torch.arange(count) / count for count in c.grid), indexing="ij")
    along = torch.einsum("bcma,axyz->bxyzcm", turns, torch.stack(places))
    times = torch.arange(c.in_time_window).reshape(-1, 1, 1, 1, 1, 1)
    start, speed = (part[:, None, None, None, None] for part in (phase, drift))
    angles = 2 * math.pi * (along[:, None] + start + speed * times)
    field: Tensor = (height[:, None, None, None, None] * angles.cos()).sum(-1)
    return field


def example(configs: dict[str, IFactFormerConfig], size: str, seq: int, batch: int, seed: int) -> Call:
    """[B, T, X, Y, Z, C]: other waves for each seed."""
    return (waves(configs[size], batch, seed),)


def calibration(configs: dict[str, IFactFormerConfig], size: str, seq: int, batch: int) -> list[Call]:
    """More fields."""
    return [example(configs, size, seq, batch, 100 + seed) for seed in range(3)]


def sketch(call: Call, output: Tensor) -> Image:
    """The first component of the last field, in the middle of the channel's height."""
    field = output[0, -1, :, output.shape[3] // 2, :, 0]
    return Image("IFactFormer: streamwise velocity after the last step", field.T)


CONFIGS = {"tiny": TINY, "paper": PAPER}
for letter, parallel in (("m", True), ("o", False)):
    configs = {size: replace(c, parallel=parallel) for size, c in CONFIGS.items()}
    sizes = {s: Size(partial(rollout, c), math.prod(c.grid), math.prod(c.grid), fixed=True) for s, c in configs.items()}
    register(
        Entry(
            id=f"ifactformer-{letter}",
            title=f"IFactFormer-{letter}",
            paper="arXiv 2412.18840",
            task="science",
            sizes=sizes,
            build=lambda size, source, sizes=sizes: seeded(sizes[size].architecture),  # type: ignore[misc]
            example=partial(example, configs),
            calibration=partial(calibration, configs),
            err_bound=2e-3,
            sketch=sketch,
        )
    )
