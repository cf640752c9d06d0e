"""SiLU and softplus on shares: x/2 plus an even polynomial in the middle, 0 and x outside; PUMA's pieces beside it."""

from __future__ import annotations

import torch.nn.functional as F

from hush.mpc.functions.declare import declare
from hush.mpc.functions.piecewise import beyond, rectified
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together

_OUTSIDE = "as inside for every |x| <= bound"


@declare("silu", domain=(-64.0, 64.0), error=6e-3, outside=_OUTSIDE, reference=F.silu)
def silu(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """x sigmoid(x): 0 below -7.6, x above 7.6, between them x/2 and an even polynomial of degree 16.

    Error: the fit and the worst rounding of `polynomial.octic`. Rounds and bytes: `piecewise.rectified`.
    """
    return (yield from rectified(p, x, "silu", bound=bound))


@declare("softplus", domain=(-64.0, 64.0), error=1.5e-3, outside=_OUTSIDE, reference=F.softplus)
def softplus(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """log(1 + exp(x)): 0 below -7.3, x above 7.3, between as `silu`."""
    return (yield from rectified(p, x, "softplus", bound=bound))


_DETAIL = 28  # fraction bits of the published coefficients
_LOW = (-0.3067541139982155, -0.0819767021525476, -0.0055465625580307)
_MIDDLE = (0.0085064025895951, 0.5, 0.2281430841728270, -0.011113046708173, 0.0002743776353465)


@declare(
    "silu (PUMA)",
    domain=(-64.0, 64.0),
    error=0.0722,
    outside=_OUTSIDE,
    reference=F.silu,
    paper="PUMA, arXiv 2307.12533, appendix",
)
def silu_puma(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """0 (x < -8), a quadratic (x < -4), an even sextic (x <= 4), x: three comparisons, products and selects."""
    bits, (low, middle) = yield from together(
        p.below(x, (-8.0, -4.0, 4.0), bound=beyond(bound, 8.0)), _pieces(p.unchecked(), x)
    )
    a, b, c = bits
    return (yield from p.select_sum([p.xor(a, b), p.xor(b, c), p.invert(c)], [low, middle, x]))


def _pieces(p: Protocol, x: Shared) -> Step[tuple[Shared, Shared]]:
    x2 = yield from p.mul(x, x, frac=x.frac)
    x4 = yield from p.mul(x2, x2, frac=x.frac)
    x6 = yield from p.mul(x2, x4, frac=x.frac)
    return (
        yield from together(
            p.combine([x, x2], _LOW[1:], _LOW[0], frac=x.frac, scale=_DETAIL),
            p.combine([x, x2, x4, x6], _MIDDLE[1:], _MIDDLE[0], frac=x.frac, scale=_DETAIL),
        )
    )
