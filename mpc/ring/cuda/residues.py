"""Matrix products mod 2^k by residues: one int8 product for each of some coprime numbers, then the remainder theorem.

A product of centred operands, x in [-2^(k-1), 2^(k-1)), is an integer of magnitude at most B = 2^(2k-2) D at depth
D = 4096. Its residues modulo pairwise coprime m_1 ... m_n of at most 256 say which integer it is once M = m_1 ... m_n
exceeds 2 B, and each of them is a product of matrices of int8: n = 18 for k = 64, where limbs take 36; 12 and 15 for
k = 40; 10 and 10 for k = 32. Deeper products are sums mod 2^64 of products of depth D.

Exact at every step, in integers:

- int32 sums: residues lie in [-128, 127], so D of their products are at most 2^26 in magnitude.
- A sum mod m: u = sum + 2^19 m lies in [0, 2^28), as 2^26 < 2^19 m for every m here. floor(u/m) is u I >> 36 with
  I = ceil(2^36 / m): the excess u (I - 2^36/m) / 2^36 is below 2^-8 <= 1/m, too little to reach the next integer.
- The integer x mod 2^64: with t_i = x (M/m_i)^-1 mod m_i, x = sum_i t_i M/m_i - q M for an integer q, so that
  sum_i t_i/m_i = q + x/M. n is such that |x|/M < 3/8. In units of 2^-24, t_i ceil(2^24/m_i) exceeds t_i/m_i by less
  than t_i <= 255 and all of them by less than 18 * 255 < 2^13: their sum S lies in q + (-3/8, 3/8 + 2^-11), so q is
  floor(S + 1/2); S stays below 19 * 2^24 < 2^31. The rest is arithmetic mod 2^64.

Residues of a matrix take n bytes an element. Sums are kept as residues between the kernels: n bytes an element of the
product, and no accumulator but the int32 one, where a single kernel would hold an int64 and q's sum besides.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from hush.mpc.ring.cuda import limbs, tiles
from hush.mpc.ring.cuda.launch import launch
from hush.mpc.ring.cuda.tiles import Tile, tile_at

MODULI = (256, 255, 253, 251, 247, 241, 239, 233, 229, 227, 223, 217, 211, 199, 197, 193, 191, 181)
DEPTH = 4096  # of what one remainder is taken of
_FRACTION = 24
_SPLIT = 512
LARGE = Tile(128, 128, 128, 8)
CANDIDATES = (
    LARGE, Tile(128, 128, 64, 8), Tile(128, 256, 64, 8), Tile(128, 256, 128, 8), Tile(256, 128, 128, 8),
    Tile(64, 256, 128, 8), Tile(64, 256, 64, 4),
)  # fmt: skip
"""Tiles worth trying on large products. Those of 256 but the one of 64 rows and 8 warps are for compute capability 9.0:
before it they spill inside the innermost loop. Of depth 128 they take more shared memory there than 8.6 and 8.9 have.
"""


def count(bits: int) -> int:
    """n: how many of the moduli products of elements of Z_2^bits take."""
    largest = DEPTH << (2 * bits - 2)
    return next(n for n in range(1, len(MODULI) + 1) if 8 * largest < 3 * math.prod(MODULI[:n]))


def fewer(bits: int) -> bool:
    """Whether these are fewer int8 products than by limbs."""
    of_limbs = limbs.count(bits)
    return count(bits) < of_limbs * (of_limbs + 1) // 2


@cache
def remainder(n: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]:
    """(M/m_i)^-1 mod m_i, M/m_i mod 2^64 and ceil(2^24/m_i) for the first n moduli, and M mod 2^64; signed."""
    moduli, whole = MODULI[:n], math.prod(MODULI[:n])
    inverses = tuple(pow(whole // m, -1, m) for m in moduli)
    units = tuple(-(-(1 << _FRACTION) // m) for m in moduli)
    return inverses, tuple(_signed(whole // m) for m in moduli), units, _signed(whole)


def _signed(x: int) -> int:
    return (x + (1 << 63)) % (1 << 64) - (1 << 63)


@triton.jit
def _residue(first, second, third, top, M: tl.constexpr, LAST: tl.constexpr):
    HALF: tl.constexpr = M // 2
    total = top * ((1 << (16 * LAST)) % M) + (((1 << 23) // M + 1) * M + HALF)
    if LAST > 0:
        total += first
    if LAST > 1:
        total += second * ((1 << 16) % M)
    if LAST > 2:
        total += third * ((1 << 32) % M)
    return (total.to(tl.uint32) % M).to(tl.int32) - HALF


@triton.jit
def _split(x, out, numel, BITS: tl.constexpr, MODULI: tl.constexpr, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """x = d_0 + 2^16 d_1 + ..., the last digit signed: sum_j d_j (2^(16 j) mod m) lies between -2^23 and 2^26."""
    LAST: tl.constexpr = (BITS - 1) // 16
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < numel
    centred = tl.load(x + at, mask=inside, other=0).to(tl.int64) << (64 - BITS) >> (64 - BITS)
    first, second = (centred & 65535).to(tl.int32), ((centred >> 16) & 65535).to(tl.int32)
    third, top = ((centred >> 32) & 65535).to(tl.int32), (centred >> (16 * LAST)).to(tl.int32)
    to = out + at
    for i in tl.static_range(COUNT):
        tl.store(to, _residue(first, second, third, top, MODULI[i], LAST).to(tl.int8), mask=inside)
        to += numel


@triton.jit
def _modulus(i, MODULI: tl.constexpr, COUNT: tl.constexpr):
    found = i * 0 + MODULI[0]
    for other in tl.static_range(1, COUNT):
        found = tl.where(i == other, MODULI[other], found)
    return found


@triton.jit
def _product(
    a, b, c, items, M, N, K, a_residue, a_item, a_row, b_residue, b_item, b_depth, b_column,
    MODULI: tl.constexpr, COUNT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    down, across = tl.cdiv(M, BM), tl.cdiv(N, BN)
    row, column = tile_at(tl.program_id(0) % (down * across), down, across)
    which = tl.program_id(0) // (down * across)
    item, residue = (which % items).to(tl.int64), (which // items).to(tl.int64)
    rows = (row * BM + tl.arange(0, BM)).to(tl.int64)
    columns = (column * BN + tl.arange(0, BN)).to(tl.int64)
    depth = tl.arange(0, BK)
    here, there = rows[:, None] < M, columns[None, :] < N
    a_at = a + residue * a_residue + item * a_item + rows[:, None] * a_row + depth[None, :]
    b_at = b + residue * b_residue + item * b_item + depth.to(tl.int64)[:, None] * b_depth + columns[None, :] * b_column
    part = tl.zeros((BM, BN), dtype=tl.int32)
    b_step = tl.full((), BK, dtype=tl.int64) * b_depth
    for start in range(0, K, BK):
        left = tl.load(a_at, mask=here & (depth[None, :] < K - start), other=0)
        right = tl.load(b_at, mask=there & (depth[:, None] < K - start), other=0)
        part = tl.dot(left, right, part, out_dtype=tl.int32)
        a_at += BK
        b_at += b_step
    modulus = _modulus(which // items, MODULI, COUNT)
    inverse = ((1 << 36) + modulus.to(tl.int64) - 1) // modulus
    above = part + (modulus << 19)
    quotient = ((above.to(tl.int64) * inverse) >> 36).to(tl.int32)
    c_at = c + (residue * items + item) * M * N + rows[:, None] * N + columns[None, :]
    tl.store(c_at, (above - quotient * modulus).to(tl.uint8), mask=here & there)


@triton.jit
def _remainder(
    sums, out, numel,
    MODULI: tl.constexpr, INVERSES: tl.constexpr, COFACTORS: tl.constexpr, UNITS: tl.constexpr, WHOLE: tl.constexpr,
    FRACTION: tl.constexpr, COUNT: tl.constexpr, MORE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < numel
    total = tl.zeros((BLOCK,), dtype=tl.int64)
    near = tl.full((BLOCK,), 1 << (FRACTION - 1), dtype=tl.int32)
    of = sums + at
    for i in tl.static_range(COUNT):
        residue = tl.load(of, mask=inside, other=0).to(tl.uint32)
        of += numel
        turn = ((residue * INVERSES[i]) % MODULI[i]).to(tl.int32)
        near += turn * UNITS[i]
        total += turn.to(tl.int64) * COFACTORS[i]
    total -= (near >> FRACTION).to(tl.int64) * WHOLE
    if MORE:
        total += tl.load(out + at, mask=inside, other=0).to(tl.int64)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


def split(x: Tensor, bits: int) -> Tensor:
    """int8 [n, *x.shape]: the residues of elements of Z_2^bits, centred: -m//2 .. (m-1)//2 of the number in
    [-2^(bits-1), 2^(bits-1)) that an element is. Bits of x at and above 2^bits are of no matter."""
    flat, n = x.contiguous(), count(bits)
    out = torch.empty((n, *x.shape), dtype=torch.int8, device=x.device)
    if flat.numel():
        launch(_split, (triton.cdiv(flat.numel(), _SPLIT),), flat, out, flat.numel(), bits, MODULI, n, _SPLIT)
    return out


def split_right(x: Tensor, bits: int) -> Tensor:
    """`split` of [..., K, N], laid out by columns, as `limbs.split_right`."""
    return split(x.transpose(-1, -2), bits).transpose(-1, -2)


def product(left: Tensor, right: Tensor, dtype: torch.dtype, tile: Tile | None = None) -> Tensor:
    """[items, M, N] mod 2^64 (int64) or 2^32 (int32) of residues [n, items, M, K] and [n, items or 1, K, N], the
    second in any layout; not reduced to narrower rings. `tile`: the default is by shape."""
    n, items, m, k = left.shape
    out = torch.empty((items, m, right.shape[-1]), dtype=dtype, device=left.device)
    if out.numel() == 0 or k == 0:
        return out.zero_()
    tile = tile or tiles.fitting(m, right.shape[-1], LARGE)
    sums = torch.empty((n, *out.shape), dtype=torch.uint8, device=left.device)
    for start in range(0, k, DEPTH):
        _residues(left[..., start : start + DEPTH], right[..., start : start + DEPTH, :], sums, tile)
        combine(sums, out, more=start > 0)
    return out


def combine(sums: Tensor, out: Tensor, *, more: bool = False) -> None:
    """What numbers of magnitude below 3/8 M are mod 2^64 or 2^32, by their residues uint8 [n, *out.shape] in [0, m):
    written to `out`, or added to it."""
    n, grid = len(sums), (triton.cdiv(out.numel(), _SPLIT),)
    launch(_remainder, grid, sums, out, out.numel(), MODULI, *remainder(n), _FRACTION, n, more, _SPLIT)


def _residues(left: Tensor, right: Tensor, sums: Tensor, tile: Tile) -> None:
    """The products modulo each of the moduli, of depth at most `DEPTH`, written to `sums` uint8 [n, items, M, N]."""
    if left.stride(-1) != 1:
        left = left.contiguous()
    n, items, rows, columns = sums.shape
    b_item = 0 if right.shape[1] == 1 else right.stride(1)
    launch(
        _product, (triton.cdiv(rows, tile.rows) * triton.cdiv(columns, tile.columns) * items * n,),
        left, right, sums, items, rows, columns, left.shape[-1], *left.stride()[:3],
        right.stride(0), b_item, *right.stride()[2:], MODULI, n, *tile.sizes, **tile.options,
    )  # fmt: skip
