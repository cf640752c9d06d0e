"""Attention: scores that are put off until they are weighed, a chunk at a time."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from hush.mpc.compiler.rules.bounds import largest
from hush.mpc.compiler.rules.contractions import product
from hush.mpc.compiler.rules.table import Site, Value, rule
from hush.mpc.functions import attention
from hush.mpc.functions.scores import Given, Products, Scores, Shifted
from hush.mpc.secret import Shared
from hush.mpc.step import Step

_LEAST = 2.0**-6  # a bound of values that are all 0


@rule("hush.scores")
def _scores(site: Site, q: Shared, k: Shared, halvings: int = 0) -> Products:
    """q @ k, not computed here. Both are real and secret (`passes.attention` sees to it)."""
    return Products(q, k, partial(product, site, halvings=halvings), site.p.frac)


@rule("hush.shifted")
def _shifted(site: Site, scores: Scores | Shared, addend: Value) -> Shifted:
    """scores + addend, not computed here either."""
    work = scores if isinstance(scores, Scores) else Given(scores)
    assert addend is not None
    return Shifted(work, site.as_real(addend) if isinstance(addend, Shared) else torch.as_tensor(addend))


@rule("hush.attend", bound=largest(1))
def _attend(site: Site, scores: Scores | Shared, values: Shared, keep: Tensor | None = None) -> Step[Shared]:
    """softmax(scores) @ values."""
    mask = None if keep is None else keep.reshape(keep.shape or (1,))
    bounds = {"bound": site.bound(0), "value_bound": max(site.bound(1), _LEAST)}
    return attention.attend(site.p, scores, values, **bounds, approx=site.approx, mask=mask)
