"""Polynomials of a secret: powers in logarithmic depth, one truncation at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together


def powers(p: Protocol, x: Shared, degree: int, *, frac: int) -> Step[list[Shared]]:
    """[x, x^2, ..., x^degree] at `frac` fraction bits; x has `frac` too. degree - 1 products in log2(degree) levels."""
    known = [x]
    while len(known) < degree:
        count = min(len(known), degree - len(known))
        top = known[-1]
        known.extend((yield from together(*(p.mul(top, known[i], frac=frac) for i in range(count)))))
    return known


def evaluate(p: Protocol, x: Shared, coefficients: Sequence[float], *, frac: int) -> Step[Shared]:
    """sum_i coefficients[i] x^i at `frac`, from powers at x.frac: len - 2 products and one truncation."""
    xs = yield from powers(p, x, len(coefficients) - 1, frac=x.frac)
    return (yield from p.combine(xs, list(coefficients[1:]), coefficients[0], frac=frac))


def even(p: Protocol, x: Shared, coefficients: Sequence[float], *, span: float) -> Step[Shared]:
    """x/2 + sum_i coefficients[i] w^i with w = 2 (x/span)^2 - 1, for `span` a power of two; |x| <= span."""
    v = x.with_frac(x.frac + round(math.log2(span)))
    square = yield from p.mul(v, v, frac=x.frac)
    w = p.add_public(p.scale(square, 2), -1.0)
    xs = yield from powers(p, w, len(coefficients) - 1, frac=w.frac)
    return (yield from p.combine([x, *xs], [0.5, *coefficients[1:]], coefficients[0], frac=x.frac))


def odd(p: Protocol, x: Shared, coefficients: Sequence[float], *, span: float) -> Step[Shared]:
    """x sum_i coefficients[i] w^i with w as in `even`."""
    v = x.with_frac(x.frac + round(math.log2(span)))
    square = yield from p.mul(v, v, frac=x.frac)
    factor = yield from evaluate(p, p.add_public(p.scale(square, 2), -1.0), coefficients, frac=x.frac)
    return (yield from p.mul(x, factor, frac=x.frac))
