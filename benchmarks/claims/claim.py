"""A claim of a paper, at a size that trains in seconds: what is measured, beside what, and the same on shares.

A claim's file in this folder has `claim()`, which trains what the claim needs (fixed seeds, some seconds on two cores)
and returns it. `tests/collection/test_claims.py` asserts each, `benchmarks/collection.py` prints each.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import hush
from hush.parties.threads import ThreadTrio

Call = tuple[Tensor, ...]
Score = Callable[[Sequence[Any]], float]


@dataclass(frozen=True)
class Claim:
    """`score` of the module's answers to `calls`, in plain, against `rival`: a baseline's score on the same data.

    `lower`: the score is an error, and holds at `factor` times the rival's or below; else an accuracy, which holds at
    the rival's plus `margin` or above. `calls` are held out and alike in shape; `ranges` are training calls, which the
    program takes its ranges from. `classes(output)`: the class of each answer, of claims about accuracy.
    """

    network: str
    says: str
    module: nn.Module
    calls: Sequence[Call]
    score: Score
    rival: float
    ranges: Sequence[Call]
    lower: bool = True
    factor: float = 1.0
    margin: float = 0.0
    classes: Callable[[Any], Tensor] | None = None

    def holds(self, score: float) -> bool:
        """Whether a score is as much better than the rival's as is claimed."""
        return score <= self.factor * self.rival if self.lower else score >= self.rival + self.margin


@dataclass(frozen=True)
class Outcome:
    """A claim's score in plain and on shares; the accuracy lost as the issue of the collection counts it."""

    plain: float
    secure: float
    agreement: float | None  # share of equal classes, of claims about accuracy

    @property
    def kept(self) -> bool:
        """Top-1 agreement of at least 98%, or an error at most 1% larger."""
        return self.agreement >= 0.98 if self.agreement is not None else self.secure <= 1.01 * self.plain


def plain_outputs(claim: Claim) -> list[Any]:
    """The module's answers to all calls."""
    with torch.inference_mode():
        return [claim.module(*call) for call in claim.calls]


def secure_outputs(claim: Claim) -> list[Any]:
    """The same answers, computed by three parties on shares."""
    program = hush.compile(claim.module, claim.ranges[0], ranges=list(claim.ranges))
    with ThreadTrio(program) as trio:
        return [trio.infer(call).output for call in claim.calls]


def evaluate(claim: Claim) -> Outcome:
    """Both scores."""
    plain, secure = plain_outputs(claim), secure_outputs(claim)
    agreement = None
    if claim.classes is not None:
        pairs = zip(plain, secure, strict=True)
        same = torch.cat([(claim.classes(p) == claim.classes(s)).reshape(-1) for p, s in pairs])
        agreement = same.double().mean().item()
    return Outcome(claim.score(plain), claim.score(secure), agreement)


def names() -> list[str]:
    """The files of claims, by name."""
    here = Path(__file__).parent
    return sorted(f.stem for f in here.glob("*.py") if f.stem not in ("claim", "data", "training", "__init__"))


def load(name: str) -> Claim:
    """A claim, trained."""
    made: Claim = importlib.import_module(f"claims.{name}").claim()
    return made


def every() -> Iterator[Claim]:
    """All claims, each trained as it is asked for."""
    return map(load, names())
