"""Normalisation: a secret x > 0 as mantissa times power of two, with the power as a secret one-hot vector.

Every function of one secret scale (1/x, 1/sqrt(x), sqrt, log, x^y) starts here: the mantissa lies in one octave,
where a short polynomial serves, and any function of the exponent is a public table times the one-hot vector: local.
Source: the leading-one extraction of [Catrina-Saxena, FC 2010], here on bit planes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared, SharedBits, concat, join_planes
from hush.mpc.step import Step

WORKING_FRAC = 26
"""Fraction bits of mantissas and polynomials: products of two values below 8 stay below 2^58 units."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Normalised:
    """x = sign * mantissa * 2^(top - e), mantissa in [1/2, 1], e in 0..depth.

    `leading[j]` (frac 0) is 1 where e = depth - j, so at most one entry of it is set; none where x lies below the
    floor, and then the mantissa is 0. `signed_mantissa` carries x's sign; `sign` is None for x known to be positive.
    """

    signed_mantissa: Shared
    leading: Shared
    sign: Shared | None
    top: int
    depth: int

    def table(self, p: Protocol, units: Sequence[int], *, frac: int = 0) -> Shared:
        """units[e] * 2^-frac for the secret exponent e; 0 below the floor. Local."""
        column = torch.tensor(list(units)[::-1], dtype=torch.int64).reshape(-1, *[1] * (self.leading.ndim - 1))
        return p.scale(self.leading, column).sum(0).with_frac(frac)

    def exponents(self) -> range:
        """The values that top - e takes, for e = 0, 1, ..., depth."""
        return range(self.top, self.top - self.depth - 1, -1)


def normalise(p: Protocol, x: Shared, *, bound: float, floor: float, signed: bool = False) -> Step[Normalised]:
    """Mantissa (WORKING_FRAC fraction bits, one unit of error) and exponent of x.

    Domain: floor <= x <= bound, or |x| if `signed` (then floor is at least 2 units of x), bound < 2^(62-x.frac).
    Below the floor mantissa and every table are 0, above the bound the result is undefined.
    Per element, with N = log2(bound * 2^x.frac) planes and D = log2(bound/floor): one to_bits of N planes, log2(D)
    rounds of `both` on at most D planes, from_bits of D planes, one product with truncation. Few elements of a
    positive x (`Schedule.few`) are compared with all D powers of two instead: twice the bits, 8 rounds less.
    """
    if x.ring.bits < 64:
        raise ValueError(f"normalise works in Z_2^64, not in Z_2^{x.ring.bits}: widen x by truncate(..., ring=RING64)")
    planes, lowest = plane_range(x.frac, bound, floor, signed=signed)
    if not signed and x.numel <= p.schedule.few:
        leading = yield from leading_power(p, x, lowest, planes)
        return (yield from _scaled(p, x, Normalised(x, leading, None, planes - x.frac, planes - lowest - 1), planes))
    bits = yield from p.to_bits(x, planes=planes + signed)
    sign_bit = bits.plane(planes) if signed else None
    magnitude = bits[lowest:planes] if sign_bit is None else p.xor(bits[lowest:planes], sign_bit)
    first = yield from leading_one(p, magnitude)
    hot = yield from p.from_bits(first if sign_bit is None else join_planes([first, sign_bit]), ring=x.ring)
    depth = planes - lowest - 1
    sign = None if sign_bit is None else p.add_public(p.scale(hot[depth + 1], -2), 1)
    return (yield from _scaled(p, x, Normalised(x, hot[: depth + 1], sign, planes - x.frac, depth), planes))


def _scaled(p: Protocol, x: Shared, found: Normalised, planes: int) -> Step[Normalised]:
    """The same with its mantissa: x times the power of two that its leading one asks for."""
    factor = found.table(p, [1 << e for e in range(found.depth + 1)])
    frac = min(WORKING_FRAC, planes)
    mantissa = yield from p.mul(x.with_frac(planes), factor, frac=frac)
    return replace(found, signed_mantissa=p.rescale(mantissa, WORKING_FRAC))


def leading_power(p: Protocol, x: Shared, lowest: int, planes: int) -> Step[Shared]:
    """[planes - lowest, *x.shape] (frac 0): entry j is 1 where 2^(lowest+j) units is the highest power of two up to x,
    0 <= x < 2^planes units; none where x is below them all. Exact.

    One dealt code serves the comparisons with all powers; each bit as a number, less its neighbour.
    """
    powers = [2.0 ** (lowest + j) for j in range(planes - lowest)]
    under = yield from p.below(x.with_frac(0), powers, bound=2.0**planes - 1)
    reached = yield from p.from_bits(p.invert(join_planes(under)), ring=x.ring)
    beyond = concat([reached[1:], p.sub(reached[:1], reached[:1])], 0)
    return p.sub(reached, beyond)


def plane_range(frac: int, bound: float, floor: float, *, signed: bool = False) -> tuple[int, int]:
    """(planes that hold `bound` at `frac`, lowest plane that may lead): public, from the declared domain."""
    if not 0 < floor <= bound < math.inf:
        raise ValueError(f"a domain needs 0 < floor <= bound, not floor={floor}, bound={bound}")
    planes = int(bound * 2.0**frac).bit_length()
    if planes > 62:
        raise ValueError(f"bound {bound} at {frac} fraction bits takes {planes} bits, and 62 is the most: lower either")
    # a negative x shows as the planes of |x| - 1 unit, so its leading plane may be one below that of |x|
    least = math.ceil(floor * 2.0**frac) - 1 if signed else int(floor * 2.0**frac)
    return planes, min(max(least.bit_length() - 1, 0), planes - 1)


def leading_one(p: Protocol, bits: SharedBits) -> Step[SharedBits]:
    """Plane j of the result is 1 where plane j is the highest one set: ceil(log2 planes) rounds.

    A suffix AND of the inverted planes, each level doubling its reach; neighbours differ at the leading one.
    """
    clear, count, reach = p.invert(bits), bits.planes, 1
    while reach < count:
        merged = yield from p.both(clear[: count - reach], clear[reach:])
        clear = join_planes([merged, clear[count - reach :]])
        reach *= 2
    top = p.invert(clear.plane(count - 1))
    return top if count == 1 else join_planes([p.xor(clear[: count - 1], clear[1:]), top])


def mantissa_variable(p: Protocol, mantissa: Shared) -> Shared:
    """t = 4 m - 3: the octave [1/2, 1] as [-1, 1]. Local."""
    return p.add_public(p.scale(mantissa, 4), -3.0)
