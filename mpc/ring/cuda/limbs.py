"""Matrix products mod 2^k on int8 tensor cores: signed limbs of 8 bits, int32 sums, put together in the same kernel.

x = sum_i d_i 2^(8i) mod 2^k with digits d_i in [-128, 127], L = ceil(k/8) of them. Products of limbs i and j count
where i + j < L: 36 for k = 64, 10 for k = 32. Those of equal i + j are one sum in int32: with |d_i d_j| <= 2^14 and
s + 1 of them at i + j = s, depth K keeps it exact while K (s + 1) < 2^17; deeper products are cut. So the kernel is L
loops of the plain int8 product, of depth K, 2K ... LK, and each ends with a shift and a sum mod 2^64.

Limbs of a matrix take L bytes an element, as many as it has; those of weights can be kept.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hush.mpc.ring.cuda.launch import launch

_DEPTH = 1 << 17  # products of two limbs in one int32 sum
_SPLIT = 1024
INT8_TILE = (128, 128, 64, 8)  # rows, columns and depth of a tile, warps
_SMALL_TILE = (32, 32, 32, 4)


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
    a, b, c, M, N, K, a_limb, b_limb, a_item, b_item,
    LIMBS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(N, BN)
    tile, item = tl.program_id(0), tl.program_id(1).to(tl.int64)
    rows = (tile // across) * BM + tl.arange(0, BM)
    columns = (tile % across) * BN + tl.arange(0, BN)
    depth = tl.arange(0, BK)
    steps = tl.cdiv(K, BK)
    here = rows.to(tl.int64)[:, None] < M
    there = columns.to(tl.int64)[None, :] < N
    a_at = a + item * a_item + rows.to(tl.int64)[:, None] * K + depth[None, :]
    b_at = b + item * b_item + depth.to(tl.int64)[:, None] * N + columns[None, :]
    total = tl.zeros((BM, BN), dtype=c.dtype.element_ty)
    for shift in range(LIMBS):  # unrolled it spills ten times as much
        part = tl.zeros((BM, BN), dtype=tl.int32)
        for step in range((shift + 1) * steps):
            limb = (step // steps).to(tl.int64)
            start = step % steps * BK
            left = tl.load(a_at + limb * a_limb + start, mask=here & (depth[None, :] + start < K), other=0)
            other = b_at + (shift - limb) * b_limb + start.to(tl.int64) * N
            right = tl.load(other, mask=there & (depth[:, None] + start < K), other=0)
            part = tl.dot(left, right, part, out_dtype=tl.int32)
        total += part.to(c.dtype.element_ty) << (8 * shift)
    c_at = c + item * M * N + rows.to(tl.int64)[:, None] * N + columns[None, :]
    tl.store(c_at, total, mask=here & there)


def split(x: Tensor, bits: int) -> Tensor:
    """int8 [L, *x.shape]: the limbs of elements of Z_2^bits."""
    flat = x.contiguous()
    out = torch.empty((count(bits), *x.shape), dtype=torch.int8, device=x.device)
    if flat.numel():
        launch(_split, (triton.cdiv(flat.numel(), _SPLIT),), flat, out, flat.numel(), count(bits), _SPLIT)
    return out


def product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """[items, M, N] mod 2^64 (int64) or 2^32 (int32) of limbs [L, items, M, K] and [L, items or 1, K, N]; not reduced
    to narrower rings."""
    limbs, items, m, k = left.shape
    n = right.shape[-1]
    if limbs * k >= _DEPTH:
        half = k // 2
        first = product(left[..., :half].contiguous(), right[..., :half, :].contiguous(), dtype)
        return first.add_(product(left[..., half:].contiguous(), right[..., half:, :].contiguous(), dtype))
    out = torch.empty((items, m, n), dtype=dtype, device=left.device)
    if out.numel() == 0 or k == 0:
        return out.zero_()
    bm, bn, bk, warps = INT8_TILE if min(m, n) > _SMALL_TILE[0] else _SMALL_TILE
    b_item = 0 if right.shape[1] == 1 else k * n
    grid = (triton.cdiv(m, bm) * triton.cdiv(n, bn), items)
    launch(
        _product, grid, left, right, out, m, n, k, items * m * k, right.shape[1] * k * n, m * k, b_item,
        limbs, bm, bn, bk, num_warps=warps,
    )  # fmt: skip
    return out
