"""Polynomials of a secret: powers in logarithmic depth, one truncation at the end."""

from __future__ import annotations

from collections.abc import Sequence

from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together

_DETAIL = 16  # fraction bits of coefficients that a product carries


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


def blend(p: Protocol, xs: Sequence[Shared], factors: Sequence[float], bias: float, *, scale: int) -> Shared:
    """bias + sum_i factors[i] xs[i] for reals rounded to `scale` fraction bits, local and not truncated: `scale` more
    fraction bits. For an operand of a product, whose truncation takes them off again."""
    terms = [p.scale(x, round(c * 2.0**scale)) for x, c in zip(xs, factors, strict=True)]
    total = terms[0]
    for term in terms[1:]:
        total = p.add(total, term)
    return p.add_public(total.with_frac(xs[0].frac + scale), bias)


def even(p: Protocol, x: Shared, coefficients: Sequence[float], *, factor: int) -> Step[Shared]:
    """x/2 + sum_i coefficients[i] w^i with w = 2 v^2 - 1, v = factor x / 16; |v| <= 1.

    One product for v^2, len - 2 for the powers, one truncation.
    """
    w = yield from _argument(p, x, factor)
    xs = yield from powers(p, w, len(coefficients) - 1, frac=w.frac)
    return (yield from p.combine([x, *xs], [0.5, *coefficients[1:]], coefficients[0], frac=x.frac))


def odd(p: Protocol, x: Shared, coefficients: Sequence[float], *, factor: int) -> Step[Shared]:
    """x sum_i coefficients[i] w^i with w as in `even`: one product for v^2, len - 2 for the powers, one with x."""
    w = yield from _argument(p, x, factor)
    xs = yield from powers(p, w, len(coefficients) - 1, frac=w.frac)
    return (yield from p.mul(x, blend(p, xs, coefficients[1:], coefficients[0], scale=_DETAIL), frac=x.frac))


def _argument(p: Protocol, x: Shared, factor: int) -> Step[Shared]:
    v = p.scale(x, factor).with_frac(x.frac + 4)
    square = yield from p.mul(v, v, frac=x.frac)
    return p.add_public(p.scale(square, 2), -1.0)
