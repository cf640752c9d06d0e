"""Public and provider-side factors move to where they cost nothing: into weights, or into a truncation that is due."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from hush.mpc.compiler.capture import Draft
from hush.mpc.compiler.ops import args_of, is_op
from hush.mpc.compiler.passes.rewrite import (
    LAYOUT,
    call,
    constant_of,
    drop_dead,
    replace,
    scalar_of,
    through_layout,
    visibilities,
)
from hush.mpc.compiler.types import Visibility

_ADD, _MUL, _DIV = "aten.add.Tensor", "aten.mul.Tensor", "aten.div.Tensor"
_CONVOLUTIONS = ("aten.conv1d.default", "aten.conv2d.default", "aten.conv1d.padding", "aten.conv2d.padding")
_MOST_HALVINGS = 12


def fold_scales(draft: Draft) -> str:
    """Scalars times products: powers of two into the truncation, other scalars into the weight of a linear layer."""
    counts = {"into truncations": 0, "into weights": 0}
    for node in list(draft.graph.nodes):
        scaled = _scalar_product(draft, node)
        if scaled is None:
            continue
        x, factor = scaled
        with draft.graph.inserting_before(node):
            if is_op(x, "hush.matmul") and len(x.users) == 1:
                counts["into weights"] += _into_matmul(draft, node, x, factor)
                counts["into truncations"] += 1
            elif _fold_factor(draft, x, factor):
                replace(draft, node, x)
                counts["into weights"] += 1
    drop_dead(draft)
    return "scales: " + ", ".join(f"{n} {where}" for where, n in counts.items())


def _scalar_product(draft: Draft, node: fx.Node) -> tuple[fx.Node, float] | None:
    if is_op(node, _MUL):
        for x, factor in ((args_of(node)[0], args_of(node)[1]), (args_of(node)[1], args_of(node)[0])):
            value = scalar_of(draft, factor)
            if isinstance(x, fx.Node) and x.op == "call_function" and value is not None:
                return x, value
    if is_op(node, _DIV) and isinstance(args_of(node)[0], fx.Node) and not node.kwargs:
        value = scalar_of(draft, args_of(node)[1])
        if value:
            return args_of(node)[0], 1 / value
    return None


def _into_matmul(draft: Draft, node: fx.Node, product: fx.Node, factor: float) -> int:
    """factor = rest * 2^-halvings: the rest goes to an operand's weight, or multiplies the smaller operand."""
    halvings = -round(math.log2(abs(factor))) if factor else _MOST_HALVINGS + 1
    if abs(halvings) > _MOST_HALVINGS:
        halvings = 0
    rest, folded = factor * 2.0**halvings, 0
    left, right = args_of(product)[0], args_of(product)[1]
    if rest != 1.0:
        folded = int(_fold_factor(draft, left, rest) or _fold_factor(draft, right, rest))
        if not folded:
            left = call(draft, _MUL, left, rest, like=node)
            left.meta |= {k: v for k, v in args_of(product)[0].meta.items() if k in ("shape", "dtype")}
    before = args_of(product)[2] if len(args_of(product)) > 2 else 0
    replace(draft, node, call(draft, "hush.matmul", left, right, before + halvings, like=node))
    return folded


def _fold_factor(draft: Draft, x: Any, factor: float) -> bool:
    """Multiply the weight and bias of the linear layer that x is a rearrangement of; False if x is none."""
    while is_op(x, *LAYOUT) and len(x.users) == 1:
        x = args_of(x)[0]
    if not is_op(x, "hush.affine") or len(x.users) != 1:
        return False
    seen = visibilities(draft)
    if seen[args_of(x)[1]] is Visibility.SECRET:
        return False
    with draft.graph.inserting_before(x):
        parts = [None if a is None else _times(draft, a, factor, x) for a in args_of(x)[1:]]
    x.args = (args_of(x)[0], *parts)
    return True


def _times(draft: Draft, weight: Any, factor: Any, like: fx.Node) -> fx.Node:
    made = call(draft, _MUL, weight, factor, like=like)
    made.meta |= {k: v for k, v in weight.meta.items() if k in ("shape", "dtype")}
    return made


def fold_norms(draft: Draft) -> str:
    """norm(x) * gamma + beta, read by linear layers only, or added to what a linear layer gives (a residual): gamma and
    beta go into the layers' weights, and norm(x) * gamma into the truncation of what it is added to."""
    count = joined = 0
    seen = visibilities(draft)
    for node in list(draft.graph.nodes):
        gamma, beta = _norm_weights(node)
        if gamma is None or seen[node] is not Visibility.SECRET:
            continue
        readers = _readers(node)
        layers = [_layer_added(seen, u, n) for n, u in readers]
        reads = [pair for pair, layer in zip(readers, layers, strict=True) if layer is None]
        joins = [(n, u, layer) for (n, u), layer in zip(readers, layers, strict=True) if layer is not None]
        if not readers or not all(_reads(seen, u, n) and not _tied(draft, args_of(u)[1]) for n, u in reads):
            continue
        for _, user in reads:  # first: the layer that a residual is added to may be one of them
            _absorb(draft, user, gamma, beta)
        for operand, user, layer in joins:
            _join_residual(draft, user, layer, operand, (gamma, beta))
        _drop_norm_weights(node)
        count, joined = count + 1, joined + len(joins)
        seen = visibilities(draft) if joins else seen
    drop_dead(draft)
    residuals = f", {joined} residuals into truncations" if joined else ""
    return f"norms: the weights of {count} moved into the linear layers behind them{residuals}"


