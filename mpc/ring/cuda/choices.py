"""The local steps of selections on a GPU, each in one pass over its operands.

Bits are read from their words where they are needed: lane e takes bit e % 64 of word e / 64, no element of 0 or 1 is
stored. All arithmetic is in 64 bits, as in `steps`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from hush.mpc.errors import ShapeError
from hush.mpc.ring.cuda.steps import _keep, _load, _place, _run

_MOST = 4  # operands of a blend
_HALF, _WHOLE = 1 << 63, 1 << 64


@triton.jit
def _bit(words, place, inside):
    return (_load(words, place >> 6, inside) >> (place & 63)) & 1


@triton.jit(do_not_specialize=["f0", "f1", "f2", "f3", "constant"])
def _blend(
    x0, x1, x2, x3, out, n, f0: tl.int64, f1: tl.int64, f2: tl.int64, f3: tl.int64, constant: tl.int64,
    COUNT: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place, inside = _place(n, BLOCK)
    total = _load(x0, place, inside) * f0 + constant
    if COUNT > 1:
        total += _load(x1, place, inside) * f1
    if COUNT > 2:
        total += _load(x2, place, inside) * f2
    if COUNT > 3:
        total += _load(x3, place, inside) * f3
    tl.store(out + place, _keep(total, BITS).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _deal_choice(b0, b1, x0, x1, draw0, draw1, bit, chosen, n, BITS: tl.constexpr, BLOCK: tl.constexpr):
    place, inside = _place(n, BLOCK)
    a = _bit(b0, place, inside) ^ _bit(b1, place, inside)
    x = (_load(x0, place, inside) + _load(x1, place, inside)) & -a
    found = _keep(a - _load(draw0, place, inside), BITS)
    tl.store(bit + place, found.to(bit.dtype.element_ty), mask=inside)
    tl.store(chosen + place, _keep(x - _load(draw1, place, inside), BITS).to(chosen.dtype.element_ty), mask=inside)


@triton.jit
def _choose(
    c, known0, known1, other, a, d, total, out, n, BITS: tl.constexpr, TWO: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    place, inside = _place(n, BLOCK)
    sign = -_bit(c, place, inside)
    known = _load(known0, place, inside)
    if TWO:
        known += _load(known1, place, inside)
    product = _load(d, place, inside) + _load(a, place, inside) * _load(other, place, inside)
    whole = _load(total, place, inside) + ((product ^ sign) - sign) + (known & sign)
    tl.store(out + place, _keep(whole, BITS).to(out.dtype.element_ty), mask=inside)


def blend(xs: Sequence[Tensor], factors: Sequence[int], constant: int, bits: int) -> Tensor:
    """sum_i factors[i] xs[i] + constant mod 2^bits, of one to four operands of one shape."""
    if not 1 <= len(xs) == len(factors) <= _MOST:
        raise ShapeError(f"blend: {len(xs)} operands with {len(factors)} factors; one to {_MOST} go")
    out = _room(xs[0])
    operands = [v.contiguous() for v in xs]
    operands += operands[:1] * (_MOST - len(xs))
    numbers = [_signed(f) for f in (*factors, *(0,) * (_MOST - len(xs)), constant)]
    _run(_blend, out.numel(), *operands, out, scalars=numbers, bits=(len(xs), bits))
    return out


def deal_choice(
    bits: tuple[Tensor, Tensor], x: tuple[Tensor, Tensor], draws: tuple[Tensor, Tensor], width: int
) -> tuple[Tensor, Tensor]:
    """`Kernels.deal_choice` mod 2^width."""
    found = _room(x[0]), _room(x[0])
    operands = [v.contiguous() for v in (*bits, *x, *draws)]
    _run(_deal_choice, x[0].numel(), *operands, *found, bits=(width,))
    return found


def choose(
    c: Tensor, known: Sequence[Tensor], other: Tensor, dealt: tuple[Tensor, Tensor], total: Tensor, width: int
) -> Tensor:
    """`Kernels.choose` mod 2^width; `total` stays as it is."""
    out = _room(total)
    operands = [v.contiguous() for v in (c, known[0], known[-1], other, *dealt, total)]
    _run(_choose, total.numel(), *operands, out, bits=(width, len(known) == 2))
    return out


def _room(like: Tensor) -> Tensor:
    return torch.empty(like.shape, dtype=like.dtype, device=like.device)


def _signed(number: int) -> int:
    return (number + _HALF) % _WHOLE - _HALF
