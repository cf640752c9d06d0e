"""Ops that are other ops in disguise: copies, fills, limits that are tensors, exponentials to other bases."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hush.mpc.compiler.ops import args_of, is_op
from hush.mpc.compiler.passes.rewrite import argument, call, replace

if TYPE_CHECKING:
    from hush.mpc.compiler.capture import Draft

Rewrite = Callable[["Draft", fx.Node], None]
_ADD, _MUL, _EXPAND = "aten.add.Tensor", "aten.mul.Tensor", "aten.expand.default"


def _same(draft: Draft, name: str, *args: Any, like: fx.Node, shape: tuple[int, ...] | None = None) -> fx.Node:
    """A call whose result has the shape of `like`, or the one given, and its dtype."""
    made = call(draft, name, *args, like=like)
    made.meta |= {k: like.meta[k] for k in ("shape", "dtype") if k in like.meta}
    if shape is not None:
        made.meta["shape"] = shape
    return made


def _as(draft: Draft, node: fx.Node, value: fx.Node) -> None:
    """Replace a node by a value, in the node's dtype and shape."""
    if value.meta.get("dtype") != node.meta["dtype"]:
        value = _same(draft, "aten.to.dtype", value, node.meta["dtype"], like=node, shape=value.meta.get("shape"))
    if value.meta.get("shape") != node.meta["shape"]:
        value = _same(draft, _EXPAND, value, list(node.meta["shape"]), like=node)
    replace(draft, node, value)


def _copied(draft: Draft, node: fx.Node) -> None:
    """copy(x, y) and fill(x, y): y as x is."""
    _as(draft, node, args_of(node)[1])


def _expand_as(draft: Draft, node: fx.Node) -> None:
    replace(draft, node, call(draft, _EXPAND, args_of(node)[0], list(node.meta["shape"]), like=node))


def _limited(draft: Draft, node: fx.Node) -> None:
    """clamp(x, low, high), limits that are tensors."""
    x, low, high = args_of(node)[0], argument(node, 1, "min"), argument(node, 2, "max")
    if low is not None:
        x = _same(draft, "aten.maximum.default", x, low, like=node)
    if high is not None:
        x = _same(draft, "aten.minimum.default", x, high, like=node)
    replace(draft, node, x)


def _exp2(draft: Draft, node: fx.Node) -> None:
    replace(draft, node, _to_power(draft, node, args_of(node)[0], math.log(2)))


def _constant_power(draft: Draft, node: fx.Node) -> None:
    """base^x = e^(x ln base) for a base that is positive; others are left as they are, and have no rule."""
    base, exponent = args_of(node)[:2]
    if base > 0:
        replace(draft, node, _to_power(draft, node, exponent, math.log(base)))


def _to_power(draft: Draft, node: fx.Node, x: fx.Node, factor: float) -> fx.Node:
    return _same(draft, "aten.exp.default", _same(draft, _MUL, x, factor, like=node), like=node)


def _expm1(draft: Draft, node: fx.Node) -> None:
    raised = _same(draft, "aten.exp.default", args_of(node)[0], like=node)
    replace(draft, node, _same(draft, _ADD, raised, -1.0, like=node))


def _log1p(draft: Draft, node: fx.Node) -> None:
    above = _same(draft, _ADD, args_of(node)[0], 1.0, like=node)
    replace(draft, node, _same(draft, "aten.log.default", above, like=node))


def _log10(draft: Draft, node: fx.Node) -> None:
    natural = _same(draft, "aten.log.default", args_of(node)[0], like=node)
    replace(draft, node, _same(draft, _MUL, natural, 1 / math.log(10), like=node))


