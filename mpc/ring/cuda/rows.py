"""Products of few rows mod 2^k: 64-bit multiply-adds as the second operand is read, or made, once.

A prompt's token is one row, and its product with a weight is bound by the memory that the weight is read from: limbs
would be written and read again. So each element is read as it is, or made from its key where it is a keystream
(`hush.mpc.ring.seeded`), and multiplied with the rows at once. A block of ChaCha20 is eight elements of Z_2^64; it
takes some 120 32-bit operations an element, where one row takes about six, and nothing of it goes through memory.

Sums mod 2^64 have no order, so a product is cut along its depth for as many programs as a GPU wants: each writes its
part [parts, rows, columns], and they are added.

A stream runs along the depth (a linear layer's weight, transposed) or along the columns (as GPT-2 keeps them); a block
must begin where a line does, which widths of a multiple of 8 see to. What lies otherwise, has more rows, or elements of
32 bits is expanded (`usable`).
"""

# mypy: disable-error-code="assignment"
# (Triton's tuples grow)
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hush.mpc.ring.cuda import chacha
from hush.mpc.ring.cuda.launch import launch
from hush.mpc.ring.seeded import Seeded

FEW = 8  # rows: where multiply-adds cost about as much as making an element. Reckoned, not measured
_WORDS = 8  # elements of a block
_SPAN = 512  # of the depth, for a program
_READ = (16, 64)  # of a tile that is read: the one way, and the way in which neighbours lie. 8 elements a thread
_DOWN = (4, 32)  # blocks and columns of a tile that is made along the depth
_ACROSS = 128  # blocks side by side that are made along the columns


