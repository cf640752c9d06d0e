"""Matrix products mod 2^k on int8 tensor cores: signed limbs of 8 bits, int32 sums, put together in the same kernel.

x = sum_i d_i 2^(8i) mod 2^k with digits d_i in [-128, 127], L = ceil(k/8) of them. Products of limbs i and j count
where i + j < L: 36 for k = 64, 10 for k = 32. Those of equal i + j are one sum in int32: with |d_i d_j| <= 2^14 and
s + 1 of them at i + j = s, depth K keeps it exact while K (s + 1) < 2^17; deeper products are cut. So the kernel is L
loops of the plain int8 product, of depth K, 2K ... LK, and each ends with a shift and a sum mod 2^64.

It reads a limb of the second operand up to L times, 36 bytes of each number for k = 64. Where rows are few that is what
takes the time, so there all limbs of the rows lie below each other, one left operand of L rows: each limb j of the
second is read once, row i of its product weighs 2^(8(i + j)), and rows are shifted and added at the end. What has
i + j >= L is multiplied too, and vanishes mod 2^k.

Limbs of a matrix take L bytes an element, as many as it has; those of weights can be kept.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hush.mpc.errors import ShapeError
from hush.mpc.ring.cuda import tiles
from hush.mpc.ring.cuda.launch import launch
from hush.mpc.ring.cuda.tiles import Tile, tile_at

_DEPTH = 1 << 17  # products of two limbs in one int32 sum
_SPLIT = 1024
LARGE = Tile(128, 128, 64, 8)
"""Sums of 64 bits beside those of 32 take 192 of a thread's 255 registers; larger tiles spill more than that."""
CANDIDATES = (
    LARGE, Tile(128, 128, 64, 8, 4), Tile(128, 128, 128, 8), Tile(64, 256, 64, 8), Tile(64, 128, 128, 4),
    Tile(128, 64, 64, 4, 4), tiles.MIDDLE,
)  # fmt: skip
"""Tiles worth trying on large products; what each spills is outside the innermost loop."""
STACKED = {16: Tile(16, 32, 256, 4, 4), 32: Tile(32, 32, 256, 4, 4), 64: Tile(64, 64, 128, 4, 4)}
STACKED[128] = Tile(128, 64, 128, 8)
"""By rows of limbs: narrow, as each column of programs is the only one to read its part of the second operand and a GPU
wants a hundred of them; fewer bytes wait for memory in each, so steps are deep."""
STACKED_CANDIDATES = (*STACKED.values(), Tile(16, 64, 128, 4, 4), Tile(64, 32, 256, 4, 4), Tile(128, 32, 128, 4, 4))


