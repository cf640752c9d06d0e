"""Canonical form: no-ops go, attention becomes its parts, linear layers take their weight as [in, out]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hush.mpc.compiler.ops import args_of, is_op, op_name
from hush.mpc.compiler.passes.pieces import PIECES
from hush.mpc.compiler.passes.rewrite import CONVERSIONS, NOTHING, argument, call, drop_dead, replace
from hush.mpc.errors import UnsupportedOp

if TYPE_CHECKING:
    from hush.mpc.compiler.capture import Draft


_CHECKS = tuple(
    f"aten.{name}"
    for name in (
        "_assert_tensor_metadata.default",
        "_assert_scalar.default",
        "_assert_async.default",
        "_assert_async.msg",
        "sym_constrain_range.default",
        "sym_constrain_range_for_size.default",
    )
)
"""Assertions of the module: of the example they held."""


def canonical(draft: Draft) -> str:
    """Run the rewrites over the whole graph."""
    counts: dict[str, int] = {}
    for node in list(draft.graph.nodes):
        rewrite = REWRITES.get(op_name(node.target)) if node.op == "call_function" else None
        if rewrite is not None:
            counts[op_name(node.target)] = counts.get(op_name(node.target), 0) + 1
            with draft.graph.inserting_before(node):
                rewrite(draft, node)
    drop_dead(draft)
    return "canonical form: " + (", ".join(f"{n} {name}" for name, n in sorted(counts.items())) or "nothing to do")


def _nothing(draft: Draft, node: fx.Node) -> None:
    replace(draft, node, args_of(node)[0])


def _same_type(draft: Draft, node: fx.Node) -> None:
    """A conversion to the type that is there."""
    if args_of(node)[0].meta.get("dtype", node) == node.meta.get("dtype"):
        _nothing(draft, node)


def _nothing_pair(draft: Draft, node: fx.Node) -> None:
    for user in list(node.users):
        if is_op(user, "getitem") and args_of(user)[1] == 0:
            replace(draft, user, args_of(node)[0])


def _erase(draft: Draft, node: fx.Node) -> None:
    draft.graph.erase_node(node)


def _linear(draft: Draft, node: fx.Node) -> None:
    x, w, bias = args_of(node)[0], args_of(node)[1], argument(node, 2, "bias")
    turned = call(draft, "aten.transpose.int", w, 0, 1, like=node)
    turned.meta["shape"] = tuple(reversed(w.meta["shape"]))
    replace(draft, node, call(draft, "hush.affine", x, turned, bias, like=node))


def _addmm(draft: Draft, node: fx.Node) -> None:
    if node.kwargs.get("beta", 1) != 1 or node.kwargs.get("alpha", 1) != 1:
        raise UnsupportedOp("aten.addmm with alpha or beta has no rule: multiply separately")
    bias, x, w = node.args
    replace(draft, node, call(draft, "hush.affine", x, w, bias, like=node))


def _view(draft: Draft, node: fx.Node) -> None:
    """Without the clones a tensor may lie differently in memory: reshape copes."""
    replace(draft, node, call(draft, "aten.reshape.default", *args_of(node), like=node))


def _matmul(draft: Draft, node: fx.Node) -> None:
    replace(draft, node, call(draft, "hush.matmul", *args_of(node), like=node))


def _softmax(draft: Draft, node: fx.Node) -> None:
    replace(draft, node, call(draft, "hush.softmax", args_of(node)[0], args_of(node)[1], like=node))


def _attention(draft: Draft, node: fx.Node) -> None:
    """softmax(q k^T * scale + mask) v. A boolean mask keeps where it is true."""
    q, k, v = args_of(node)[:3]
    mask, causal = argument(node, 3, "attn_mask"), argument(node, 5, "is_causal", False)
    q_shape, k_shape = (n.meta["shape"] for n in (q, k))
    scale = node.kwargs.get("scale")
    scale = 1 / math.sqrt(q_shape[-1]) if scale is None else scale
    if node.kwargs.get("enable_gqa") and q_shape[-3] != k_shape[-3]:
        k, v = (_repeat_heads(draft, n, q_shape[-3] // k_shape[-3], node) for n in (k, v))
    turned = call(draft, "aten.transpose.int", k, -2, -1, like=node)
    shape = {"shape": (*q_shape[:-1], k_shape[-2]), "dtype": q.meta["dtype"]}
    scores = call(draft, "hush.matmul", q, turned, like=node)
    scores.meta |= shape
    scores = call(draft, "aten.mul.Tensor", scores, scale, like=node)
    scores.meta |= shape
    if causal:
        mask = draft.constant(torch.ones(q_shape[-2], k_shape[-2], dtype=torch.bool).tril())
        scores = _masked(draft, scores, mask, torch.bool, node)
    elif mask is not None:
        scores = _masked(draft, scores, mask, mask.meta["dtype"], node)
    weights = call(draft, "hush.softmax", scores, -1, like=node)
    weights.meta |= shape
    replace(draft, node, call(draft, "hush.matmul", weights, v, like=node))


def _masked(draft: Draft, scores: fx.Node, mask: fx.Node, dtype: torch.dtype, like: fx.Node) -> fx.Node:
    if dtype == torch.bool:
        zero = draft.constant(torch.zeros(()))
        mask = call(draft, "aten.where.ScalarOther", mask, zero, float("-inf"), like=like)
    masked = call(draft, "aten.add.Tensor", scores, mask, like=like)
    masked.meta |= {k: scores.meta[k] for k in ("shape", "dtype")}
    return masked


def _repeat_heads(draft: Draft, x: fx.Node, times: int, like: fx.Node) -> fx.Node:
    repeated = call(draft, "aten.repeat_interleave.self_int", x, times, -3, like=like)
    *lead, heads, length, width = x.meta["shape"]
    repeated.meta |= {"shape": (*lead, heads * times, length, width), "dtype": x.meta["dtype"]}
    return repeated


def _batch_norm(draft: Draft, node: fx.Node) -> None:
    """(x - mean) * rsqrt(var + eps) * weight + bias with running statistics, as x * a + c by the provider."""
    x, weight, bias, mean, var, training, _, eps = args_of(node)[:8]
    if training:
        raise UnsupportedOp("aten.batch_norm in training mode has no rule: call .eval() and keep running statistics")
    replace(draft, node, _normalised(draft, node, (x, weight, bias, mean, var), eps))


def _batch_norm_tuple(draft: Draft, node: fx.Node) -> None:
    """The form that returns (result, nothing, nothing)."""
    *operands, _, eps = args_of(node)
    result = _normalised(draft, node, operands, eps)
    for user in list(node.users):
        if is_op(user, "getitem") and args_of(user)[1] == 0:
            replace(draft, user, result)


def _normalised(draft: Draft, node: fx.Node, operands: Sequence[Any], eps: float) -> fx.Node:
    x, weight, bias, mean, var = operands
    inverse = call(draft, "aten.rsqrt.default", call(draft, "aten.add.Tensor", var, eps, like=node), like=node)
    factor = inverse if weight is None else call(draft, "aten.mul.Tensor", inverse, weight, like=node)
    shift = call(draft, "aten.neg.default", call(draft, "aten.mul.Tensor", mean, factor, like=node), like=node)
    if bias is not None:
        shift = call(draft, "aten.add.Tensor", shift, bias, like=node)
    tail = [x.meta["shape"][1]] + [1] * (len(x.meta["shape"]) - 2)
    factor, shift = (call(draft, "aten.reshape.default", n, tail, like=node) for n in (factor, shift))
    for vector in (factor, shift):
        vector.meta["shape"] = tuple(tail)
    scaled = call(draft, "aten.mul.Tensor", x, factor, like=node)
    return call(draft, "aten.add.Tensor", scaled, shift, like=node)


REWRITES: dict[str, Any] = {
    **PIECES,
    **dict.fromkeys(NOTHING, _nothing),
    **dict.fromkeys(CONVERSIONS, _same_type),
    "aten.native_dropout.default": _nothing_pair,
    **dict.fromkeys(_CHECKS, _erase),
    "aten.view.default": _view,
    "aten._unsafe_view.default": _view,
    "aten.linear.default": _linear,
    "aten.addmm.default": _addmm,
    "aten.matmul.default": _matmul,
    "aten.bmm.default": _matmul,
    "aten.mm.default": _matmul,
    "aten.softmax.int": _softmax,
    "aten._softmax.default": _softmax,
    "aten._safe_softmax.default": _softmax,
    "aten.scaled_dot_product_attention.default": _attention,
    "aten.batch_norm.default": _batch_norm,
    "aten._native_batch_norm_legit_no_training.default": _batch_norm_tuple,
}
