"""Linear layers, matrix products, convolutions and their public-weight forms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hush.mpc.compiler.rules.elementwise import times, total
from hush.mpc.compiler.rules.table import Site, Value, rule
from hush.mpc.functions.chunks import in_pieces
from hush.mpc.protocol import ConvShape
from hush.mpc.secret import Shared
from hush.mpc.step import Step

_LIGHT = 2  # an output of a product takes less than half of the memory of what chunks are made for


@rule("hush.affine", exact=True)
def _affine(site: Site, x: Value, w: Shared | Tensor, bias: Value = None) -> Step[Shared]:
    """x @ w + b; the bias joins after the truncation, at its scale, and costs nothing."""
    y = yield from product(site, x, w)
    return y if bias is None else total(site, y, bias)


@rule("hush.matmul", "aten.mv.default", "aten.dot.default", exact=True)
def _matmul(site: Site, x: Value, y: Value, halvings: int = 0) -> Step[Shared]:
    return product(site, x, y, halvings)


def product(site: Site, x: Value, y: Value, halvings: int = 0) -> Step[Shared]:
    """(x @ y) * 2^-halvings for any mix of operands and any number of dimensions, one truncation."""
    left, right = _dimensions(x), _dimensions(y)
    if left == 1:
        x = _reshape(x, 1, -1)
    if right == 1:
        y = _reshape(y, -1, 1)
    z = yield from _two_dimensional(site, x, y, halvings)
    if left == 1:
        z = z.local(lambda t: t.squeeze(-2))
    return z.local(lambda t: t.squeeze(-1)) if right == 1 else z


def _two_dimensional(site: Site, x: Value, y: Value, halvings: int) -> Step[Shared]:
    if isinstance(x, Shared) and _dimensions(y) == 2:  # one large product instead of a batch
        lead, columns = x.shape[:-1], _shape(y)[-1]
        rows = x.reshape(-1, x.shape[-1])
        flat = yield from in_pieces(lambda r: _product(site, r, y, halvings), rows, whole=1, each=columns // _LIGHT)
        return flat.reshape(*lead, columns)
    return (yield from _product(site, x, y, halvings))


def _product(site: Site, x: Value, y: Value, halvings: int) -> Step[Shared]:
    p = site.p
    if isinstance(x, Shared) and isinstance(y, Shared):
        if x.frac == 0 or y.frac == 0:
            exact = yield from p.matmul(x, y, frac=x.frac + y.frac)
            return exact if exact.frac == (p.frac if site.real else 0) else p.rescale(exact, p.frac)
        frac = min(p.frac - halvings, x.frac + y.frac)
        z = yield from p.matmul(x, y, frac=frac)
        z = z.with_frac(frac + halvings)
        return z if z.frac == p.frac else p.rescale(z, p.frac)
    if isinstance(x, Shared):
        matrix = torch.as_tensor(y)
        if not matrix.is_floating_point():
            return p.matmul_int(x, matrix)
        if x.frac == 0:
            return (yield from p.matmul_public(x, matrix, frac=p.frac, scale=p.frac))
        if halvings:
            matrix = matrix * 2.0**-halvings
        return (yield from p.matmul_public(x, matrix, frac=p.frac))  # the weight itself, so that its encoding is kept
    assert isinstance(y, Shared)
    turned = yield from _product(site, y.transpose(-1, -2), torch.as_tensor(x).transpose(-1, -2), halvings)
    return turned.transpose(-1, -2)


def _dimensions(value: Value) -> int:
    return len(_shape(value))


def _shape(value: Value) -> torch.Size:
    assert isinstance(value, Shared | Tensor)
    return value.shape


def _reshape(value: Value, *shape: int) -> Shared | Tensor:
    assert isinstance(value, Shared | Tensor)
    return value.reshape(*shape)


@rule("aten.einsum.default")
def _einsum(site: Site, equation: str, operands: Sequence[Value]) -> Step[Shared]:
    """Two operands: batch, free and summed dimensions become one batched matrix product."""
    inputs, _, out = equation.replace(" ", "").partition("->")
    names = inputs.split(",")
    if len(names) != 2 or "." in equation or any(len(set(n)) != len(n) for n in names):
        raise site.unsupported(f"einsum {equation!r}: only two operands with distinct named dimensions have a rule")
    a, b = names
    sizes = {c: s for n, v in zip(names, operands, strict=True) for c, s in zip(n, v.shape, strict=True)}  # type: ignore[union-attr]
    batch = [c for c in a if c in b and c in out]
    summed = [c for c in a if c in b and c not in out]
    rows, columns = ([c for c in n if c not in batch and c not in summed] for n in names)
    if set(batch + rows + columns) != set(out):
        raise site.unsupported(f"einsum {equation!r} sums over a dimension of one operand alone: sum it first")
    left = _gather_dims(operands[0], a, [batch, rows, summed], sizes)
    right = _gather_dims(operands[1], b, [batch, summed, columns], sizes)
    z = yield from product(site, left, right)
    order = batch + rows + columns
    z = z.reshape(*(sizes[c] for c in order))
    return z.local(lambda t: t.permute([order.index(c) for c in out]))


def _gather_dims(value: Value, names: str, groups: Sequence[Sequence[str]], sizes: dict[str, int]) -> Shared | Tensor:
    order = [names.index(c) for group in groups for c in group]
    shape = [math.prod(sizes[c] for c in group) for group in groups]
    if isinstance(value, Shared):
        return value.local(lambda t: t.permute(order).reshape(shape))
    return torch.as_tensor(value).permute(order).reshape(shape)


@rule("aten.conv1d.default", "aten.conv2d.default")
def _conv(
    site: Site,
    x: Shared,
    w: Shared | Tensor,
    bias: Value = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Step[Shared]:
    space = x.ndim - 2
    geometry = ConvShape(_each(stride, space), _each(padding, space), _each(dilation, space), groups)
    return _convolve(site, x, w, bias, geometry)


@rule("aten.conv1d.padding", "aten.conv2d.padding")
def _conv_padding(
    site: Site,
    x: Shared,
    w: Shared | Tensor,
    bias: Value = None,
    stride: Any = 1,
    padding: str = "valid",
    dilation: Any = 1,
    groups: int = 1,
) -> Step[Shared]:
    """Padding by name; `same` may be uneven, and then the input is padded first."""
    space = x.ndim - 2
    gaps = _each(dilation, space)
    reach = [g * (k - 1) if padding == "same" else 0 for g, k in zip(gaps, w.shape[2:], strict=True)]
    pad = [side for r in reversed(reach) for side in (r // 2, r - r // 2)]
    x = x.local(lambda t: torch.nn.functional.pad(t, pad))
    return _convolve(site, x, w, bias, ConvShape(_each(stride, space), (0,) * space, gaps, groups))


@rule("aten.convolution.default")
def _convolution(
    site: Site,
    x: Shared,
    w: Shared | Tensor,
    bias: Value,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Step[Shared]:
    if transposed:
        raise site.unsupported("transposed convolutions have no rule")
    return _conv(site, x, w, bias, stride, padding, dilation, groups)  # type: ignore[no-any-return]


def _convolve(site: Site, x: Shared, w: Shared | Tensor, bias: Value, geometry: ConvShape) -> Step[Shared]:
    p = site.p
    if isinstance(w, Shared):
        y = yield from p.conv(site.as_real(x), w, geometry, frac=p.frac)
    else:
        y = yield from p.conv_public(site.as_real(x), w, geometry, frac=p.frac)
    if bias is None:
        return y
    column = [-1] + [1] * (y.ndim - 2)
    assert isinstance(bias, Shared | Tensor)
    return total(site, y, bias.reshape(*column))


def _each(value: Any, count: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * count if len(values) == 1 else values


@rule("aten.addcmul.default")
def _addcmul(site: Site, x: Value, a: Value, b: Value, *, value: float = 1) -> Step[Shared]:
    scaled = yield from times(site, a, b)
    return total(site, x, scaled if value == 1 else (yield from times(site, scaled, value)))
