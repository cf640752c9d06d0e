"""sigmoid, tanh and erf on shares: an odd polynomial in the middle, constants outside."""

from __future__ import annotations

import torch

from hush.mpc.functions.declare import declare
from hush.mpc.functions.piecewise import saturated
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step

_OUTSIDE = "as inside for every |x| <= bound"


@declare("sigmoid", domain=(-64.0, 64.0), error=5e-4, outside=_OUTSIDE, reference=torch.sigmoid)
def sigmoid(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """1/(1 + exp(-x)): 0 below -7.75, 1 above 7.75, between them 1/2 and an odd polynomial of degree 17."""
    return p.add_public((yield from saturated(p, x, "sigmoid", top=0.5, bound=bound)), 0.5)


@declare("tanh", domain=(-64.0, 64.0), error=1e-3, outside=_OUTSIDE, reference=torch.tanh)
def tanh(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """2 sigmoid(2x) - 1."""
    half = yield from saturated(p, p.scale(x, 2), "sigmoid", top=0.5, bound=2 * bound)
    return p.scale(half, 2)


@declare("erf", domain=(-64.0, 64.0), error=1.2e-4, outside=_OUTSIDE, reference=torch.erf)
def erf(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """The error function: -1 below -3, 1 above 3, between them an odd polynomial of degree 15."""
    return (yield from saturated(p, x, "erf", top=1.0, bound=bound))
