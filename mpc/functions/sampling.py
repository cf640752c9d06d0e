"""The next token from shared logits: the largest, or one drawn by Gumbel noise that no party knows."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hush.mpc.errors import UserError
from hush.mpc.functions.order import argmax, larger
from hush.mpc.functions.topk import kth_largest
from hush.mpc.protocol import Protocol
from hush.mpc.ring import Ring
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together

NOISE = 40.0
"""A Gumbel draw of ours lies within it: -ln(-ln u) for u in [2^-54, 1 - 2^-54]."""
_COARSE = 32
_LEAST_FRAC = 10
_DEALERS = (0, 2)


@dataclass(frozen=True, slots=True)
class Choice:
    """How to choose. `temperature` 0: the largest logit, the first of equal ones; else a draw from
    softmax(logits / temperature), from the `top_k` largest logits alone if that is not None. Public."""

    temperature: float = 0.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        if not (self.temperature == 0 or 2.0**-6 <= self.temperature <= 2.0**6):
            raise UserError(f"temperature {self.temperature:g} is out of range: say 0 (greedy), or 0.0156 to 64")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k={self.top_k}: at least 1 token must be left to choose from")


GREEDY = Choice()


def choose(p: Protocol, logits: Shared, *, bound: float, choice: Choice = GREEDY) -> Step[tuple[Shared, Shared]]:
    """(token [B], one-hot row [B, V]), integers in the protocol's ring, from logits [B, V], |logits| <= bound.

    1. Logits are brought to a ring of 32 bits, which is local: selections there cost half.
    2. Greedy: `argmax`. Else `_drawn`, and `argmax` of what it gives.
    3. The one-hot row by equality of the place with every token; the token from the row, locally.

    Nothing is opened. Exactly one token is chosen, of equal ones the first. Error: where the coarse scale drops bits
    (|logits| > 2^10), logits within 3 of its units may be taken for one another; its unit is 2^-10 at most.
    Rounds: V = 50,257 takes 16 levels of comparisons. Gumbel trick: Maddison, Tarlow, Minka, "A* Sampling", NeurIPS
    2014.
    """
    classes = logits.shape[-1]
    drawn = choice.temperature > 0 and choice.top_k != 1
    if drawn:
        scores, reach = yield from _drawn(p, logits, bound, choice)
    else:
        reach = bound
        scores = yield from _coarse(p, logits, reach)
    place = yield from argmax(p, scores, bound=reach)
    equal = yield from _widened(p, place, classes)
    token = p.matmul_int(equal, torch.arange(classes, device=equal.device).reshape(-1, 1))[..., 0]
    return token, equal


def _widened(p: Protocol, place: Shared, classes: int) -> Step[Shared]:
    """One-hot rows in the protocol's ring of places in whatever ring."""
    gap = p.add_public(place.reshape(*place.shape, 1), -torch.arange(classes, device=place.device))
    found = yield from p.is_zero(gap, bound=float(classes))
    return (yield from p.from_bits(found, ring=p.ring))[0]


def _coarse(p: Protocol, x: Shared, reach: float) -> Step[Shared]:
    """x in a ring of 32 bits that holds differences of values up to `reach`, or as it is if they are too large."""
    frac = min(x.frac, _COARSE - 3 - math.ceil(math.log2(max(2 * reach, 1.0))))
    if frac < _LEAST_FRAC or x.ring.bits <= _COARSE:
        return x
    return (yield from p.truncate(x, frac, ring=Ring(_COARSE)))


def _drawn(p: Protocol, logits: Shared, bound: float, choice: Choice) -> Step[tuple[Shared, float]]:
    """(logits / temperature + noise, their bound): the place of the largest is a draw from the softmax.

    1. P0 deals Gumbel noise G', P2 deals G'', each from its own system's generator; the larger of the two is a Gumbel
       variable shifted by ln 2, which moves all tokens alike. Party 1 knows neither, P0 and P2 one of the two.
    2. With `top_k`, tokens whose logit is below the k-th largest are lowered out of reach. Equal logits at the k-th
       place all stay, as in transformers.
    """
    bound = bound / choice.temperature
    if choice.temperature != 1:
        room = 60 - 2 * logits.frac - math.ceil(math.log2(max(bound, 1.0)))
        scale = max(8, min(logits.frac + 8, room + logits.frac))
        logits = yield from p.mul_public(logits, 1 / choice.temperature, frac=logits.frac, scale=scale)
    limited = choice.top_k is not None and choice.top_k < logits.shape[-1]
    gap = 2 * bound + 2 * NOISE if limited else 0.0
    reach = bound + NOISE + gap + 1.0
    scores = yield from _coarse(p, logits, reach)
    noise = yield from _noise(p, scores)
    if limited:
        assert choice.top_k is not None
        least = yield from kth_largest(p, scores, choice.top_k, bound=bound + 1.0)
        below = yield from p.negative(p.sub(scores, least), bound=2 * bound + 2.0)
        fall = p.constant(torch.full((), gap), frac=scores.frac, ring=scores.ring).expand(*scores.shape)
        scores = p.sub(scores, (yield from p.select(below, fall)))
    return p.add(scores, noise), reach


def _noise(p: Protocol, like: Shared) -> Step[Shared]:
    """max(G', G'') of the shape, scale and ring of the scores."""
    shape = tuple(like.shape)
    first, second = yield from together(
        *(p.contribute(lambda: gumbel(shape), shape, dealer=d, frac=like.frac, ring=like.ring) for d in _DEALERS)
    )
    return (yield from larger(p, first, second, bound=NOISE))


def gumbel(shape: tuple[int, ...]) -> Tensor:
    """Standard Gumbel draws, float64, from 53 random bits each of the system's generator."""
    count = math.prod(shape)
    bits = np.frombuffer(os.urandom(8 * count), dtype=np.uint64) >> np.uint64(11)
    uniform = (bits.astype(np.float64) + 0.5) * 2.0**-53
    return torch.from_numpy(-np.log(-np.log(uniform))).reshape(shape)