def _layer_added(seen: dict[fx.Node, Visibility], user: fx.Node, operand: fx.Node) -> fx.Node | None:
    """The linear layer, read by nothing else, to whose result `user` adds an operand of the same shape."""
    if not is_op(user, _ADD) or user.kwargs or len(args_of(user)) != 2:
        return None
    for layer, other in (args_of(user), reversed(args_of(user))):
        if other is not operand or not is_op(layer, "hush.affine") or layer is operand or len(layer.users) != 1:
            continue
        plain = operand.meta.get("dtype", torch.float32) == layer.meta.get("dtype", torch.float32)
        alike = layer.meta.get("shape") is not None and layer.meta["shape"] == operand.meta.get("shape")
        if alike and plain and seen.get(args_of(layer)[1], Visibility.SECRET) is not Visibility.SECRET:
            return layer  # type: ignore[no-any-return]
    return None


def _join_residual(draft: Draft, node: fx.Node, layer: fx.Node, operand: fx.Node, norm: tuple[Any, Any]) -> None:
    """layer(x) + operand, the operand a norm's result, as one op that applies gamma."""
    gamma, beta = norm
    x, w, b = args_of(layer) if len(args_of(layer)) == 3 else (*args_of(layer), None)
    with draft.graph.inserting_before(node):
        if beta is not None:
            b = beta if b is None else call(draft, _ADD, b, beta, like=node)
        replace(draft, node, call(draft, "hush.affine_plus", x, w, b, operand, gamma, like=node))


def _norm_weights(node: fx.Node) -> tuple[Any, Any]:
    if is_op(node, "aten.layer_norm.default") and len(args_of(node)[1]) == 1 and len(args_of(node)) > 2:
        return args_of(node)[2], args_of(node)[3] if len(args_of(node)) > 3 else None
    return (args_of(node)[1], None) if is_op(node, "hush.rms_norm") else (None, None)


def _drop_norm_weights(node: fx.Node) -> None:
    if is_op(node, "hush.rms_norm"):
        node.args = (args_of(node)[0], None, args_of(node)[2])
    else:
        node.args = (*args_of(node)[:2], None, None, *args_of(node)[4:])


