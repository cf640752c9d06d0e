"""Convolutions: with strides and gaps, transposed ones, and in three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.functional import pad as padded

from hush.mpc.compiler.rules.contractions import product
from hush.mpc.compiler.rules.elementwise import total
from hush.mpc.compiler.rules.table import Site, Value, rule
from hush.mpc.protocol import ConvShape
from hush.mpc.secret import Shared
from hush.mpc.step import Step

Weight = Shared | Tensor


def _each(value: Any, count: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * count if len(values) == 1 else values


@rule("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default")
def _conv(
    site: Site,
    x: Shared,
    w: Weight,
    bias: Value = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Step[Shared]:
    space = len(w.shape) - 2
    geometry = ConvShape(_each(stride, space), _each(padding, space), _each(dilation, space), groups)
    return _convolve(site, x, w, bias, geometry)


@rule("aten.conv1d.padding", "aten.conv2d.padding", "aten.conv3d.padding")
def _conv_padding(
    site: Site,
    x: Shared,
    w: Weight,
    bias: Value = None,
    stride: Any = 1,
    padding: str = "valid",
    dilation: Any = 1,
    groups: int = 1,
) -> Step[Shared]:
    """Padding by name; `same` may be uneven, and then the input is padded first."""
    space = len(w.shape) - 2
    gaps = _each(dilation, space)
    reach = [g * (k - 1) if padding == "same" else 0 for g, k in zip(gaps, w.shape[2:], strict=True)]
    sides = [side for r in reversed(reach) for side in (r // 2, r - r // 2)]
    x = x.local(lambda t: padded(t, sides))
    return _convolve(site, x, w, bias, ConvShape(_each(stride, space), (0,) * space, gaps, groups))


@rule("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input")
def _transposed(
    site: Site,
    x: Shared,
    w: Weight,
    bias: Value = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Step[Shared]:
    """The convolution, with its kernel turned round, of the input with zeros between its entries."""
    space = len(w.shape) - 2
    gaps, steps = _each(dilation, space), _each(stride, space)
    sides: list[int] = []
    for kernel, gap, edge, more in zip(
        w.shape[2:], gaps, _each(padding, space), _each(output_padding, space), strict=True
    ):
        reach = gap * (kernel - 1) - edge
        sides = [reach, reach + more, *sides]  # the last dimension's come first, and negative ones cut
    spread = _Spread(steps, tuple(sides))
    turned = w.local(lambda t: _turned(t, groups)) if isinstance(w, Shared) else _turned(w, groups)
    return _convolve(site, x.local(spread), turned, bias, ConvShape((1,) * space, (0,) * space, gaps, groups))


@dataclass(frozen=True, slots=True)
class _Spread:
    """Zeros between the entries of the last dimensions, and around them."""

    steps: tuple[int, ...]
    sides: tuple[int, ...]

    def __call__(self, t: Tensor) -> Tensor:
        space = t.shape[t.ndim - len(self.steps) :]
        wide = t.new_zeros(
            (*t.shape[: -len(space)], *((n - 1) * s + 1 for n, s in zip(space, self.steps, strict=True)))
        )
        places: tuple[Any, ...] = (..., *(slice(None, None, s) for s in self.steps))
        wide[places] = t
        return padded(wide, list(self.sides))


def _turned(w: Tensor, groups: int) -> Tensor:
    """[in, out/groups, *kernel] as [out, in/groups, *kernel], reversed in space."""
    grouped = w.reshape(groups, w.shape[0] // groups, *w.shape[1:]).transpose(1, 2)
    return grouped.reshape(-1, w.shape[0] // groups, *w.shape[2:]).flip(list(range(2, w.ndim)))


@rule("aten.convolution.default")
def _convolution(
    site: Site,
    x: Shared,
    w: Weight,
    bias: Value,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Step[Shared]:
    if transposed:
        made: Step[Shared] = _transposed(site, x, w, bias, stride, padding, output_padding, groups, dilation)
    else:
        made = _conv(site, x, w, bias, stride, padding, dilation, groups)
    return made


def _convolve(site: Site, x: Shared, w: Weight, bias: Value, geometry: ConvShape) -> Step[Shared]:
    """x [N, C, *space] or [C, *space]; the bias joins after the truncation."""
    alone = x.ndim == len(w.shape) - 1
    batch = site.as_real(x[None] if alone else x)
    y = yield from _products(site, batch, w, geometry)
    if bias is not None:
        assert isinstance(bias, Weight)
        y = total(site, y, bias.reshape(-1, *[1] * (y.ndim - 2)))
    return y[0] if alone else y


def _products(site: Site, x: Shared, w: Weight, geometry: ConvShape) -> Step[Shared]:
    if len(geometry.stride) > 2:
        return (yield from _as_product(site, x, w, geometry))
    if isinstance(w, Shared):
        return (yield from site.p.conv(x, w, geometry, frac=site.p.frac))
    return (yield from site.p.conv_public(x, w, geometry, frac=site.p.frac))


def _as_product(site: Site, x: Shared, w: Weight, geometry: ConvShape) -> Step[Shared]:
    """In three dimensions: every window as a row, times the kernels."""
    if geometry.groups != 1:
        raise site.unsupported("convolutions of groups in three dimensions have no rule")
    rows = x.local(lambda t: _windows(t, w.shape[2:], geometry))
    kernels = w.local(_columns) if isinstance(w, Shared) else _columns(w)
    y = yield from product(site, rows, kernels)
    return y.local(lambda t: t.movedim(-1, 1))


def _columns(w: Tensor) -> Tensor:
    return w.reshape(w.shape[0], -1).transpose(0, 1)


def _windows(t: Tensor, kernel: Sequence[int], geometry: ConvShape) -> Tensor:
    """[N, *places, C * kernel]."""
    t = padded(t, [side for p in reversed(geometry.padding) for side in (p, p)])
    for dim, (size, step, gap) in enumerate(zip(kernel, geometry.stride, geometry.dilation, strict=True), 2):
        t = t.unfold(dim, gap * (size - 1) + 1, step)[..., ::gap]
    places = len(kernel)
    return t.movedim(1, 1 + places).reshape(t.shape[0], *t.shape[2 : 2 + places], t.shape[1] * math.prod(kernel))
