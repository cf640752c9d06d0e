"""ReLU's family: exact pieces, their break points public."""

from __future__ import annotations

from torch import fx

from hush.mpc.compiler.ops import args_of
from hush.mpc.compiler.rules.bounds import clamped, magnitude, options, same, scaled
from hush.mpc.compiler.rules.table import Site, rule
from hush.mpc.functions import piecewise
from hush.mpc.functions import relu as family
from hush.mpc.functions.sets import SETS
from hush.mpc.secret import Shared
from hush.mpc.step import Step

_SELU = (1.6732632423543772, 1.0507009873554805)  # alpha and scale, as published


def _steepest(node: fx.Node) -> float | None:
    bound = magnitude(args_of(node)[0])
    return None if bound is None else bound * max(1.0, abs(options(node, 0.01)[0]))


@rule("aten.leaky_relu.default", bound=_steepest)
def _leaky_relu(site: Site, x: Shared, slope: float = 0.01) -> Step[Shared]:
    """x where x >= 0, slope * x elsewhere."""
    return family.leaky_relu(site.p, site.as_real(x), bound=site.bound(0), slope=float(slope))


@rule("aten.clamp.default", bound=clamped)
def _clamp(site: Site, x: Shared, low: float | None = None, high: float | None = None) -> Step[Shared]:
    """min(max(x, low), high), exact. As torch has it, `high` where low > high."""
    if low is not None and high is not None:
        limits = float(min(low, high)), float(high)
        return (yield from piecewise.clamp(site.p, x, *limits, bound=site.bound(0)))
    if low is not None:
        return (yield from _at_least(site, x, float(low)))
    assert high is not None
    return site.p.neg((yield from _at_least(site, site.p.neg(x), -float(high))))


@rule("aten.clamp_min.default", bound=clamped)
def _clamp_min(site: Site, x: Shared, low: float) -> Step[Shared]:
    return _at_least(site, x, float(low))


@rule("aten.clamp_max.default", bound=clamped)
def _clamp_max(site: Site, x: Shared, high: float) -> Step[Shared]:
    return site.p.neg((yield from _at_least(site, site.p.neg(x), -float(high))))


def _at_least(site: Site, x: Shared, low: float) -> Step[Shared]:
    """low + relu(x - low)."""
    p, relu = site.p, SETS[site.approx].relu
    return p.add_public((yield from relu(p, p.add_public(x, -low), bound=site.bound(0) + abs(low))), low)


@rule("aten.hardtanh.default", bound=lambda node: max(map(abs, options(node, -1.0, 1.0))))
def _hardtanh(site: Site, x: Shared, low: float = -1.0, high: float = 1.0) -> Step[Shared]:
    return family.hardtanh(site.p, site.as_real(x), bound=site.bound(0), low=float(low), high=float(high))


def _elu_bound(node: fx.Node) -> float | None:
    """|e^x - 1| <= |x| below 0."""
    bound, (alpha, scale, _) = magnitude(args_of(node)[0]), options(node, 1.0, 1.0, 1.0)
    return None if bound is None else bound * abs(scale) * max(1.0, abs(alpha))


@rule("aten.elu.default", bound=_elu_bound)
def _elu(site: Site, x: Shared, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Step[Shared]:
    """scale * x where x >= 0, scale * alpha * (e^x - 1) elsewhere."""
    if input_scale != 1:
        raise site.unsupported("elu with an input_scale other than 1 has no rule")
    return _scaled_elu(site, site.as_real(x), float(alpha), float(scale), site.bound(0))


@rule("aten.selu.default", bound=scaled(_SELU[0] * _SELU[1]))
def _selu(site: Site, x: Shared) -> Step[Shared]:
    return _scaled_elu(site, site.as_real(x), *_SELU, site.bound(0))


@rule("aten.celu.default", bound=same)
def _celu(site: Site, x: Shared, alpha: float = 1.0) -> Step[Shared]:
    """x where x >= 0, alpha * (e^(x / alpha) - 1) elsewhere: alpha * elu(x / alpha)."""
    alpha, x = float(alpha), site.as_real(x)
    if alpha <= 0:
        raise site.unsupported("celu with an alpha that is not positive has no rule")
    inner = x if alpha == 1 else (yield from site.p.mul_public(x, 1 / alpha, frac=x.frac))
    return (yield from _scaled_elu(site, inner, 1.0, alpha, site.bound(0) / alpha))


def _scaled_elu(site: Site, x: Shared, alpha: float, scale: float, bound: float) -> Step[Shared]:
    y = yield from family.elu(site.p, x, bound=bound, alpha=alpha)
    return y if scale == 1 else (yield from site.p.mul_public(y, scale, frac=x.frac))
