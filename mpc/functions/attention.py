"""Attention's second half with late normalisation: softmax(scores + mask) @ values, divided after the product."""

from __future__ import annotations

import math

from torch import Tensor

from hush.mpc.functions.softmax import MOST, Masked, exponentials, invert_sums, softmax
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together

_INVERSE_BITS = 10
"""Fraction bits of 1/sum beyond the result's: flat rows of 2048 entries keep 2^-17 of a value."""


def attend(
    p: Protocol,
    scores: Shared,
    values: Shared,
    *,
    bound: float,
    value_bound: float,
    approx: str = "default",
    mask: Tensor | None = None,
) -> Step[Shared]:
    """softmax(scores + mask) @ values at scores.frac: scores [..., T, S], |scores| <= bound; values [..., S, D].

    exp(scores - m) @ values, and only its T x D outputs are multiplied by 1/sum: T x S products fewer than softmax with
    a matrix product after it, and the reciprocal runs beside the product. |values| <= value_bound, with
    1.22 * S * value_bound below 2^(61 - 2 frac) (2^25 at f=18), else softmax comes first.
    Masks and outside as `softmax`; error: that of `softmax` times the |values| it falls on, and 2 units.
    """
    f, entries = scores.frac, scores.shape[-1]
    if math.log2(MOST * entries * value_bound) + f + values.frac >= 61:
        weights = yield from softmax(p, scores, bound=bound, approx=approx, mask=mask)
        return (yield from p.matmul(weights, values, frac=f))
    masked = Masked.of(scores.shape, mask, bound)
    _, powers, total = yield from exponentials(p, masked.enter(p, scores), masked, approx)
    fine = min(f + _INVERSE_BITS, 60 - f - math.ceil(math.log2(value_bound)))
    mixed, inverse = yield from together(
        p.matmul(masked.rows.scatter(powers).reshape(*scores.shape), values, frac=f),
        invert_sums(p, total, masked.rows.longest, frac=fine, approx=approx),
    )
    return (yield from p.mul(mixed, masked.rows.per_row(inverse, scores.shape), frac=f))