def _readers(node: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
    """(operand, user) of everything that reads a value, through views that keep its last dimension."""
    found: list[tuple[fx.Node, fx.Node]] = []
    for user in node.users:
        view = is_op(user, "aten.view.default", "aten.reshape.default", "aten._unsafe_view.default")
        width = node.meta.get("shape", (0,))[-1]
        if view and user.meta.get("shape", (None,))[-1] == width:
            found += _readers(user) or [(node, user)]
        else:
            found.append((node, user))
    return found


def _reads(seen: dict[fx.Node, Visibility], user: fx.Node, operand: fx.Node) -> bool:
    own = is_op(user, "hush.affine") and args_of(user)[0] is operand
    return own and seen.get(args_of(user)[1], Visibility.SECRET) is not Visibility.SECRET


def _tied(draft: Draft, weight: fx.Node) -> bool:
    """Whether a layer's parameter is read elsewhere too, as a table of embeddings that is also the head: with a norm's
    weights in it, it would be another tensor, and the parties would hold both."""
    source = through_layout(weight)
    uses = [u for n in draft.graph.nodes if n.op == "get_attr" and n.target == source.target for u in n.users]
    return source.op == "get_attr" and len(uses) > 1


def _absorb(draft: Draft, user: fx.Node, gamma: fx.Node, beta: fx.Node | None) -> None:
    x, w, b = args_of(user) if len(args_of(user)) == 3 else (*args_of(user), None)
    with draft.graph.inserting_before(user):
        if beta is not None:
            shift = call(draft, "hush.matmul", beta, w, like=user)
            b = shift if b is None else call(draft, _ADD, b, shift, like=user)
        column = call(draft, "aten.unsqueeze.default", gamma, -1, like=user)
        user.args = (x, _times(draft, w, column, user), b)


def fold_linears(draft: Draft) -> str:
    """(x W + b) V + c as x (W V) + (b V + c) where that is no larger; a vector added or multiplied behind likewise."""
    count = 0
    for node in list(draft.graph.nodes):
        count += _second_linear(draft, node) or _vector(draft, node)
    drop_dead(draft)
    return f"linear layers: {count} ops folded into the weights before them"


def _second_linear(draft: Draft, node: fx.Node) -> int:
    first = args_of(node)[0] if is_op(node, "hush.affine") else None
    if first is None or not is_op(first, "hush.affine") or len(first.users) != 1:
        return 0
    seen = visibilities(draft)
    x, w, b = args_of(first) if len(args_of(first)) == 3 else (*args_of(first), None)
    v, c = args_of(node)[1], args_of(node)[2] if len(args_of(node)) == 3 else None
    wide = [n.meta.get("shape") for n in (w, v)]
    if any(seen[n] is Visibility.SECRET for n in (w, v)) or None in wide:
        return 0
    (rows, middle), columns = wide[0], wide[1][1]
    if rows * columns > middle * (rows + columns):
        return 0
    with draft.graph.inserting_before(node):
        if b is not None:
            shift = call(draft, "hush.matmul", b, v, like=node)
            c = shift if c is None else call(draft, _ADD, shift, c, like=node)
        node.args = (x, call(draft, "hush.matmul", w, v, like=node), c)
    return 1


def _vector(draft: Draft, node: fx.Node) -> int:
    """layer(x) + c and layer(x) * s for provider-side vectors (or constants) over a layer's output channels."""
    if not is_op(node, _ADD, _MUL) or node.kwargs:
        return 0
    for layer, vector in (args_of(node), reversed(args_of(node))):
        if not is_op(layer, "hush.affine", *_CONVOLUTIONS) or len(layer.users) != 1 or not isinstance(vector, fx.Node):
            continue
        if not _per_channel(layer, vector):
            continue
        seen = visibilities(draft)
        if Visibility.SECRET not in (seen[vector], seen[args_of(layer)[1]]):
            with draft.graph.inserting_before(node):
                _join(draft, node, layer, vector)
            return 1
    return 0


def _per_channel(layer: fx.Node, vector: fx.Node) -> bool:
    """Whether a tensor has one entry for each output channel of a layer, placed to broadcast along it."""
    shape, own = vector.meta.get("shape"), layer.meta.get("shape")
    if shape is None or own is None:
        return False
    if is_op(layer, "hush.affine"):
        return bool(len(shape) == 1 and shape[0] == own[-1])
    return bool(len(shape) == len(own) - 1 and shape[0] == own[1] and all(s == 1 for s in shape[1:]))


def _join(draft: Draft, node: fx.Node, layer: fx.Node, vector: fx.Node) -> None:
    x, w, b, *rest = (*args_of(layer), None)[: max(3, len(args_of(layer)))]
    flat = vector
    if len(vector.meta["shape"]) > 1:
        flat = call(draft, "aten.reshape.default", vector, [-1], like=node)
    if is_op(node, _ADD):
        b = flat if b is None else call(draft, _ADD, b, flat, like=node)
    else:
        factor = flat
        if not is_op(layer, "hush.affine"):
            factor = call(draft, "aten.reshape.default", flat, [-1] + [1] * (len(w.meta["shape"]) - 1), like=node)
        w = _times(draft, w, factor, node)
        b = None if b is None else _times(draft, b, flat, node)
    made = draft.graph.call_function(layer.target, (x, w, b, *rest), dict(layer.kwargs))  # type: ignore[arg-type]
    made.meta = dict(layer.meta)
    replace(draft, node, made)


def combine_terms(draft: Draft) -> str:
    """a * c + b * d for public c, d: one truncation for the sum instead of one a product (rotary embeddings)."""
    count, seen = 0, visibilities(draft)
    for node in list(draft.graph.nodes):
        if not is_op(node, _ADD) or node.kwargs or seen.get(node) is not Visibility.SECRET:
            continue
        terms = [_public_product(draft, a) for a in args_of(node)]
        if all(t is not None for t in terms):
            with draft.graph.inserting_before(node):
                xs, factors = [t[0] for t in terms if t], [t[1] for t in terms if t]
                replace(draft, node, call(draft, "hush.combine", xs, factors, like=node))
            count += 1
    drop_dead(draft)
    return f"late truncation: {count} sums of public multiples truncate once"


def _public_product(draft: Draft, term: Any) -> tuple[fx.Node, Any] | None:
    if not is_op(term, _MUL) or len(term.users) != 1:
        return None
    for x, factor in ((args_of(term)[0], args_of(term)[1]), (args_of(term)[1], args_of(term)[0])):
        value = constant_of(draft, factor)
        real = isinstance(value, float) or (isinstance(value, Tensor) and value.is_floating_point())
        same = isinstance(x, fx.Node) and x.meta.get("dtype", torch.float32).is_floating_point
        if real and same and x.meta.get("shape") == term.meta.get("shape", ()):
            return x, factor
    return None