@triton.jit
def _read(
    x, y, out, K, N, x_row, y_depth, y_column,
    ROWS: tl.constexpr, MOST: tl.constexpr, SPAN: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(N, BN)
    part = tl.program_id(0) // across
    columns = (tl.program_id(0) % across) * BN + tl.arange(0, BN)
    totals = ()
    for _ in tl.static_range(MOST):
        totals = totals + (tl.zeros((BK, BN), dtype=out.dtype.element_ty),)
    first = part.to(tl.int64) * SPAN
    for start in range(0, tl.minimum(SPAN, K - first), BK):
        depth = first + start + tl.arange(0, BK)
        inside = depth < K
        at = y + depth[:, None] * y_depth + columns.to(tl.int64)[None, :] * y_column
        element = tl.load(at, mask=inside[:, None] & (columns[None, :] < N), other=0)
        more = ()
        for m in tl.static_range(MOST):
            row = tl.load(x + m * x_row + depth, mask=inside & (m < ROWS), other=0)
            more = more + (totals[m] + row[:, None] * element,)
        totals = more
    for m in tl.static_range(MOST):
        to = out + (part.to(tl.int64) * ROWS + m) * N + columns
        tl.store(to, tl.sum(totals[m], 0), mask=(columns < N) & (m < ROWS))


@triton.jit(do_not_specialize=chacha.WORDS.split())
def _down(
    k0, k1, k2, k3, k4, k5, k6, k7, n0, n1, n2,
    x, out, K, N, x_row, place, y_column,
    ROWS: tl.constexpr, MOST: tl.constexpr, SPAN: tl.constexpr, BLOCKS: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(N, BN)
    part = tl.program_id(0) // across
    columns = (tl.program_id(0) % across) * BN + tl.arange(0, BN)
    totals = ()
    for _ in tl.static_range(MOST):
        totals = totals + (tl.zeros((BLOCKS, BN), dtype=tl.int64),)
    first = part.to(tl.int64) * SPAN
    lines = place + columns.to(tl.int64) * y_column
    for start in range(0, tl.minimum(SPAN, K - first), 8 * BLOCKS):
        depth = first + start + 8 * tl.arange(0, BLOCKS)
        number = ((lines[None, :] + depth[:, None]) >> 3).to(tl.uint32)
        words = chacha.block(k0, k1, k2, k3, k4, k5, k6, k7, n0, n1, n2, number)
        for w in tl.static_range(8):
            element = words[2 * w].to(tl.int64) | (words[2 * w + 1].to(tl.int64) << 32)
            more = ()
            for m in tl.static_range(MOST):
                row = tl.load(x + m * x_row + depth + w, mask=(depth + w < K) & (m < ROWS), other=0)
                more = more + (totals[m] + row[:, None] * element,)
            totals = more
    for m in tl.static_range(MOST):
        to = out + (part.to(tl.int64) * ROWS + m) * N + columns
        tl.store(to, tl.sum(totals[m], 0), mask=(columns < N) & (m < ROWS))


@triton.jit(do_not_specialize=chacha.WORDS.split())
def _across(
    k0, k1, k2, k3, k4, k5, k6, k7, n0, n1, n2,
    x, out, K, N, x_row, place, y_depth,
    ROWS: tl.constexpr, MOST: tl.constexpr, SPAN: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(N, 8 * BLOCKS)
    part = tl.program_id(0) // tiles
    columns = ((tl.program_id(0) % tiles) * BLOCKS + tl.arange(0, BLOCKS)) * 8
    totals = ()
    for _ in tl.static_range(8 * MOST):
        totals = totals + (tl.zeros((BLOCKS,), dtype=tl.int64),)
    first = part.to(tl.int64) * SPAN
    for step in range(tl.minimum(SPAN, K - first)):
        depth = first + step
        number = ((place + depth * y_depth + columns) >> 3).to(tl.uint32)
        words = chacha.block(k0, k1, k2, k3, k4, k5, k6, k7, n0, n1, n2, number)
        more = ()
        for m in tl.static_range(MOST):
            row = tl.load(x + m * x_row + depth, mask=m < ROWS, other=0)
            for w in tl.static_range(8):
                element = words[2 * w].to(tl.int64) | (words[2 * w + 1].to(tl.int64) << 32)
                more = more + (totals[8 * m + w] + row * element,)
        totals = more
    for m in tl.static_range(MOST):
        to = out + (part.to(tl.int64) * ROWS + m) * N + columns
        for w in tl.static_range(8):
            tl.store(to + w, totals[8 * m + w], mask=(columns + w < N) & (m < ROWS))


def usable(rows: int, right: Tensor) -> bool:
    """Whether [rows, K] @ right [K, N] is for these kernels."""
    if not 0 < rows <= FEW or right.dim() != 2:
        return False
    if not isinstance(right, Seeded):
        return True
    lines = [stride for stride in right.stride() if stride != 1]
    aligned = all(n % _WORDS == 0 for n in (right.storage_offset(), *lines))
    return right.dtype == torch.int64 and len(lines) == 1 and aligned


def product(left: Tensor, right: Tensor) -> Tensor:
    """[rows, N] mod 2^64 or 2^32 of ring elements [rows, K] and [K, N], `usable`; not reduced to narrower rings."""
    left = left.contiguous()
    (rows, depth), columns = left.shape, right.shape[1]
    parts = triton.cdiv(depth, _SPAN)
    out = torch.empty((parts, rows, columns), dtype=left.dtype, device=left.device)
    if out.numel():
        _run(left, right, out)
    return out[0] if parts == 1 else out.sum(0, dtype=out.dtype)


def _run(left: Tensor, right: Tensor, out: Tensor) -> None:
    (parts, rows, columns), depth = out.shape, left.shape[1]
    most = triton.next_power_of_2(rows)
    sizes = (depth, columns, left.stride(0))
    if not isinstance(right, Seeded):
        tile = tuple(reversed(_READ)) if right.stride(0) == 1 else _READ
        grid = (triton.cdiv(columns, tile[1]) * parts,)
        launch(_read, grid, left, right, out, *sizes, *right.stride(), rows, most, _SPAN, *tile)
        return
    key, place, strides = chacha.words(right.key, right.nonce), right.storage_offset(), right.stride()
    if strides[0] == 1:
        tiles = triton.cdiv(columns, _DOWN[1])
        launch(_down, (tiles * parts,), *key, left, out, *sizes, place, strides[1], rows, most, _SPAN, *_DOWN)
    else:
        tiles = triton.cdiv(columns, _WORDS * _ACROSS)
        launch(_across, (tiles * parts,), *key, left, out, *sizes, place, strides[0], rows, most, _SPAN, _ACROSS)
