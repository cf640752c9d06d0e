"""The local steps of truncation on a GPU, each in one pass over its operands.

All arithmetic is in 64 bits and is cut to a ring's width where it is stored: what wraps above is of no matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from hush.mpc.ring.cuda.launch import launch
from hush.mpc.ring.widths import Widths

_BLOCK = 1024


@triton.jit
def _keep(x, BITS: tl.constexpr):
    """The low bits of a number."""
    if BITS < 64:
        x = x & ((1 << BITS) - 1)
    return x


@triton.jit
def _load(at, place, inside):
    return tl.load(at + place, mask=inside, other=0).to(tl.int64)


@triton.jit
def _place(n, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return place, place < n


@triton.jit
def _cross_mul(x0, x1, y0, y1, out, n, BITS: tl.constexpr, BLOCK: tl.constexpr):
    place, inside = _place(n, BLOCK)
    a, b, c, d = _load(x0, place, inside), _load(x1, place, inside), _load(y0, place, inside), _load(y1, place, inside)
    tl.store(out + place, _keep(a * (c + d) + b * c, BITS).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _answer(
    mine, got, low, mask, base, reply, n,
    K: tl.constexpr, OUT: tl.constexpr, SHIFT: tl.constexpr, OPENED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    HIGH: tl.constexpr = K - 1 - SHIFT
    place, inside = _place(n, BLOCK)
    c = _load(mine, place, inside)
    if OPENED:
        c = c + _load(got, place, inside) + (1 << (K - 2))
    sign = -((c >> (K - 1)) & 1)
    told = (_load(low, place, inside) ^ sign) - sign - _load(mask, place, inside)
    middle = (c >> SHIFT) & ((1 << HIGH) - 1)
    whole = ((told - sign) << HIGH) + middle - (1 << (K - 2 - SHIFT) if SHIFT <= K - 2 else 0)
    tl.store(base + place, _keep(whole, OUT).to(base.dtype.element_ty), mask=inside)
    tl.store(reply + place, _keep(told, OUT - HIGH).to(reply.dtype.element_ty), mask=inside)


@triton.jit
def _correct(base, other, n, OUT: tl.constexpr, HIGH: tl.constexpr, BLOCK: tl.constexpr):
    place, inside = _place(n, BLOCK)
    whole = _load(base, place, inside) + (_load(other, place, inside) << HIGH)
    tl.store(base + place, _keep(whole, OUT).to(base.dtype.element_ty), mask=inside)


@triton.jit
def _split_mask(
    r0, r1, z, drawn, low, mask0, mask1, x2, rest, whole, n,
    K: tl.constexpr, OUT: tl.constexpr, SHIFT: tl.constexpr, TWO: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    HIGH: tl.constexpr = K - 1 - SHIFT
    place, inside = _place(n, BLOCK)
    r = _load(r0, place, inside)
    if TWO:
        r = r + _load(r1, place, inside)
    r = _keep(r - _load(z, place, inside), K)
    sign = -((r >> (K - 1)) & 1)
    middle = (r >> SHIFT) & ((1 << HIGH) - 1)
    top = _load(mask0, place, inside) + _load(mask1, place, inside)
    component = (top << HIGH) - middle - _load(drawn, place, inside)
    tl.store(x2 + place, _keep(component, OUT).to(x2.dtype.element_ty), mask=inside)
    tl.store(
        rest + place, _keep(-(sign + _load(low, place, inside)), OUT - HIGH).to(rest.dtype.element_ty), mask=inside
    )
    tl.store(whole + place, r.to(whole.dtype.element_ty), mask=inside)


@triton.jit
def _narrow(
    z, plus, minus, out, n, constant,
    K: tl.constexpr, OUT: tl.constexpr, SHIFT: tl.constexpr, MASKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place, inside = _place(n, BLOCK)
    x = _load(z, place, inside) + constant
    if MASKED:
        x = x + _load(plus, place, inside) - _load(minus, place, inside)
    x = _keep(x, K)
    if SHIFT > 0:
        x = (x >> SHIFT) & ((1 << (K - SHIFT)) - 1)
    tl.store(out + place, _keep(x, OUT).to(out.dtype.element_ty), mask=inside)


def cross_mul(x: Sequence[Tensor], y: Sequence[Tensor], bits: int) -> Tensor:
    """x0 * (y0 + y1) + x1 * y0, broadcast."""
    shape = torch.broadcast_shapes(x[0].shape, y[0].shape)
    operands = [v.expand(shape).contiguous() for v in (*x, *y)]
    out = torch.empty(shape, dtype=x[0].dtype, device=x[0].device)
    _run(_cross_mul, out.numel(), *operands, out, bits=(bits,))
    return out


def answer(mine: Tensor, got: Tensor | None, low: Tensor, mask: Tensor, base: Tensor, w: Widths) -> Tensor:
    """`Kernels.answer` but for the packing: the reply's elements; `got` too are elements."""
    reply = torch.empty(mine.shape, dtype=w.top.dtype, device=mine.device)
    opened = mine if got is None else got
    flat = [v.contiguous() for v in (mine, opened, low, mask)]
    _run(_answer, mine.numel(), *flat, base, reply, bits=(*w.bits, got is not None))
    return reply


def correct(base: Tensor, other: Tensor, w: Widths) -> None:
    """`Kernels.correct`, of elements."""
    _run(_correct, base.numel(), base, other.contiguous(), bits=(w.out.bits, w.high))


def split(
    r: Sequence[Tensor], z: Tensor, drawn: Tensor, low: Tensor, masks: tuple[Tensor, Tensor], x2: Tensor, w: Widths
) -> tuple[Tensor, Tensor]:
    """`Kernels.split` but for the packing: (the message's elements, the mask)."""
    rest = torch.empty(z.shape, dtype=w.top.dtype, device=z.device)
    whole = torch.empty(z.shape, dtype=w.ring.dtype, device=z.device)
    operands = (*(v.contiguous() for v in (r[0], r[-1], z, drawn, low, *masks)), x2, rest, whole)
    _run(_split_mask, z.numel(), *operands, bits=(*w.bits, len(r) == 2))
    return rest, whole


def narrow(z: Tensor, zero: Sequence[Tensor], constant: int, w: Widths) -> Tensor:
    """`Kernels.narrow`; `constant` as a signed number of 64 bits."""
    out = torch.empty(z.shape, dtype=w.out.dtype, device=z.device)
    plus, minus = zero or (z, z)
    flat = [v.contiguous() for v in (z, plus, minus)]
    _run(_narrow, z.numel(), *flat, out, bits=(*w.bits, bool(zero)), scalars=(constant,))
    return out


def _run(kernel: object, n: int, *tensors: Tensor, bits: Sequence[int], scalars: Sequence[int] = ()) -> None:
    if n:
        launch(kernel, (triton.cdiv(n, _BLOCK),), *tensors, n, *scalars, *bits, _BLOCK)
