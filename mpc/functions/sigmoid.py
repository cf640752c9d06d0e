"""sigmoid and tanh on shares: an odd polynomial in the middle, constants outside."""

from __future__ import annotations

import torch

from hush.mpc.functions.declare import declare
from hush.mpc.functions.piecewise import saturated
from hush.mpc.functions.polynomial import odd
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step

_CUT, _SPAN = 7.0, 8.0
_ODD = (0.08782954, -0.04174842, 0.025592, -0.02980163, 0.04753284, 0.0381269, -0.05550599, -0.11002413)


@declare(
    "sigmoid",
    domain=(-64.0, 64.0),
    error=1.1e-3,
    outside="as inside for every |x| <= bound",
    reference=torch.sigmoid,
)
def sigmoid(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """1/(1 + exp(-x)): 0 below -7, 1 above 7, between them 1/2 and an odd polynomial of degree 15."""
    middle = odd(p.unchecked(), x, _ODD, span=_SPAN)
    return p.add_public((yield from saturated(p, x, middle, cut=_CUT, top=0.5, bound=bound)), 0.5)


@declare("tanh", domain=(-64.0, 64.0), error=2.2e-3, outside="as inside for every |x| <= bound", reference=torch.tanh)
def tanh(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """2 sigmoid(2x) - 1."""
    half = yield from sigmoid(p, p.scale(x, 2), bound=2 * bound)
    return p.add_public(p.scale(half, 2), -1.0)
