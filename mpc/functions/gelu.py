"""GELU on shares: x/2 plus an even polynomial in the middle, 0 and x outside; PUMA's pieces beside it."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from hush.mpc.functions.declare import declare
from hush.mpc.functions.piecewise import beyond, rectified
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together


def _quick(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


@declare("gelu", domain=(-64.0, 64.0), error=8e-4, outside="as inside for every |x| <= bound", reference=F.gelu)
def gelu(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """x Phi(x): 0 below -3.85, x above 3.85, between them x/2 and an even polynomial of degree 16.

    Error: the fit and the worst rounding of `polynomial.octic`. Rounds and bytes: `piecewise.rectified`.
    """
    return (yield from rectified(p, x, "gelu", bound=bound))


@declare(
    "gelu_tanh",
    domain=(-64.0, 64.0),
    error=8e-4,
    outside="as inside for every |x| <= bound",
    reference=partial(F.gelu, approximate="tanh"),
)
def gelu_tanh(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2, as `gelu`."""
    return (yield from rectified(p, x, "gelu_tanh", bound=bound))


@declare(
    "quick_gelu",
    domain=(-64.0, 64.0),
    error=3.5e-3,
    outside="as inside for every |x| <= bound",
    reference=_quick,
)
def quick_gelu(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """x sigmoid(1.702 x), CLIP's: as `gelu`, cut at 4.4."""
    return (yield from rectified(p, x, "quick_gelu", bound=bound))


_DETAIL = 28  # fraction bits of the published coefficients
_F0 = (-0.5054031199708174, -0.42226581151983866, -0.11807612951181953, -0.011034134030615728)
_F1 = (0.008526321541038084, 0.5, 0.3603292692789629, -0.037688200365904236, 0.0018067462606141187)


@declare(
    "gelu (PUMA)",
    domain=(-64.0, 64.0),
    error=0.0201,
    outside="as inside for every |x| <= bound",
    reference=F.gelu,
    paper="PUMA, arXiv 2307.12533",
)
def gelu_puma(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """0 (x < -4), F0 (x < -1.95), F1 (x <= 3), x: three comparisons, four products, two truncations, three selects."""
    bits, (f0, f1) = yield from together(
        p.below(x, (-4.0, -1.95, 3.0), bound=beyond(bound, 4.0)), _pieces(p.unchecked(), x)
    )
    a, b, c = bits
    return (yield from p.select_sum([p.xor(a, b), p.xor(b, c), p.invert(c)], [f0, f1, x]))


def _pieces(p: Protocol, x: Shared) -> Step[tuple[Shared, Shared]]:
    x2 = yield from p.mul(x, x, frac=x.frac)
    x3, x4 = yield from together(p.mul(x2, x, frac=x.frac), p.mul(x2, x2, frac=x.frac))
    x6 = yield from p.mul(x2, x4, frac=x.frac)
    return (
        yield from together(
            p.combine([x, x2, x3], _F0[1:], _F0[0], frac=x.frac, scale=_DETAIL),
            p.combine([x, x2, x4, x6], _F1[1:], _F1[0], frac=x.frac, scale=_DETAIL),
        )
    )
