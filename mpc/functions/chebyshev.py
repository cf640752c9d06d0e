"""Polynomials on [-1, 1] that every party computes alike, and their evaluation in few rounds.

Coefficients become ring elements, so two parties that disagree in the last bit of one would compute garbage. They are
therefore interpolated in decimal arithmetic (exactly specified, the same on every machine) and never by a libm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext

from hush.mpc.functions.polynomial import dot
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together

DEGREE = 7


def interpolate(fn: Callable[[Decimal], Decimal], degree: int = DEGREE) -> tuple[float, ...]:
    """Power-basis coefficients of the polynomial through fn at the Chebyshev nodes of [-1, 1].

    Within a small factor of the minimax error. The nodes are rounded to 9 decimals: where exactly they lie is of no
    matter, that all parties take the same ones is.
    """
    with localcontext() as context:
        context.prec = 50
        nodes = [
            Decimal(round(math.cos(math.pi * (2 * k + 1) / (2 * degree + 2)) * 10**9)) / 10**9
            for k in range(degree + 1)
        ]
        differences = [fn(t) for t in nodes]
        for order in range(1, degree + 1):
            for k in range(degree, order - 1, -1):
                differences[k] = (differences[k] - differences[k - 1]) / (nodes[k] - nodes[k - order])
        powers = [Decimal(0)] * (degree + 1)
        for k in range(degree, -1, -1):  # Horner in the Newton basis: powers = powers * (t - node) + difference
            shifted = [Decimal(0), *powers[:-1]]
            powers = [s - nodes[k] * c for s, c in zip(shifted, powers, strict=True)]
            powers[0] += differences[k]
        return tuple(float(c) for c in powers)


def value(coefficients: Sequence[float], t: float) -> float:
    """The polynomial at a public point."""
    total = 0.0
    for c in reversed(coefficients):
        total = total * t + c
    return total


def evaluate(
    p: Protocol, t: Shared, coefficients: Sequence[float], *, factor: Shared | None = None, frac: int | None = None
) -> Step[Shared]:
    """factor * P(t) for |t| <= 1 and P of degree 7, at `frac` (default t.frac); factor at t's scale, default 1.

    Estrin's form A + t^4 B with cubic A and B: products t^2; t^3, t^4; A, B (and factor*t^4); one dot product. 4 levels
    of truncated products: 8 rounds where one takes 2.
    """
    if len(coefficients) != DEGREE + 1:
        raise ValueError(f"a polynomial of degree {DEGREE} is evaluated here, not of degree {len(coefficients) - 1}")
    g = t.frac
    t2 = yield from p.mul(t, t, frac=g)
    t3, t4 = yield from together(p.mul(t2, t, frac=g), p.mul(t2, t2, frac=g))
    low = p.combine([t, t2, t3], list(coefficients[1:4]), coefficients[0], frac=g, scale=g)
    high = p.combine([t, t2, t3], list(coefficients[5:]), coefficients[4], frac=g, scale=g)
    if factor is None:
        a, b = yield from together(low, high)
        product = yield from p.mul(t4, b, frac=2 * g)
        return (yield from p.truncate(p.add(product, p.rescale(a, 2 * g)), g if frac is None else frac))
    a, b, upper = yield from together(low, high, p.mul(t4, factor, frac=g))
    return (yield from dot(p, [factor, upper], [a, b], frac=g if frac is None else frac))
