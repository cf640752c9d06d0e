"""Convolutions mod 2^k as implicit products: windows are addressed inside the kernel, no unfolded copy is made.

One group is the product of its kernels [O/G, depth] with its windows [depth, pixels] over all images, where depth runs
over the places of the kernel and, fastest, over the channels. Input and kernels come as signed limbs of 8 bits and are
summed as in `limbs`: limbs of equal i + j in one int32 sum, shifted and added mod 2^64. A depth with L K >= 2^17 is cut
inside the kernel, so any depth is exact. Channels lie last: then a tile reads runs of bytes, and where channels fill
tiles, one place of the kernel at a time, whose bounds are those of the pixels.

Groups of few kernels (depthwise ones) would leave most of a tile empty; there 64-bit multiply-adds serve, on the
elements themselves, a lane an output.

One to three dimensions: fewer are three with leading extents of 1, which Triton folds away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from hush.mpc.errors import ShapeError
from hush.mpc.ring.cuda import limbs
from hush.mpc.ring.cuda.launch import launch
from hush.mpc.ring.cuda.tiles import Tile, tile_at

MOST_DIMENSIONS = 3
FEW = 8  # kernels a group below which tiles are not worth it: reckoned, not measured
_SMALL = Tile(32, 32, 32, 4)  # shallow: channels of a place fill it more often
_UNEVEN = Tile(64, 64, 64, 8)  # channels that are no multiple of 16 are read one by one: larger tiles spill over that
_BLOCK = 256
Triple = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Geometry:
    """A convolution of one to three dimensions, as one of three."""

    images: int
    groups: int
    channels: int  # of the input, a group
    kernels: int  # of a group
    size: Triple
    kernel: Triple
    stride: Triple
    padding: Triple
    dilation: Triple

    @classmethod
    def of(
        cls, x: torch.Size, w: torch.Size, steps: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], groups: int
    ) -> Geometry:
        """That of an input [N, C, *space], kernels [O, C/groups, *kernel] and (stride, padding, dilation)."""
        if len(x) != len(w) or x[1] != groups * w[1] or w[0] % groups:
            raise ShapeError(f"conv: kernels {tuple(w)} in {groups} group(s) do not fit an input {tuple(x)}")
        stride, padding, dilation = steps
        spans = _triple(x[2:], 1), _triple(w[2:], 1), _triple(stride, 1), _triple(padding, 0), _triple(dilation, 1)
        made = cls(x[0], groups, w[1], w[0] // groups, *spans)
        if min(made.out) < 1:
            raise ShapeError(f"conv: kernel {tuple(w[2:])} is larger than its padded input {tuple(x[2:])}")
        return made

    @property
    def out(self) -> Triple:
        """The result's extents."""
        spans = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        d, h, w = ((n + 2 * p - g * (k - 1) - 1) // s + 1 for n, k, s, p, g in spans)
        return d, h, w

    @property
    def places(self) -> int:
        """Of a kernel, in all dimensions."""
        return math.prod(self.kernel)

    @property
    def numbers(self) -> tuple[int, ...]:
        """What kernels take, in their order."""
        return (*self.size, *self.out, *self.kernel[1:], *self.stride, *self.padding, *self.dilation)


def _triple(values: Sequence[int], default: int) -> Triple:
    d, h, w = (default,) * (MOST_DIMENSIONS - len(values)) + tuple(values)
    return d, h, w


@triton.jit
def _corner(place, OD, OH, OW, SZ, SY, SX, PZ, PY, PX):
    """Where the window of an output pixel begins; before the input's edge if it is padded."""
    return place // (OH * OW) * SZ - PZ, place // OW % OH * SY - PY, place % OW * SX - PX


@triton.jit
def _seen(z, y, x, place, D, H, W, KH, KW, GZ, GY, GX):
    """(pixel of an image, whether it is in the image) that a place of the kernel sees from a corner."""
    z += place // (KH * KW) * GZ
    y += place // KW % KH * GY
    x += place % KW * GX
    inside = (z >= 0) & (z < D) & (y >= 0) & (y < H) & (x >= 0) & (x < W)
    return (z * H + y) * W + x, inside


@triton.jit
def _convolve(
    x, w, out, PIXELS, ROWS, C, PLACES, GROUPS, x_limb, w_limb,
    D, H, W, OD, OH, OW, KH, KW, SZ, SY, SX, PZ, PY, PX, GZ, GY, GX,
    LIMBS: tl.constexpr, ALIGNED: tl.constexpr, MOST: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    down, across = tl.cdiv(ROWS, BM), tl.cdiv(PIXELS, BN)
    group = (tl.program_id(0) // (down * across)).to(tl.int64)
    row, column = tile_at(tl.program_id(0) % (down * across), down, across)
    rows = row * BM + tl.arange(0, BM)
    here = rows[:, None] < ROWS
    kernel = group * ROWS + rows.to(tl.int64)[:, None]
    pixel = column.to(tl.int64) * BN + tl.arange(0, BN)[None, :]
    there = pixel < PIXELS
    image, spot = pixel // (OD * OH * OW), (pixel % (OD * OH * OW)).to(tl.int32)
    z, y, x_ = _corner(spot, OD, OH, OW, SZ, SY, SX, PZ, PY, PX)
    depth = tl.arange(0, BK)
    whole = PLACES * C
    runs = tl.cdiv(C, BK)  # tiles of depth at one place
    steps = PLACES * runs if ALIGNED else tl.cdiv(whole, BK)
    w_at = w + kernel * whole + depth[None, :]
    x_at = x + group * C
    total = tl.zeros((BM, BN), dtype=out.dtype.element_ty)
    for first in range(0, steps, MOST):
        count = tl.minimum(MOST, steps - first)
        for shift in range(LIMBS):
            part = tl.zeros((BM, BN), dtype=tl.int32)
            for step in range((shift + 1) * count):
                limb, inner = (step // count).to(tl.int64), first + step % count
                if ALIGNED:
                    place = inner // runs
                    low = inner % runs * BK
                    begin, fits = place * C + low, depth < C - low
                    channel = (low + depth)[:, None]
                else:
                    begin, fits = inner * BK, depth < whole - inner * BK
                    place, channel = (begin + depth)[:, None] // C, (begin + depth)[:, None] % C
                left = tl.load(w_at + limb * w_limb + begin, mask=here & fits[None, :], other=0)
                at, inside = _seen(z, y, x_, place, D, H, W, KH, KW, GZ, GY, GX)
                run = (image * (D * H * W) + at) * (GROUPS * C)
                windows = x_at + (shift - limb) * x_limb + run + channel
                right = tl.load(windows, mask=there & inside & fits[:, None], other=0)
                part = tl.dot(left, right, part, out_dtype=tl.int32)
            total += part.to(out.dtype.element_ty) << (8 * shift)
    out_at = out + (image * (GROUPS * ROWS) + kernel) * (OD * OH * OW) + spot
    tl.store(out_at, total, mask=here & there)


@triton.jit
def _direct(
    x0, x1, w0, w1, out, n, ROWS, C, PLACES, GROUPS,
    D, H, W, OD, OH, OW, KH, KW, SZ, SY, SX, PZ, PY, PX, GZ, GY, GX,
    TWO: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    lead, spot = at // (OD * OH * OW), (at % (OD * OH * OW)).to(tl.int32)
    kernel, image = lead % (GROUPS * ROWS), lead // (GROUPS * ROWS)
    z, y, x_ = _corner(spot, OD, OH, OW, SZ, SY, SX, PZ, PY, PX)
    plane = (image * GROUPS + kernel // ROWS) * C
    total = tl.zeros((BLOCK,), dtype=out.dtype.element_ty)
    for step in range(C * PLACES):
        pixel, seen = _seen(z, y, x_, step % PLACES, D, H, W, KH, KW, GZ, GY, GX)
        x_at, w_at = (plane + step // PLACES) * (D * H * W) + pixel, kernel * (C * PLACES) + step
        total += tl.load(x0 + x_at, mask=inside & seen, other=0) * tl.load(w0 + w_at, mask=inside, other=0)
        if TWO:
            total += tl.load(x1 + x_at, mask=inside & seen, other=0) * tl.load(w1 + w_at, mask=inside, other=0)
    tl.store(out + at, total, mask=inside)


def inputs(x: Sequence[Tensor], g: Geometry) -> Tensor:
    """[N, *size, groups, inputs * channels] of inputs [N, C, *space], channels last; those of each group together."""
    parts = [v.reshape(g.images, g.groups, g.channels, *g.size).permute(0, 3, 4, 5, 1, 2) for v in x]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def depths(w: Sequence[Tensor]) -> Tensor:
    """[O, *kernel, kernels * channels] of kernels [O, C/groups, *kernel]: one row an output channel."""
    parts = [v.movedim(1, -1) for v in w]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def product(left: Tensor, right: Tensor, g: Geometry, dtype: torch.dtype, tile: Tile | None = None) -> Tensor:
    """[N, O, *out] mod 2^64 (int64) or 2^32 (int32) of limbs [L, *] of `inputs` and [L, O, *] of `depths`; not reduced
    to narrower rings. `tile`: the default is by shape."""
    out = torch.empty((g.images, g.groups * g.kernels, *g.out), dtype=dtype, device=left.device)
    if out.numel() == 0 or left.numel() == 0 or right.numel() == 0:
        return out.zero_()
    count, channels, pixels = left.shape[0], left.shape[-1], g.images * math.prod(g.out)
    tile = tile or _fitting(g.kernels, pixels, channels)
    aligned = 4 * (-channels % tile.depth) <= channels  # what a run leaves empty of its tiles
    most = max(1, (limbs._DEPTH - 1) // count // tile.depth)
    grid = triton.cdiv(g.kernels, tile.rows) * triton.cdiv(pixels, tile.columns)
    launch(
        _convolve, (grid * g.groups,), left, right, out, pixels, g.kernels, channels, g.places, g.groups,
        left[0].numel(), right[0].numel(), *g.numbers, count, aligned, most, *tile.sizes, **tile.options,
    )  # fmt: skip
    return out


def _fitting(kernels: int, pixels: int, channels: int) -> Tile:
    if min(kernels, pixels) <= _SMALL.rows:
        return _SMALL
    return _UNEVEN if channels % 16 else limbs.LARGE


def direct(x: Sequence[Tensor], w: Sequence[Tensor], g: Geometry) -> Tensor:
    """[N, O, *out] in the storage's arithmetic: sum_i conv(x_i, w_i) of one or two pairs; not reduced to narrower
    rings."""
    out = torch.empty((g.images, g.groups * g.kernels, *g.out), dtype=x[0].dtype, device=x[0].device)
    if out.numel() == 0 or x[0].numel() == 0 or w[0].numel() == 0:
        return out.zero_()
    flat = [v.contiguous() for v in (x[0], x[-1], w[0], w[-1])]
    launch(
        _direct, (triton.cdiv(out.numel(), _BLOCK),), *flat, out, out.numel(), g.kernels, g.channels, g.places,
        g.groups, *g.numbers, len(x) == 2, _BLOCK,
    )  # fmt: skip
    return out
