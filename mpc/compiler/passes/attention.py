"""Attention: softmax(scores) @ values as one op, and scores that are computed a chunk at a time."""

from __future__ import annotations

from typing import Any

from torch import fx

from hush.mpc.compiler.capture import Draft
from hush.mpc.compiler.ops import COMPOSITE, args_of, is_op
from hush.mpc.compiler.passes.rewrite import argument, call, drop_dead, replace, visibilities
from hush.mpc.compiler.types import Kind, Visibility, type_of


def join_attention(draft: Draft) -> str:
    """softmax(scores) @ values, both secret, as one op: it goes through the queries in chunks.

    When it runs it divides by the sums of exp before or after the product with the values, whichever is cheaper there.
    """
    seen, count = visibilities(draft), 0
    for node in list(draft.graph.nodes):
        if not is_op(node, "hush.matmul") or argument(node, 2, "halvings", 0):
            continue
        weights, values = args_of(node)[:2]
        secret = seen[weights] is Visibility.SECRET and seen[values] is Visibility.SECRET
        if secret and _weighs_only(weights, values):
            scores, _, *keep = args_of(weights)
            with draft.graph.inserting_before(node):
                joined = call(draft, "hush.attend", scores, values, *keep, like=node)
            replace(draft, node, joined)
            seen[joined] = Visibility.SECRET
            count += 1
    drop_dead(draft)
    return f"attention: {count} softmaxes joined to the product with their values"


def _weighs_only(weights: fx.Node, values: fx.Node) -> bool:
    """Whether a node is a softmax over its last dimension that a product with real values alone reads."""
    if not is_op(weights, "hush.softmax") or len(weights.users) != 1 or values is weights:
        return False
    own, other = weights.meta.get("shape", ()), values.meta.get("shape", ())
    real = "dtype" in values.meta and values.meta["dtype"].is_floating_point
    return bool(real) and min(len(own), len(other)) >= 2 and args_of(weights)[1] in (-1, len(own) - 1)


def defer_scores(draft: Draft) -> str:
    """Products q @ k that attention alone reads, and what is added to them, are left to it to compute in chunks.

    On a typed graph: the nodes stay, and so do their types, of which attention takes the scores' bound.
    """
    count = 0
    for node in draft.graph.nodes:
        chain = _chain(args_of(node)[0]) if is_op(node, "hush.attend") else None
        if chain is None:
            continue
        product, *sums = chain
        product.target = COMPOSITE["hush.scores"]
        below = product
        for total in sums:
            a, b = args_of(total)
            total.target, total.args = COMPOSITE["hush.shifted"], (below, b if a is below else a)
            below = total
        count += 1
    return f"attention: the scores of {count} computed a chunk at a time"


def _chain(scores: Any) -> list[fx.Node] | None:
    """[product, sum, ..., sum]: from q @ k to the scores by adding something to it, once or more; None if it is not."""
    if not isinstance(scores, fx.Node) or len(scores.users) != 1:
        return None
    if is_op(scores, "hush.matmul"):
        return [scores] if all(map(_multiplies, args_of(scores)[:2])) else None
    if not is_op(scores, "aten.add.Tensor") or scores.kwargs:
        return None
    for term in args_of(scores):
        below = _chain(term)
        if below is not None and type_of(term).shape[-2:] == type_of(scores).shape[-2:]:
            return [*below, scores]
    return None


def _multiplies(operand: fx.Node) -> bool:
    """Whether an operand is a secret real matrix."""
    typed = type_of(operand)
    return typed.visibility is Visibility.SECRET and typed.kind is Kind.REAL and len(typed.shape) >= 2
