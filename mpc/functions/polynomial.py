"""Polynomials of a secret: powers in logarithmic depth, one truncation at the end."""

from __future__ import annotations

from collections.abc import Sequence

from hush.mpc.protocol import Protocol
from hush.mpc.ring import RING32, Ring
from hush.mpc.secret import Shared, stack
from hush.mpc.step import Step, together

Octic = tuple[int, float, float, float, float, float, float]
"""(lead, c, b, d, a, g, e) of `octic`."""
_NARROW = 15  # fraction bits of numbers below 1 in 2^32
_FINE = 22  # fraction bits of the coefficients of local multiples
RING40 = Ring(40)
"""For numbers at 18 fraction bits whose products stay below 4: a product costs 177 bits, against 249 in 2^64."""


def powers(p: Protocol, x: Shared, degree: int, *, frac: int) -> Step[list[Shared]]:
    """[x, x^2, ..., x^degree] at `frac` fraction bits; x has `frac` too. degree - 1 products in log2(degree) levels."""
    known = [x]
    while len(known) < degree:
        count = min(len(known), degree - len(known))
        top = known[-1]
        known.extend((yield from together(*(p.mul(top, known[i], frac=frac) for i in range(count)))))
    return known


def blend(p: Protocol, xs: Sequence[Shared], factors: Sequence[float], bias: float, *, scale: int) -> Shared:
    """bias + sum_i factors[i] xs[i] for reals rounded to `scale` fraction bits, local and not truncated: `scale` more
    fraction bits. For an operand of a product, whose truncation takes them off again."""
    terms = [p.scale(x, round(c * 2.0**scale)) for x, c in zip(xs, factors, strict=True)]
    total = terms[0]
    for term in terms[1:]:
        total = p.add(total, term)
    return p.add_public(total.with_frac(xs[0].frac + scale), bias)


def octic(
    p: Protocol, x: Shared, parameters: Octic, *, frac: int, more: Sequence[tuple[Shared, int]] = ()
) -> Step[Shared]:
    """An even polynomial of degree 16 in x in four products without coefficients, at `frac` >= 18 bits in 2^32.

    w = lead x^2 / 2^11 - c, z = w^2, u = (z - 2w + b)(z + d), e - (u + w/2 + a)(u + z - w + g).
    x in 2^64; up to 18 fraction bits the first product takes one round and 96 bits. The others, in 2^32 at 15 fraction
    bits, take two rounds each and 144 bits, the last 96 + 3 (32 - frac). Truncations are off by up to 1.5 2^-15 in w
    and 2^-15 in z and u, which reach the result about sixfold. Where |w| >= 1 everything wraps. The scheme is Knuth's
    (TAOCP 2, 4.6.4) with one product more; the parameters are fitted, since not every polynomial has this form.

    `more`: secrets in 2^32 whose multiples, as ring elements at `frac`, are added on the way.
    """
    lead, c, b, d, a, g, e = parameters
    square = yield from p.mul(x, p.scale(x, lead).with_frac(x.frac + 11), frac=_NARROW, ring=RING32)
    w = p.add_public(square, -c)
    z = yield from p.mul(w, w, frac=_NARROW)
    u = yield from p.mul(p.affine([z, w], [1, -2], [b]), p.add_public(z, d), frac=_NARROW)
    # the last product's first factor is kept near 0 by its centre, in eighths, so that 31 fraction bits fit
    eighths = round(8 * a)
    first = p.affine([u, w], [2, 1], [a - eighths / 8], frac=_NARROW + 1)
    second = p.affine([u, z, w], [1, 1, -1], [g / 2, g / 2])  # constants of 1 or more saturate here
    product = yield from p.mul(first, second, frac=frac)
    centre = eighths << (frac - _NARROW - 3)
    rest, factors = zip(*more, strict=True) if more else ((), ())
    return p.affine([product, second, *rest], [-1, -centre, *factors], [e], frac=frac)


def odd(p: Protocol, x: Shared, coefficients: Sequence[float], *, factor: int) -> Step[Shared]:
    """sum_i (coefficients[i] x) w^i with w = 2 (factor x / 16)^2 - 1, below 1: at 28 fraction bits in 2^32; x in 2^64.

    Real multiples of x are local, so the coefficients cost nothing. w in one product of 120 bits; w^2, w^3 and w^4 in
    2^40 at 18 fraction bits, 177 each; the terms above w^4 are one sum of products, and so is the whole: 177 and 96
    bits, 8 rounds (two more for x of more than 18 fraction bits). At most 9 coefficients.
    """
    fine, coarse = yield from arguments(p, x)
    scaled = p.scale(coarse, factor * factor).with_frac(coarse.frac + 7)
    w = p.add_public((yield from p.mul(coarse, scaled, frac=18, ring=RING40)), -1.0)
    terms = yield from together(*(line(p, fine, c) for c in coefficients))
    w2 = yield from p.mul(w, w, frac=18)
    w3, w4 = yield from together(p.mul(w2, w, frac=18), p.mul(w2, w2, frac=18))
    upper = yield from dot(p, terms[5:], [w, w2, w3, w4][: len(terms) - 5], frac=18)
    one = p.constant(1.0, frac=18, ring=RING40).expand(*x.shape)
    return (yield from dot(p, [*terms[:4], p.add(upper, terms[4])], [one, w, w2, w3, w4], frac=28, ring=RING32))


def arguments(p: Protocol, x: Shared) -> Step[tuple[Shared, Shared]]:
    """x in 2^64 with at most 18 fraction bits, for `line`, and with 17 in 2^63: so its square fits 2^40 at 18."""
    if x.ring.bits != 64:
        raise ValueError(f"a secret in 2^{x.ring.bits}: widen it to 2^64 first (truncate with ring=)")
    fine = x if x.frac <= 18 else (yield from p.truncate(x, 18))
    return fine, p.rescale(fine, 17) if fine.frac <= 17 else (yield from p.truncate(fine, 17, ring=Ring(63)))


def line(p: Protocol, x: Shared, factor: float, constant: float = 0.0) -> Step[Shared]:
    """factor * x + constant for reals, at 18 fraction bits in 2^40, from 2^64: local."""
    exact = p.scale(x, round(factor * 2.0**_FINE)).with_frac(x.frac + _FINE)
    return p.truncate(p.add_public(exact, constant), 18, ring=RING40)


def dot(
    p: Protocol, xs: Sequence[Shared], ys: Sequence[Shared], *, frac: int, ring: Ring | None = None
) -> Step[Shared]:
    """sum_i xs[i] * ys[i] elementwise with one truncation: a batch of 1 x k by k x 1 matrix products."""
    left, right = stack(list(xs), -1), stack(list(ys), -1)
    shape = tuple(xs[0].shape)
    product = yield from p.matmul(
        left.reshape(*shape, 1, len(xs)), right.reshape(*shape, len(ys), 1), frac=frac, ring=ring
    )
    return product.reshape(*shape)
