"""Activations, softmax and norms: the functions of `hush.mpc.functions` under their ATen names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, fx

from hush.mpc.compiler.ops import args_of
from hush.mpc.compiler.rules.bounds import magnitude, one, options, same
from hush.mpc.compiler.rules.elementwise import total
from hush.mpc.compiler.rules.table import Bound, Site, Value, rule
from hush.mpc.compiler.types import META
from hush.mpc.functions import norms, softmax
from hush.mpc.functions.chunks import in_pieces
from hush.mpc.functions.sets import SETS
from hush.mpc.secret import Shared
from hush.mpc.step import Step

_CLOSE = 8.0  # a softplus may be its argument from here on: it differs by e^-8


def _at_most_six(node: fx.Node) -> float | None:
    bound = magnitude(args_of(node)[0])
    return None if bound is None else min(bound, 6.0)


def _elementwise(op: str, function: str, bound: Bound | None) -> None:
    @rule(op, bound=bound)
    def apply(site: Site, x: Shared) -> Step[Shared]:
        return _each(site, getattr(SETS[site.approx], function), site.as_real(x))


def _each(site: Site, function: Callable[..., Step[Shared]], x: Shared) -> Step[Shared]:
    """An elementwise function within the bound of the first operand, in pieces if x is large."""
    return in_pieces(lambda piece: function(site.p, piece, bound=site.bound(0)), x)


for _op, _function, _bound in (
    ("aten.silu.default", "silu", same),
    ("aten.sigmoid.default", "sigmoid", one),
    ("aten.tanh.default", "tanh", one),
    ("aten.relu.default", "relu", same),
    ("aten.exp.default", "exp", None),
    ("aten.abs.default", "absolute", same),
    ("aten.sign.default", "sign", one),
    ("aten.sin.default", "sin", one),
    ("aten.cos.default", "cos", one),
    ("aten.erf.default", "erf", one),
    ("aten.relu6.default", "relu6", _at_most_six),
    ("aten.hardsigmoid.default", "hardsigmoid", one),
    ("aten.hardswish.default", "hardswish", same),
    ("hush.quick_gelu", "quick_gelu", same),
):
    _elementwise(_op, _function, _bound)


@rule("aten.gelu.default", bound=same)
def _gelu(site: Site, x: Shared, *, approximate: str = "none") -> Step[Shared]:
    functions = SETS[site.approx]
    return _each(site, functions.gelu_tanh if approximate == "tanh" else functions.gelu, x)


def _widest_sum(node: fx.Node) -> float | None:
    """The largest, and the logarithm of how many there are."""
    x = args_of(node)[0]
    bound, shape = magnitude(x), x.meta[META].shape
    return None if bound is None else bound + math.log(max(1, math.prod(shape)))


@rule("hush.softmax", bound=one)
def _softmax(site: Site, x: Shared, dim: int, keep: Tensor | None = None) -> Step[Shared]:
    return _over_last(site, softmax.softmax, x, dim, keep)


@rule("aten.log_softmax.int", "aten._log_softmax.default")
def _log_softmax(site: Site, x: Shared, dim: int, *_: Any) -> Step[Shared]:
    return _over_last(site, softmax.log_softmax, x, dim, None)


@rule("aten.logsumexp.default", bound=_widest_sum)
def _logsumexp(site: Site, x: Shared, dim: Sequence[int], keepdim: bool = False) -> Step[Shared]:
    """x - log_softmax(x), at any entry."""
    dims = [d % x.ndim for d in ([dim] if isinstance(dim, int) else dim)]
    rest = [d for d in range(x.ndim) if d not in dims]
    rows = site.as_real(x).local(lambda t: t.permute([*rest, *dims]).reshape([t.shape[d] for d in rest] + [-1]))
    logs = yield from softmax.log_softmax(site.p, rows, bound=site.bound(0), approx=site.approx)
    total = site.p.sub(rows[..., 0], logs[..., 0])
    return total.reshape(*(1 if d in dims else s for d, s in enumerate(x.shape))) if keepdim else total


def _over_last(site: Site, function: Any, x: Shared, dim: int, keep: Tensor | None) -> Step[Shared]:
    last = site.as_real(x).local(lambda t: t.movedim(dim, -1))
    mask = None if keep is None else keep.reshape(keep.shape or (1,))
    if mask is not None and mask.ndim > 1:
        mask = _align(mask, x.ndim).movedim(dim, -1)
    alike = mask is None or mask.numel() == mask.shape[-1]  # for all rows

    def over(rows: Shared) -> Step[Shared]:
        own = mask.reshape(-1) if mask is not None and alike else mask
        step: Step[Shared] = function(site.p, rows, bound=site.bound(0), approx=site.approx, mask=own)
        return step

    y = yield from (in_pieces(over, last, whole=1) if alike else over(last))
    return y.local(lambda t: t.movedim(-1, dim))


def _align(mask: Tensor, ndim: int) -> Tensor:
    return mask.reshape(*[1] * (ndim - mask.ndim), *mask.shape)


@rule("aten.layer_norm.default")
def _layer_norm(
    site: Site, x: Shared, shape: Sequence[int], weight: Value = None, bias: Value = None, eps: float = 1e-5, *_: Any
) -> Step[Shared]:
    bound, approx, dims = site.bound(0), site.approx, len(shape)
    y = yield from in_pieces(
        lambda rows: norms.layer_norm(site.p, rows, bound=bound, eps=eps, dims=dims, approx=approx), x, whole=dims
    )
    return (yield from _affine(site, y, weight, bias))


@rule("hush.rms_norm")
def _rms_norm(site: Site, x: Shared, weight: Value, eps: float) -> Step[Shared]:
    bound, approx = site.bound(0), site.approx
    y = yield from in_pieces(lambda rows: norms.rms_norm(site.p, rows, bound=bound, eps=eps, approx=approx), x, whole=1)
    return (yield from _affine(site, y, weight, None))


@rule("hush.unit", bound=one)
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


def _softened(node: fx.Node) -> float | None:
    """max(x, 0) + ln(1 + e^-|beta x|) / beta."""
    bound, beta = magnitude(args_of(node)[0]), options(node, 1.0)[0]
    return None if bound is None or beta <= 0 else bound + math.log(2) / beta


@rule("aten.softplus.default", bound=_softened)
def _softplus(site: Site, x: Shared, beta: float = 1.0, threshold: float = 20.0) -> Step[Shared]:
    """ln(1 + e^(beta x)) / beta. Where beta x passes the threshold torch gives x, which differs by e^-threshold."""
    if beta <= 0 or threshold < _CLOSE:
        raise site.unsupported(f"softplus with beta {beta:g} and threshold {threshold:g} has no rule")
    p, softplus, x = site.p, SETS[site.approx].softplus, site.as_real(x)
    if beta == 1:
        return (yield from softplus(p, x, bound=site.bound(0)))
    y = yield from softplus(p, (yield from p.mul_public(x, beta, frac=x.frac)), bound=site.bound(0) * beta)
    return (yield from p.mul_public(y, 1 / beta, frac=x.frac))


@rule("aten.log_sigmoid.default", bound=_softened)
def _log_sigmoid(site: Site, x: Shared) -> Step[Shared]:
    """-softplus(-x)."""
    p = site.p
    return p.neg((yield from SETS[site.approx].softplus(p, p.neg(site.as_real(x)), bound=site.bound(0))))


@rule("aten.glu.default", bound=same)
def _glu(site: Site, x: Shared, dim: int = -1) -> Step[Shared]:
    """a * sigmoid(b) for the halves a, b of x along `dim`."""
    p, half = site.p, x.shape[dim] // 2
    value, gate = x.local(lambda t: t.narrow(dim, 0, half)), x.local(lambda t: t.narrow(dim, half, half))
    opened = yield from SETS[site.approx].sigmoid(p, gate, bound=site.bound(0))
    return (yield from p.mul(value, opened, frac=x.frac))
