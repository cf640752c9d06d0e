"""Activations, softmax and norms: the functions of `hush.mpc.functions` under their ATen names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from hush.mpc.compiler.rules.elementwise import total
from hush.mpc.compiler.rules.table import Site, Value, rule
from hush.mpc.functions import norms, softmax
from hush.mpc.functions.sets import SETS
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together


def _elementwise(op: str, function: str) -> None:
    @rule(op)
    def apply(site: Site, x: Shared) -> Step[Shared]:
        step: Step[Shared] = getattr(SETS[site.approx], function)(site.p, site.as_real(x), bound=site.bound(0))
        return step


for _op, _function in (
    ("aten.silu.default", "silu"),
    ("aten.sigmoid.default", "sigmoid"),
    ("aten.tanh.default", "tanh"),
    ("aten.relu.default", "relu"),
    ("aten.exp.default", "exp"),
    ("aten.abs.default", "absolute"),
    ("aten.sign.default", "sign"),
):
    _elementwise(_op, _function)


@rule("aten.gelu.default")
def _gelu(site: Site, x: Shared, *, approximate: str = "none") -> Step[Shared]:
    functions = SETS[site.approx]
    function = functions.gelu_tanh if approximate == "tanh" else functions.gelu
    return function(site.p, x, bound=site.bound(0))


@rule("aten.leaky_relu.default")
def _leaky_relu(site: Site, x: Shared, slope: float = 0.01) -> Step[Shared]:
    """x where x >= 0, slope * x elsewhere."""
    functions = SETS[site.approx]
    positive, scaled = yield from together(
        functions.relu(site.p, x, bound=site.bound(0)), site.p.mul_public(x, slope, frac=x.frac)
    )
    return site.p.add(scaled, (yield from site.p.mul_public(positive, 1.0 - slope, frac=x.frac)))


@rule("aten.clamp.default", "aten.hardtanh.default")
def _clamp(site: Site, x: Shared, low: float | None = None, high: float | None = None) -> Step[Shared]:
    """min(max(x, low), high): x + relu(low - x) - relu(x - high), exact."""
    p, relu = site.p, SETS[site.approx].relu
    low, high = (-1.0, 1.0) if low is None and high is None else (low, high)
    parts = []
    for limit, sign in ((low, 1), (high, -1)):
        if limit is not None:
            gap = p.scale(p.add_public(x, -limit), -sign)
            parts.append((sign, relu(p, gap, bound=site.bound(0) + abs(limit))))
    found = yield from together(*(step for _, step in parts))
    for (sign, _), part in zip(parts, found, strict=True):
        x = p.add(x, part) if sign > 0 else p.sub(x, part)
    return x


@rule("aten.clamp_min.default")
def _clamp_min(site: Site, x: Shared, low: float) -> Step[Shared]:
    return _clamp(site, x, low, None)  # type: ignore[no-any-return]


@rule("hush.softmax")
def _softmax(site: Site, x: Shared, dim: int, keep: Tensor | None = None) -> Step[Shared]:
    return _over_last(site, softmax.softmax, x, dim, keep)


@rule("aten.log_softmax.int", "aten._log_softmax.default")
def _log_softmax(site: Site, x: Shared, dim: int, *_: Any) -> Step[Shared]:
    return _over_last(site, softmax.log_softmax, x, dim, None)


def _over_last(site: Site, function: Any, x: Shared, dim: int, keep: Tensor | None) -> Step[Shared]:
    last = site.as_real(x).local(lambda t: t.movedim(dim, -1))
    mask = None if keep is None else keep.reshape(keep.shape or (1,))
    if mask is not None and mask.ndim > 1:
        mask = _align(mask, x.ndim).movedim(dim, -1)
    y: Shared = yield from function(site.p, last, bound=site.bound(0), approx=site.approx, mask=mask)
    return y.local(lambda t: t.movedim(-1, dim))


def _align(mask: Tensor, ndim: int) -> Tensor:
    return mask.reshape(*[1] * (ndim - mask.ndim), *mask.shape)


@rule("aten.layer_norm.default")
def _layer_norm(
    site: Site, x: Shared, shape: Sequence[int], weight: Value = None, bias: Value = None, eps: float = 1e-5, *_: Any
) -> Step[Shared]:
    y = yield from norms.layer_norm(site.p, x, bound=site.bound(0), eps=eps, dims=len(shape), approx=site.approx)
    return (yield from _affine(site, y, weight, bias))


@rule("hush.rms_norm")
def _rms_norm(site: Site, x: Shared, weight: Value, eps: float) -> Step[Shared]:
    y = yield from norms.rms_norm(site.p, x, bound=site.bound(0), eps=eps, approx=site.approx)
    return (yield from _affine(site, y, weight, None))


@rule("hush.unit")
def _unit(site: Site, x: Shared, dim: int, eps: float) -> Step[Shared]:
    return norms.unit_length(site.p, x, dim, bound=site.bound(0), eps=eps)


@rule("aten.group_norm.default")
def _group_norm(
    site: Site, x: Shared, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Step[Shared]:
    return norms.group_norm(
        site.p, x, groups, bound=site.bound(0), weight=weight, bias=bias, eps=eps, approx=site.approx
    )


@rule("aten.instance_norm.default")
def _instance_norm(
    site: Site, x: Shared, weight: Any, bias: Any, mean: Any, var: Any, own: bool, momentum: float, eps: float, *_: Any
) -> Step[Shared]:
    if not own:
        raise site.unsupported("instance_norm with running statistics has no rule")
    return norms.instance_norm(site.p, x, bound=site.bound(0), weight=weight, bias=bias, eps=eps, approx=site.approx)


def _affine(site: Site, y: Shared, weight: Value, bias: Value) -> Step[Shared]:
    if weight is not None:
        assert isinstance(weight, Shared | Tensor)
        y = yield from norms.affine(site.p, y, weight, None)
    return y if bias is None else total(site, y, bias)


@rule("aten.softplus.default")
def _softplus(site: Site, x: Shared, beta: float = 1.0, threshold: float = 20.0) -> Step[Shared]:
    """ln(1 + e^x) = relu(x) + ln(1 + e^-|x|)."""
    from hush.mpc.functions.log import log

    if beta != 1.0:
        raise site.unsupported("softplus with beta other than 1 has no rule")
    p, functions = site.p, SETS[site.approx]
    positive = yield from functions.relu(p, x, bound=site.bound(0))
    magnitude = p.sub(p.scale(positive, 2), x)
    small = yield from functions.exp_nonpositive(p, p.neg(magnitude), bound=site.bound(0))
    rest = yield from log(p, p.add_public(small, 1.0), bound=2.0 + math.ldexp(1.0, -8), floor=0.5)
    return p.add(positive, rest)
