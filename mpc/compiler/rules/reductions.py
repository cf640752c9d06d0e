"""Sums, means, extremes and their places along dimensions; pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hush.mpc.compiler.rules.bounds import along, one, place, same
from hush.mpc.compiler.rules.table import Site, rule
from hush.mpc.functions import order, sqrt
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together


def _dims(x: Shared, dim: int | Sequence[int] | None) -> tuple[int, ...]:
    if dim is None or (not isinstance(dim, int) and not list(dim)):
        return tuple(range(x.ndim))
    return tuple(d % x.ndim for d in ([dim] if isinstance(dim, int) else dim))


@rule("aten.sum.dim_IntList", "aten.sum.default", exact=True, bound=along)
def _sum(site: Site, x: Shared, dim: Any = None, keepdim: bool = False, **_: Any) -> Shared:
    return x.sum(_dims(x, dim), keepdim)


@rule("aten.cumsum.default", exact=True, bound=along)
def _cumsum(site: Site, x: Shared, dim: int, **_: Any) -> Shared:
    return x.local(lambda t: x.ring.reduce(t.cumsum(dim, dtype=t.dtype)))


@rule("aten.diff.default")
def _diff(site: Site, x: Shared, n: int = 1, dim: int = -1, *_: Any) -> Shared:
    for _step in range(n):
        length = x.shape[dim]
        x = site.p.sub(_span(x, dim, 1, length - 1), _span(x, dim, 0, length - 1))
    return x


def _span(x: Shared, dim: int, start: int, length: int) -> Shared:
    return x.local(lambda t: t.narrow(dim, start, length))


@rule("aten.mean.dim", "aten.mean.default", bound=same)
def _mean(site: Site, x: Shared, dim: Any = None, keepdim: bool = False, **_: Any) -> Step[Shared]:
    return average(site, site.as_real(x), _dims(x, dim), keepdim, site.bound(0))


def average(site: Site, x: Shared, dims: tuple[int, ...], keepdim: bool, bound: float) -> Step[Shared]:
    """Mean over dimensions: sums are exact, one truncation a result."""
    count = math.prod(x.shape[d] for d in dims)
    scale = mean_scale(x, bound)
    return site.p.mul_public(x.sum(dims, keepdim=keepdim), 1.0 / count, frac=x.frac, scale=scale)


def mean_scale(x: Shared, bound: float) -> int:
    """Fraction bits of 1/count: as many as leave room for the sum of entries within the bound."""
    return min(40, 60 - x.frac - max(0, math.ceil(math.log2(max(bound, 1.0)))))


@rule("aten.var.correction")
def _var(site: Site, x: Shared, dim: Any = None, *, correction: float = 1, keepdim: bool = False) -> Step[Shared]:
    return (yield from _variance(site, x, _dims(x, dim), correction, keepdim))


@rule("aten.var.dim", "aten.var.default")
def _var_dim(site: Site, x: Shared, dim: Any = None, unbiased: bool = True, keepdim: bool = False) -> Step[Shared]:
    return (yield from _variance(site, x, _dims(x, None if isinstance(dim, bool) else dim), int(unbiased), keepdim))


@rule("aten.std.correction")
def _std(site: Site, x: Shared, dim: Any = None, *, correction: float = 1, keepdim: bool = False) -> Step[Shared]:
    variance = yield from _variance(site, x, _dims(x, dim), correction, keepdim)
    return (yield from sqrt.sqrt(site.p, variance, bound=max(4 * site.bound(0) ** 2, 1.0)))


def _variance(site: Site, x: Shared, dims: tuple[int, ...], correction: float, keepdim: bool) -> Step[Shared]:
    bound = site.bound(0)
    centred = site.p.sub(x, (yield from average(site, x, dims, True, bound)))
    squares = yield from site.p.mul(centred, centred, frac=x.frac)
    count = math.prod(x.shape[d] for d in dims)
    ratio = count / (count - correction)
    mean = yield from average(site, squares, dims, keepdim, max(4 * bound**2, 1.0))
    return mean if correction == 0 else (yield from site.p.mul_public(mean, ratio, frac=x.frac))


@rule("aten.var_mean.correction")
def _var_mean(
    site: Site, x: Shared, dim: Any = None, *, correction: float = 1, keepdim: bool = False
) -> Step[list[Shared]]:
    dims = _dims(x, dim)
    variance, mean = yield from together(
        _variance(site, x, dims, correction, keepdim), average(site, x, dims, keepdim, site.bound(0))
    )
    return [variance, mean]


@rule("aten.linalg_vector_norm.default")
def _norm(site: Site, x: Shared, ord: float = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> Step[Shared]:
    if ord != 2:
        raise site.unsupported(f"vector norms of order {ord} have no rule; order 2 has")
    dims = _dims(x, dim)
    squares = (yield from site.p.mul(x, x, frac=x.frac)).sum(dims, keepdim=keepdim)
    count = math.prod(x.shape[d] for d in dims)
    return (yield from sqrt.sqrt(site.p, squares, bound=max(count * site.bound(0) ** 2, 1.0)))


@rule("aten.amax.default", bound=same)
def _amax(site: Site, x: Shared, dim: Any = (), keepdim: bool = False) -> Step[Shared]:
    return (yield from _extreme(site, x, _dims(x, dim), keepdim))


@rule("aten.amin.default", bound=same)
def _amin(site: Site, x: Shared, dim: Any = (), keepdim: bool = False) -> Step[Shared]:
    return site.p.neg((yield from _extreme(site, site.p.neg(x), _dims(x, dim), keepdim)))


@rule("aten.max.default", bound=same)
def _max(site: Site, x: Shared) -> Step[Shared]:
    return (yield from _extreme(site, x, _dims(x, None), False))


@rule("aten.min.default", bound=same)
def _min(site: Site, x: Shared) -> Step[Shared]:
    return site.p.neg((yield from _extreme(site, site.p.neg(x), _dims(x, None), False)))


def _extreme(site: Site, x: Shared, dims: tuple[int, ...], keepdim: bool) -> Step[Shared]:
    rest = [d for d in range(x.ndim) if d not in dims]
    flat = x.local(lambda t: t.permute([*rest, *dims]).reshape([t.shape[d] for d in rest] + [-1]))
    found = yield from order.maximum(site.p, flat, -1, bound=site.bound(0))
    return found.reshape(*(1 if d in dims else s for d, s in enumerate(x.shape))) if keepdim else found


@rule("aten.argmax.default", bound=place)
def _argmax(site: Site, x: Shared, dim: int | None = None, keepdim: bool = False) -> Step[Shared]:
    return (yield from _place(site, x, dim, keepdim))


@rule("aten.argmin.default", bound=place)
def _argmin(site: Site, x: Shared, dim: int | None = None, keepdim: bool = False) -> Step[Shared]:
    return (yield from _place(site, site.p.neg(x), dim, keepdim))


def _place(site: Site, x: Shared, dim: int | None, keepdim: bool) -> Step[Shared]:
    if dim is None:
        found = yield from order.argmax(site.p, x.reshape(-1), 0, bound=site.bound(0))
        return found.reshape(*[1] * x.ndim) if keepdim else found
    found = yield from order.argmax(site.p, x, dim, bound=site.bound(0))
    return found.local(lambda t: t.unsqueeze(dim)) if keepdim else found


@rule("aten.any.dim", "aten.any.default", bound=one)
def _any(site: Site, x: Shared, dim: int | None = None, keepdim: bool = False) -> Step[Shared]:
    """Whether any truth value is 1: the number of them is not 0."""
    count = x.sum(_dims(x, dim), keepdim)
    zero = yield from site.p.is_zero(count, bound=float(x.numel))
    return (yield from site.p.from_bits(site.p.invert(zero)))[0]
