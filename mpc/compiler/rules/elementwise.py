"""Sums, products, quotients and powers of secrets, constants and weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hush.mpc.compiler.rules.bounds import multiplied, same, summed
from hush.mpc.compiler.rules.table import Site, Value, rule
from hush.mpc.functions import division, log, reciprocal, rsqrt, sqrt
from hush.mpc.secret import Shared
from hush.mpc.step import Step

Number = Tensor | float | int


def _integral(value: Number) -> bool:
    """Whether a public factor is made of small integers: then a product with it is exact and local."""
    tensor = torch.as_tensor(value)
    if not tensor.is_floating_point():
        return True
    return bool((tensor == tensor.round()).all()) and float(tensor.abs().max()) < 2**16 if tensor.numel() else True


def _lift(site: Site, x: Shared) -> Shared:
    return site.as_real(x) if site.real else x


def total(site: Site, a: Value, b: Value) -> Shared:
    """a + b for any mix of operands, in the kind of the result."""
    if not isinstance(a, Shared):
        a, b = b, a
    assert isinstance(a, Shared)
    a = _lift(site, a)
    return site.p.add(a, _lift(site, b)) if isinstance(b, Shared) else site.p.add_public(a, torch.as_tensor(b))


def minus(site: Site, value: Value) -> Value:
    """-value."""
    return site.p.neg(value) if isinstance(value, Shared) else -torch.as_tensor(value, dtype=torch.float64)


def times(site: Site, a: Value, b: Value) -> Step[Shared]:
    """a * b for any mix of operands: local where a factor is a public integer or the other one an integer."""
    if not isinstance(a, Shared):
        a, b = b, a
    assert isinstance(a, Shared)
    p = site.p
    if isinstance(b, Shared):
        exact = a.frac == 0 or b.frac == 0
        product = yield from p.mul(a, b, frac=a.frac + b.frac if exact else p.frac)
        return _lift(site, product)
    factor = torch.as_tensor(b)
    if not site.weighed and _integral(factor):
        return p.scale(_lift(site, a), factor.long())
    if a.frac == 0:
        return replace(p.scale(a, site.encode(factor, p.frac)), frac=p.frac)
    scale = p.frac if site.weighed else _precision(site, factor, _size(site))
    return (yield from p.mul_public(a, factor, frac=p.frac, scale=scale))


def _size(site: Site) -> float:
    return max((site.bound(i) for i, a in enumerate(site.node.args[:2]) if hasattr(a, "meta")), default=1.0)


def _precision(site: Site, factor: Number, bound: float) -> int:
    """Fraction bits for a constant factor: so many that its rounding makes one unit, and the product fits 2^60."""
    most = float(torch.as_tensor(factor, dtype=torch.float64).abs().max())
    room = 60 - site.p.frac - math.ceil(math.log2(max(bound * most, 1.0)))
    wanted = site.p.frac + math.ceil(math.log2(max(bound, 1.0)))
    return max(min(wanted, room), site.p.frac)


@rule("aten.add.Tensor", "aten.add.Scalar", exact=True, bound=summed)
def _add(site: Site, a: Value, b: Value, *, alpha: float = 1) -> Any:
    if alpha == 1:
        return total(site, a, b)
    return _weighted(site, a, b, alpha)


@rule("aten.sub.Tensor", "aten.sub.Scalar", exact=True, bound=summed)
def _sub(site: Site, a: Value, b: Value, *, alpha: float = 1) -> Any:
    return total(site, a, minus(site, b)) if alpha == 1 else _weighted(site, a, b, -alpha)


@rule("aten.rsub.Scalar", "aten.rsub.Tensor", exact=True, bound=summed)
def _rsub(site: Site, a: Value, b: Value, alpha: float = 1) -> Any:
    return total(site, minus(site, a), b) if alpha == 1 else _weighted(site, b, a, -alpha)


def _weighted(site: Site, a: Value, b: Value, factor: float) -> Step[Shared]:
    scaled = (yield from times(site, b, factor)) if isinstance(b, Shared) else torch.as_tensor(b) * factor
    return total(site, a, scaled)


@rule("aten.neg.default", exact=True, bound=same)
def _neg(site: Site, x: Shared) -> Shared:
    return site.p.neg(x)


@rule("aten.mul.Tensor", "aten.mul.Scalar", exact=True, bound=multiplied)
def _mul(site: Site, a: Value, b: Value) -> Step[Shared]:
    return times(site, a, b)


@rule("aten.div.Tensor", "aten.div.Scalar", exact=True)
def _div(site: Site, a: Value, b: Value) -> Step[Shared]:
    if not isinstance(b, Shared):
        assert b is not None
        inverse = 1 / torch.as_tensor(b, dtype=torch.float64)
        return times(site, a, inverse)
    return _quotient(site, a, b)


def _quotient(site: Site, a: Value, b: Shared) -> Step[Shared]:
    bound, floor = site.bound(1), _floor(site, 1)
    b = site.as_real(b)
    if not isinstance(a, Shared):
        inverse = yield from reciprocal.reciprocal(site.p, b, bound=bound, floor=floor, signed=True, approx=site.approx)
        return (yield from times(site, inverse, a))
    return (
        yield from division.divide(
            site.p,
            site.as_real(a),
            b,
            bound=bound,
            floor=floor,
            quotient=site.type.bound,
            signed=True,
            approx=site.approx,
        )
    )


def _floor(site: Site, index: int) -> float:
    operand: Any = site.node.args[index]
    floor: float = operand.meta["hush"].floor
    return max(floor, 2.0 ** (1 - site.p.frac))


@rule("aten.reciprocal.default")
def _reciprocal(site: Site, x: Shared) -> Step[Shared]:
    return reciprocal.reciprocal(site.p, x, bound=site.bound(0), floor=_floor(site, 0), signed=True, approx=site.approx)


@rule("aten.sqrt.default")
def _sqrt(site: Site, x: Shared) -> Step[Shared]:
    return sqrt.sqrt(site.p, x, bound=site.bound(0))


@rule("aten.rsqrt.default")
def _rsqrt(site: Site, x: Shared) -> Step[Shared]:
    return rsqrt.rsqrt(site.p, x, bound=site.bound(0), floor=_floor(site, 0), approx=site.approx)


@rule("aten.log.default")
def _log(site: Site, x: Shared) -> Step[Shared]:
    return log.log(site.p, x, bound=site.bound(0), floor=_floor(site, 0))


@rule("aten.log2.default")
def _log2(site: Site, x: Shared) -> Step[Shared]:
    return log.log2(site.p, x, bound=site.bound(0), floor=_floor(site, 0))


@rule("aten.pow.Tensor_Scalar")
def _pow(site: Site, x: Shared, exponent: float) -> Step[Shared]:
    if float(exponent).is_integer() and 1 <= exponent <= 16:
        return _integer_power(site, x, int(exponent))
    if exponent == 0.5:
        return sqrt.sqrt(site.p, x, bound=site.bound(0))
    if exponent == -0.5:
        return _rsqrt(site, x)  # type: ignore[no-any-return]
    if exponent == -1:
        return _reciprocal(site, x)  # type: ignore[no-any-return]
    return log.power(site.p, x, float(exponent), bound=site.bound(0), floor=_floor(site, 0))


def _integer_power(site: Site, x: Shared, exponent: int) -> Step[Shared]:
    """Square and multiply."""
    result, square = None, x
    while exponent:
        if exponent & 1:
            result = square if result is None else (yield from site.p.mul(result, square, frac=x.frac))
        exponent >>= 1
        if exponent:
            square = yield from site.p.mul(square, square, frac=x.frac)
    assert result is not None
    return result


@rule("hush.combine")
def _combine(site: Site, xs: Sequence[Shared], factors: Sequence[Number]) -> Step[Shared]:
    xs = [site.as_real(x) for x in xs]
    scale = min(_precision(site, f, site.bound(0, i)) for i, f in enumerate(factors))
    return site.p.combine(xs, list(factors), frac=site.p.frac, scale=scale)


@rule("aten.square.default")
def _square(site: Site, x: Shared) -> Step[Shared]:
    return site.p.mul(x, x, frac=2 * x.frac if x.frac == 0 else x.frac)


@rule("aten.full_like.default", "aten.zeros_like.default", "aten.ones_like.default")
def _like(site: Site, x: Shared, fill: float | None = None, **_: Any) -> Shared:
    """Only the shape of x is used."""
    value = fill if fill is not None else float("ones" in str(site.node.target))
    return site.p.constant(torch.full(tuple(x.shape), float(value), device=x.device), frac=x.frac)
