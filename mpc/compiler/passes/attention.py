"""Attention: a softmax that only weighs values is divided by its sums after the product with them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, fx

from hush.mpc.compiler.capture import Draft
from hush.mpc.compiler.ops import args_of, is_op
from hush.mpc.compiler.passes.rewrite import argument, call, constant_of, drop_dead, replace, visibilities
from hush.mpc.compiler.types import Visibility


def join_attention(draft: Draft) -> str:
    """softmax(scores) @ values, both secret, as one op where it has more scores that count than results.

    It multiplies results instead of scores by 1/sum, and finds 1/sum during the product. Where values are wider than
    rows are long, the rounds that this hides would be paid for in bytes.
    """
    seen, count = visibilities(draft), 0
    for node in list(draft.graph.nodes):
        if not is_op(node, "hush.matmul") or argument(node, 2, "halvings", 0):
            continue
        weights, values = args_of(node)[:2]
        secret = seen[weights] is Visibility.SECRET and seen[values] is Visibility.SECRET
        if secret and _weighs_only(weights, values) and _entries(draft, weights) > _results(weights, values):
            scores, _, *keep = args_of(weights)
            with draft.graph.inserting_before(node):
                joined = call(draft, "hush.attend", scores, values, *keep, like=node)
            replace(draft, node, joined)
            seen[joined] = Visibility.SECRET
            count += 1
    drop_dead(draft)
    return f"attention: {count} softmaxes divide after the product with the values"


def _weighs_only(weights: fx.Node, values: fx.Node) -> bool:
    """Whether a node is a softmax over its last dimension that a product with real values alone reads."""
    if not is_op(weights, "hush.softmax") or len(weights.users) != 1 or values is weights:
        return False
    own, other = weights.meta.get("shape", ()), values.meta.get("shape", ())
    real = "dtype" in values.meta and values.meta["dtype"].is_floating_point
    return bool(real) and min(len(own), len(other)) >= 2 and args_of(weights)[1] in (-1, len(own) - 1)


def _entries(draft: Draft, weights: fx.Node) -> float:
    """How many scores a public mask leaves."""
    keep = constant_of(draft, args_of(weights)[2]) if len(args_of(weights)) > 2 else None
    left = float(keep.double().mean()) if isinstance(keep, Tensor) else 1.0
    return left * torch.Size(weights.meta["shape"]).numel()


def _results(weights: fx.Node, values: fx.Node) -> int:
    """How many numbers the product with the values has, which may broadcast."""
    *lead, length, _ = weights.meta["shape"]
    *other, _, width = values.meta["shape"]
    return math.prod((*np.broadcast_shapes(tuple(lead), tuple(other)), length, width))
