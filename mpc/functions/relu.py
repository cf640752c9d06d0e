"""ReLU and its family: exact comparisons, one select a break point."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hush.mpc.functions.declare import declare
from hush.mpc.functions.exp import exp_nonpositive
from hush.mpc.functions.piecewise import clamp, window
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together

_OUTSIDE = "as inside for every |x| <= bound"
_ROUNDING = 2.0**-16
_SCALE = 24  # fraction bits of a slope


@declare("relu", domain=(-64.0, 64.0), error=0.0, outside=_OUTSIDE, reference=torch.relu)
def relu(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """max(x, 0), exact: one full-precision comparison, one select."""
    negative = yield from p.negative(x, bound=bound)
    return (yield from p.select(p.invert(negative), x))


@declare("abs", domain=(-64.0, 64.0), error=0.0, outside=_OUTSIDE, reference=torch.abs)
def absolute(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """|x|, exact: one comparison, one select."""
    positive = yield from relu(p, x, bound=bound)
    return p.sub(p.scale(positive, 2), x)


@declare("sign", domain=(-64.0, 64.0), error=0.0, outside=_OUTSIDE, reference=torch.sign)
def sign(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """-1, 0 or 1, exact: two comparisons, two bits as numbers."""
    less, more = yield from together(p.negative(x, bound=bound), p.negative(p.neg(x), bound=bound))
    low, high = yield from together(p.from_bits(less, ring=x.ring), p.from_bits(more, ring=x.ring))
    return p.rescale(p.sub(high, low).reshape(*x.shape), x.frac)


@declare(
    "leaky_relu",
    domain=(-64.0, 64.0),
    error=_ROUNDING,
    outside=_OUTSIDE,
    reference=F.leaky_relu,
)
def leaky_relu(p: Protocol, x: Shared, *, bound: float, slope: float = 0.01) -> Step[Shared]:
    """x where x >= 0, else slope x: relu and one public product of the rest."""
    positive, scaled = yield from together(relu(p, x, bound=bound), p.mul_public(x, slope, frac=x.frac, scale=_SCALE))
    rest = yield from p.mul_public(positive, 1.0 - slope, frac=x.frac, scale=_SCALE)
    return p.add(scaled, rest)


@declare("elu", domain=(-64.0, 64.0), error=3e-4, outside=_OUTSIDE, reference=F.elu)
def elu(p: Protocol, x: Shared, *, bound: float, alpha: float = 1.0) -> Step[Shared]:
    """x where x >= 0, else alpha (exp(x) - 1): `exp_nonpositive`, a comparison, a select."""
    negative, power = yield from together(p.negative(x, bound=bound), exp_nonpositive(p.unchecked(), x, bound=bound))
    curve = p.add_public(power, -1.0)
    if alpha != 1.0:
        curve = yield from p.mul_public(curve, alpha, frac=x.frac, scale=_SCALE)
    return p.add(x, (yield from p.select(negative, p.sub(curve, x))))


@declare("relu6", domain=(-64.0, 64.0), error=0.0, outside=_OUTSIDE, reference=F.relu6)
def relu6(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """min(max(x, 0), 6), exact."""
    return (yield from clamp(p, x, 0.0, 6.0, bound=bound))


@declare("hardtanh", domain=(-64.0, 64.0), error=_ROUNDING, outside=_OUTSIDE, reference=F.hardtanh)
def hardtanh(p: Protocol, x: Shared, *, bound: float, low: float = -1.0, high: float = 1.0) -> Step[Shared]:
    """min(max(x, low), high), exact up to the rounding of low and high."""
    return (yield from clamp(p, x, low, high, bound=bound))


@declare("hardsigmoid", domain=(-64.0, 64.0), error=_ROUNDING, outside=_OUTSIDE, reference=F.hardsigmoid)
def hardsigmoid(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """min(max(x + 3, 0), 6) / 6: a clamp and a public factor."""
    clamped = yield from clamp(p, x, -3.0, 3.0, bound=bound)
    return p.add_public((yield from p.mul_public(clamped, 1 / 6, frac=x.frac, scale=_SCALE)), 0.5)


@declare("hardswish", domain=(-64.0, 64.0), error=_ROUNDING, outside=_OUTSIDE, reference=F.hardswish)
def hardswish(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """x min(max(x + 3, 0), 6) / 6: 0 below -3, x above 3, x^2/6 + x/2 between; one product, two selects."""
    (inside, above), middle = yield from together(
        window(p, x, -3.0, 3.0, bound=bound, exact=True), _parabola(p.unchecked(), x)
    )
    return (yield from p.select_sum([inside, above], [middle, x]))


def _parabola(p: Protocol, x: Shared) -> Step[Shared]:
    square = yield from p.mul(x, x, frac=x.frac)
    return (yield from p.combine([square, x], [1 / 6, 0.5], frac=x.frac, scale=_SCALE))


def maximum(p: Protocol, x: Shared, y: Shared, *, bound: float) -> Step[Shared]:
    """max(x, y) for |x|, |y| <= bound, exact: one comparison, one select."""
    return p.add(y, (yield from relu(p, p.sub(x, y), bound=2 * bound)))


def minimum(p: Protocol, x: Shared, y: Shared, *, bound: float) -> Step[Shared]:
    """min(x, y) for |x|, |y| <= bound, exact: one comparison, one select."""
    return p.sub(x, (yield from relu(p, p.sub(x, y), bound=2 * bound)))
