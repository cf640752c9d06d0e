"""Logarithms and powers of a secret x > 0."""

from __future__ import annotations

from decimal import Decimal
from functools import cache

import torch

from hush.mpc.functions.chebyshev import evaluate, interpolate, value
from hush.mpc.functions.declare import declare
from hush.mpc.functions.normalise import WORKING_FRAC, mantissa_variable, normalise
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step

_LN2 = Decimal("0.693147180559945309417232121458176568")


@cache
def _log_coefficients(per_octave: Decimal) -> tuple[float, ...]:
    """log(m) in t = 4m - 3, in the base whose octave has this length: error 3e-7 for ln."""
    return interpolate(lambda t: ((t + 3) / 4).ln() / _LN2 * per_octave)


@declare(
    "log",
    domain=(2.0**-16, 2.0**14),
    error=5e-6,
    outside="log(floor) below half the floor, undefined above the bound",
    reference=torch.log,
)
def log(p: Protocol, x: Shared, *, bound: float, floor: float, frac: int | None = None) -> Step[Shared]:
    """ln(x) at `frac` fraction bits (default: x.frac); x = m 2^n, ln(m) by a polynomial, n ln(2) by a table.

    Domain: floor <= x <= bound.
    Error: absolute 3e-7 and one unit of the result, and what x's own unit makes (relative 2^-x.frac / x).
    Outside: ln(floor) within two units for x below half the floor, zero included (the polynomial is evaluated outside
    its octave there, where its rounding counts double); undefined above the bound.
    Rounds: normalise, 4 truncated products; the table is local.
    """
    return (yield from _logarithm(p, x, _LN2, bound, floor, frac))


@declare(
    "log2",
    domain=(2.0**-16, 2.0**14),
    error=5e-6,
    outside="log2(floor) below half the floor, undefined above the bound",
    reference=torch.log2,
)
def log2(p: Protocol, x: Shared, *, bound: float, floor: float, frac: int | None = None) -> Step[Shared]:
    """log2(x); as `log`, error 4e-7 and one unit."""
    return (yield from _logarithm(p, x, Decimal(1), bound, floor, frac))


def _logarithm(
    p: Protocol, x: Shared, per_octave: Decimal, bound: float, floor: float, frac: int | None
) -> Step[Shared]:
    parts = yield from normalise(p, x, bound=bound, floor=floor)
    g, unit = WORKING_FRAC, float(per_octave)
    coefficients = _log_coefficients(per_octave)
    # below the floor the mantissa is 0 (t = -3) and the table 0: an offset where any plane leads mends both
    below = (parts.top - parts.depth - 1) * unit - value(coefficients, -3.0)
    units = [round((n * unit - below) * 2.0**g) for n in parts.exponents()]
    offset = p.add_public(parts.table(p, units, frac=g), below)
    t = mantissa_variable(p, parts.signed_mantissa)
    fine = p.add((yield from evaluate(p, t, coefficients)), offset)
    return (yield from p.truncate(fine, x.frac if frac is None else frac))


def power(
    p: Protocol, x: Shared, exponent: float, *, bound: float, floor: float, frac: int | None = None
) -> Step[Shared]:
    """x^exponent for a public real exponent and x > 0, at `frac` fraction bits (default: x.frac).

    x = m 2^n: m^exponent by a polynomial of degree 7 in the octave, 2^(n exponent) by a table of n.
    Domain: floor <= x <= bound, |exponent| <= 4, and results below 2^12.
    Error: relative 2^-16 (2^-20 for |exponent| <= 2) plus one unit of the result.
    Outside: 0 below half the floor; undefined above the bound.
    Rounds: normalise and 5 truncated products.
    """
    if not abs(exponent) <= 4:
        raise ValueError(f"exponent {exponent} is beyond 4: write it as a product of smaller powers")
    parts = yield from normalise(p, x, bound=bound, floor=floor)
    coefficients = _power_coefficients(Decimal(exponent))
    largest = max(1.0, max(2.0 ** (n * exponent) for n in parts.exponents()))
    scale = min(WORKING_FRAC, 59 - WORKING_FRAC - int(largest).bit_length() - 4)
    factor = parts.table(p, [_power_units(exponent, n, scale) for n in parts.exponents()], frac=scale)
    t = mantissa_variable(p, parts.signed_mantissa)
    small = yield from evaluate(p, t, coefficients)
    return (yield from p.mul(small, factor, frac=x.frac if frac is None else frac))


def _power_units(exponent: float, octave: int, frac: int) -> int:
    """round(2^(exponent * octave) * 2^frac), by decimal arithmetic: the same at every party."""
    return int((Decimal(2) ** (Decimal(exponent) * octave) * 2**frac).to_integral_value())


@cache
def _power_coefficients(exponent: Decimal) -> tuple[float, ...]:
    return interpolate(lambda t: ((t + 3) / 4) ** exponent)
