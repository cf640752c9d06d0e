"""sin and cos of secret reals: the ring itself takes the argument modulo 2 pi."""

from __future__ import annotations

import math

import torch

from hush.mpc.functions.declare import declare
from hush.mpc.functions.polynomial import blend
from hush.mpc.protocol import Protocol
from hush.mpc.ring import RING32
from hush.mpc.secret import Shared
from hush.mpc.step import Step

_SINE = (1.5707910110754308, -0.6458928495432198, 0.0794343446045268, -0.004333095285083056)
_TURN = 32  # fraction bits of a turn
_FINE = 20  # fraction bits of the powers and of the coefficients


@declare("sin", domain=(-1e4, 1e4), error=4e-5, outside="as inside while x encodes", reference=torch.sin)
def sin(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """sin(x), for any x that encodes; x in 2^64. `bound` is not needed.

    t = x / (2 pi): x round(2^(64-f) / (2 pi)) mod 2^64 is the fraction of a turn at 64 fraction bits, locally.
    Its top 32 bits, locally; folded to [-1/4, 1/4] by one exact comparison and a 32-bit select; widened; an odd
    polynomial of degree 7 in four products. Argument error |x| 2^-45.
    """
    return (yield from _sine_of_turns(p, (yield from _turns(p, x)), x))


@declare("cos", domain=(-1e4, 1e4), error=4e-5, outside="as inside while x encodes", reference=torch.cos)
def cos(p: Protocol, x: Shared, *, bound: float) -> Step[Shared]:
    """sin(x + pi/2), as `sin`."""
    turns = yield from _turns(p, x)
    return (yield from _sine_of_turns(p, p.wrap(p.add(turns, _units(p, 1 << (_TURN - 2)))), x))


def _turns(p: Protocol, x: Shared) -> Step[Shared]:
    """The fraction of a turn in [-1/2, 1/2): 32 fraction bits in 2^32."""
    per_unit = round(2.0 ** (x.ring.bits - x.frac) / (2 * math.pi))
    turns = p.wrap(p.scale(x, per_unit).with_frac(x.ring.bits))  # wraps: any fraction of a turn is in range
    return p.wrap((yield from p.unchecked().truncate(turns, _TURN, ring=RING32)))


def _units(p: Protocol, count: int) -> Shared:
    """So many units of the last place of a turn; a real constant of this scale would saturate."""
    return p.scale(p.constant(1.0, frac=0, ring=RING32), count).with_frac(_TURN)


def _sine_of_turns(p: Protocol, t: Shared, like: Shared) -> Step[Shared]:
    quarter = _units(p, 1 << (_TURN - 2))
    outer = yield from p.negative(p.wrap(p.add(t, quarter)), bound=0.5)
    # 1/2 - t where |t| > 1/4, less one unit so that it stays below 1/4 and may be widened
    mirrored = p.sub(_units(p, (1 << (_TURN - 1)) - 1), p.scale(t, 2))
    folded = p.wrap(p.add(t, (yield from p.select(outer, p.wrap(mirrored)))))
    v = yield from p.unchecked().truncate(folded.with_frac(_TURN - 2), _FINE, ring=like.ring)
    y = yield from p.mul(v, v, frac=_FINE)
    y2 = yield from p.mul(y, y, frac=_FINE)
    y3 = yield from p.mul(y2, y, frac=_FINE)
    return (yield from p.mul(v, blend(p, [y, y2, y3], _SINE[1:], _SINE[0], scale=_FINE), frac=like.frac))
