"""The piecewise linear functions: exact up to one rounding, one comparison and one select a break point."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hush.mpc.functions.declare import declare
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together

_ROUNDING = 2.0**-16
_SCALE = 24  # fraction bits of a slope


@declare("relu", domain=(-64.0, 64.0), error=0.0, outside="max(x, 0) for every |x| <= bound", reference=torch.relu)
def relu(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """max(x, 0), exact: one full-precision comparison, one select."""
    negative = yield from p.negative(x, bound=bound)
    return (yield from p.select(p.invert(negative), x))


@declare("abs", domain=(-64.0, 64.0), error=0.0, outside="|x| for every |x| <= bound", reference=torch.abs)
def absolute(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """|x|, exact: one comparison, one select."""
    positive = yield from relu(p, x, bound=bound)
    return p.sub(p.scale(positive, 2), x)


@declare("sign", domain=(-64.0, 64.0), error=0.0, outside="sign(x) for every |x| <= bound", reference=torch.sign)
def sign(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """-1, 0 or 1, exact: two comparisons, two bits as numbers."""
    less, more = yield from together(p.negative(x, bound=bound), p.negative(p.neg(x), bound=bound))
    low, high = yield from together(p.from_bits(less, ring=x.ring), p.from_bits(more, ring=x.ring))
    return p.rescale(p.sub(high, low).reshape(*x.shape), x.frac)


@declare(
    "leaky_relu",
    domain=(-64.0, 64.0),
    error=_ROUNDING,
    outside="as inside for every |x| <= bound",
    reference=F.leaky_relu,
)
def leaky_relu(p: Protocol, x: Shared, *, bound: float, slope: float = 0.01) -> Step[Shared]:
    """x where x >= 0, else slope x: relu and one public product of the rest."""
    positive, scaled = yield from together(relu(p, x, bound=bound), p.mul_public(x, slope, frac=x.frac, scale=_SCALE))
    rest = yield from p.mul_public(positive, 1.0 - slope, frac=x.frac, scale=_SCALE)
    return p.add(scaled, rest)