def count(bits: int) -> int:
    """L: limbs of an element of Z_2^bits."""
    return -(-bits // 8)


@triton.jit
def _split(x, out, numel, LIMBS: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < numel
    rest = tl.load(x + at, mask=inside, other=0)
    to = out + at  # moved on limb by limb: limb * numel would leave 32 bits on a large matrix
    for _ in tl.static_range(LIMBS):
        low = rest & 255
        digit = low - ((low & 128) << 1)
        tl.store(to, digit.to(tl.int8), mask=inside)
        to += numel
        rest = (rest - digit) >> 8  # what wraps at the top is of no matter mod 2^k


@triton.jit
def _product(
    a, b, c, M, N, K, a_limb, a_item, a_row, b_limb, b_item, b_depth, b_column,
    LIMBS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    down, across = tl.cdiv(M, BM), tl.cdiv(N, BN)
    item = (tl.program_id(0) // (down * across)).to(tl.int64)
    row, column = tile_at(tl.program_id(0) % (down * across), down, across)
    rows = (row * BM + tl.arange(0, BM)).to(tl.int64)
    columns = (column * BN + tl.arange(0, BN)).to(tl.int64)
    depth = tl.arange(0, BK)
    steps = tl.cdiv(K, BK)
    here, there = rows[:, None] < M, columns[None, :] < N
    a_at = a + item * a_item + rows[:, None] * a_row + depth[None, :]
    b_at = b + item * b_item + depth.to(tl.int64)[:, None] * b_depth + columns[None, :] * b_column
    total = tl.zeros((BM, BN), dtype=c.dtype.element_ty)
    for shift in range(LIMBS):  # unrolled it spills ten times as much
        part = tl.zeros((BM, BN), dtype=tl.int32)
        for step in range((shift + 1) * steps):
            limb = (step // steps).to(tl.int64)
            start = step % steps * BK
            left = tl.load(a_at + limb * a_limb + start, mask=here & (depth[None, :] < K - start), other=0)
            other = b_at + (shift - limb) * b_limb + start.to(tl.int64) * b_depth
            right = tl.load(other, mask=there & (depth[:, None] < K - start), other=0)
            part = tl.dot(left, right, part, out_dtype=tl.int32)
        total += part.to(c.dtype.element_ty) << (8 * shift)
    c_at = c + item * M * N + rows[:, None] * N + columns[None, :]
    tl.store(c_at, total, mask=here & there)


@triton.jit
def _stacked(
    a, b, c, M, N, K, a_limb, a_item, a_row, b_limb, b_item, b_depth, b_column,
    LIMBS: tl.constexpr, HIGH: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """HIGH: LIMBS up to a power of two; a tile's rows are so many times those of a limb."""
    ROWS: tl.constexpr = BM // HIGH
    across = tl.cdiv(N, BN)
    item = (tl.program_id(0) // across).to(tl.int64)
    columns = (tl.program_id(0) % across * BN + tl.arange(0, BN)).to(tl.int64)
    limb, row = (tl.arange(0, BM) // ROWS).to(tl.int64), (tl.arange(0, BM) % ROWS).to(tl.int64)
    depth = tl.arange(0, BK)
    here, there = ((limb < LIMBS) & (row < M))[:, None], columns[None, :] < N
    a_from = a + item * a_item + (limb * a_limb + row * a_row)[:, None] + depth[None, :]
    b_from = b + item * b_item + depth.to(tl.int64)[:, None] * b_depth + columns[None, :] * b_column
    b_step = tl.full((), BK, dtype=tl.int64) * b_depth
    total = tl.zeros((BM, BN), dtype=c.dtype.element_ty)
    for other in range(LIMBS):
        part = tl.zeros((BM, BN), dtype=tl.int32)
        a_at, b_at = a_from, b_from + tl.full((), other, dtype=tl.int64) * b_limb
        for start in range(0, K, BK):
            left = tl.load(a_at, mask=here & (depth[None, :] < K - start), other=0)
            right = tl.load(b_at, mask=there & (depth[:, None] < K - start), other=0)
            part = tl.dot(left, right, part, out_dtype=tl.int32)
            a_at += BK
            b_at += b_step
        total += part.to(c.dtype.element_ty) << (8 * other)
    total = total << (8 * limb).to(c.dtype.element_ty)[:, None]
    summed = tl.sum(tl.reshape(total, (HIGH, ROWS, BN)), 0)
    rows = tl.arange(0, ROWS).to(tl.int64)[:, None]
    tl.store(c + (item * M + rows) * N + columns[None, :], summed, mask=(rows < M) & there)


def split(x: Tensor, bits: int) -> Tensor:
    """int8 [L, *x.shape]: the limbs of elements of Z_2^bits."""
    flat = x.contiguous()
    out = torch.empty((count(bits), *x.shape), dtype=torch.int8, device=x.device)
    if flat.numel():
        launch(_split, (triton.cdiv(flat.numel(), _SPLIT),), flat, out, flat.numel(), count(bits), _SPLIT)
    return out


def split_right(x: Tensor, bits: int) -> Tensor:
    """`split` of [..., K, N], laid out by columns: int8 tensor cores read a second operand along its depth. What lies
    by columns already, as a transposed weight does and some columns of it, is not copied before."""
    return split(x.transpose(-1, -2), bits).transpose(-1, -2)


def product(left: Tensor, right: Tensor, dtype: torch.dtype, tile: Tile | None = None) -> Tensor:
    """[items, M, N] mod 2^64 (int64) or 2^32 (int32) of limbs [L, items, M, K] and [L, items or 1, K, N], the second in
    any layout; not reduced to narrower rings. `tile`: the default is by shape."""
    if tile is None and stacked_rows(left) in STACKED:
        return few(left, right, dtype)
    limbs, m = left.shape[0], left.shape[2]
    tile = tile or tiles.fitting(m, right.shape[-1], LARGE)
    grid = triton.cdiv(m, tile.rows) * triton.cdiv(right.shape[-1], tile.columns)
    return _cut(_product, grid, left, right, dtype, tile, (limbs,), _DEPTH // limbs)


def stacked_rows(left: Tensor) -> int:
    """Rows of a tile of all limbs [L, items, M, K] of M rows, which is a power of two; 16 at least."""
    high: int = triton.next_power_of_2(left.shape[0]) * triton.next_power_of_2(max(1, left.shape[2]))
    return max(16, high)


def few(left: Tensor, right: Tensor, dtype: torch.dtype, tile: Tile | None = None) -> Tensor:
    """`product` where rows are few: each limb of the second operand is read once. A tile's rows are `stacked_rows`."""
    limbs, high = left.shape[0], triton.next_power_of_2(left.shape[0])
    tile = tile or STACKED[stacked_rows(left)]
    if tile.rows < stacked_rows(left):
        raise ShapeError(f"a tile of {tile.rows} rows is no room for {limbs} limbs of {left.shape[2]} rows")
    return _cut(_stacked, triton.cdiv(right.shape[-1], tile.columns), left, right, dtype, tile, (limbs, high), _DEPTH)


def _cut(
    kernel: object,
    grid: int,
    left: Tensor,
    right: Tensor,
    dtype: torch.dtype,
    tile: Tile,
    constants: tuple[int, ...],
    depth: int,
) -> Tensor:
    """A product of `grid` programs an item; of two parts if int32 would not hold sums of its depth."""
    _, items, m, k = left.shape
    if k >= depth:
        first = _cut(kernel, grid, left[..., : k // 2], right[..., : k // 2, :], dtype, tile, constants, depth)
        rest = left[..., k // 2 :], right[..., k // 2 :, :]
        return first.add_(_cut(kernel, grid, *rest, dtype, tile, constants, depth))
    out = torch.empty((items, m, right.shape[-1]), dtype=dtype, device=left.device)
    if out.numel() == 0 or k == 0:
        return out.zero_()
    if left.stride(-1) != 1:
        left = left.contiguous()
    b_item = 0 if right.shape[1] == 1 else right.stride(1)
    launch(
        kernel, (grid * items,), left, right, out, m, right.shape[-1], k, *left.stride()[:3],
        right.stride(0), b_item, *right.stride()[2:], *constants, *tile.sizes, **tile.options,
    )  # fmt: skip
    return out