def _rms_norm(draft: Draft, node: fx.Node) -> None:
    """Over the last dimension a composite op; over more, in pieces."""
    x, dims = args_of(node)[:2]
    weight, eps = argument(node, 2, "weight"), argument(node, 3, "eps")
    eps = torch.finfo(node.meta["dtype"]).eps if eps is None else eps
    if len(dims) == 1:
        return replace(draft, node, call(draft, "hush.rms_norm", x, weight, eps, like=node))
    own = node.meta["shape"]
    rows = (*own[: len(own) - len(dims)], *[1] * len(dims))
    squares = _same(draft, "aten.pow.Tensor_Scalar", x, 2, like=node)
    mean = _same(draft, "aten.mean.dim", squares, list(range(-len(dims), 0)), True, like=node, shape=rows)
    inverse = _same(
        draft, "aten.rsqrt.default", _same(draft, _ADD, mean, eps, like=node, shape=rows), like=node, shape=rows
    )
    y = _same(draft, _MUL, x, inverse, like=node)
    return replace(draft, node, y if weight is None else _same(draft, _MUL, y, weight, like=node))


def _masked_put(draft: Draft, node: fx.Node) -> None:
    """x[mask] = number: a choice at every entry. Other assignments have a rule of their own."""
    x, indices, value = args_of(node)[:3]
    accumulate = argument(node, 3, "accumulate", False)
    mask = indices[0] if len(indices) == 1 else None
    if mask is None or accumulate or mask.meta.get("dtype") != torch.bool or value.meta.get("shape") not in ((), (1,)):
        return
    shape = (*mask.meta["shape"], *[1] * (len(x.meta["shape"]) - len(mask.meta["shape"])))
    if shape != mask.meta["shape"]:
        mask = _same(draft, "aten.reshape.default", mask, list(shape), like=mask, shape=shape)
    if value.meta.get("dtype") != x.meta["dtype"]:
        value = _same(draft, "aten.to.dtype", value, x.meta["dtype"], like=node, shape=value.meta["shape"])
    replace(draft, node, call(draft, "aten.where.self", mask, value, x, like=node))


def _last_marked(draft: Draft, node: fx.Node) -> None:
    """x[mask].view(rows, -1, width)[:, -1]: each row's entry at its last mark, as classifiers read the end of a text.

    The shapes in between depend on the mask; those of its place and of the entry there do not.
    """
    x, indices = args_of(node)[:2]
    mask = indices[0] if len(indices) == 1 else None
    views = [user for user in node.users if is_op(user, "aten.view.default", "aten.reshape.default")]
    if mask is None or mask.meta.get("dtype") != torch.bool or len(x.meta["shape"]) != 3 or len(views) != 1:
        return
    rows, length, width = x.meta["shape"]
    ends = [u for u in views[0].users if is_op(u, "aten.select.int") and args_of(u)[1:] == (1, -1)]
    if list(args_of(views[0])[1]) != [rows, -1, width] or len(ends) != len(views[0].users):
        return
    marks = _same(draft, "aten.to.dtype", mask, torch.int64, like=mask)
    numbered = _same(draft, _MUL, marks, draft.constant(torch.arange(1, length + 1)), like=mask)
    place = _same(draft, "aten.argmax.default", numbered, -1, like=mask, shape=(rows,))
    for made in (marks, numbered, place):
        made.meta["dtype"] = torch.int64
    found = call(draft, "aten.index.Tensor", x, [draft.constant(torch.arange(rows)), place], like=node)
    for end in ends:
        found.meta |= {k: end.meta[k] for k in ("shape", "dtype")}
        end.replace_all_uses_with(found)


PIECES: dict[str, Rewrite] = {
    "aten.copy.default": _copied,
    "aten.fill.Tensor": _copied,
    "aten.expand_as.default": _expand_as,
    "aten.clamp.Tensor": _limited,
    "aten.exp2.default": _exp2,
    "aten.pow.Scalar": _constant_power,
    "aten.expm1.default": _expm1,
    "aten.log1p.default": _log1p,
    "aten.log10.default": _log10,
    "aten.rms_norm.default": _rms_norm,
    "aten.index_put.default": _masked_put,
    "aten.index.Tensor": _last_marked,
}
