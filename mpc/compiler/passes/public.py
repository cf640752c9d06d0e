"""What everyone knows is computed now: subgraphs of constants, and ops that a constant operand makes trivial."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from hush.mpc.compiler.ops import args_of, is_op, op_name
from hush.mpc.compiler.passes.masks import holds_huge
from hush.mpc.compiler.passes.rewrite import call, constant_of, drop_dead, replace, scalar_of, visibilities
from hush.mpc.compiler.types import Visibility
from hush.mpc.errors import UnsupportedOp

if TYPE_CHECKING:
    from hush.mpc.compiler.capture import Draft


def fold_public(draft: Draft) -> str:
    """Evaluate masks, positions, rotary tables and the like; repeat while that makes more nodes constant."""
    folded = trivial = 0
    while True:
        folded += _fold(draft)
        changed = _simplify(draft)
        trivial += changed
        if not changed:
            drop_dead(draft)
            return f"public subgraphs: {folded} nodes computed, {trivial} made trivial by a constant"


def merge_constants(draft: Draft) -> str:
    """One constant for all that are equal: masks and rotary tables that every layer computed for itself."""
    first: dict[tuple[torch.dtype, tuple[int, ...], bytes], str] = {}
    count = 0
    for node in draft.graph.nodes:
        if node.op != "get_attr" or draft.owners[str(node.target)] is not Visibility.PUBLIC:
            continue
        value = draft.tensors[str(node.target)].detach().clone(memory_format=torch.contiguous_format)
        key = (
            value.dtype,
            tuple(value.shape),
            hashlib.sha256(value.reshape(-1).view(torch.uint8).numpy().tobytes()).digest(),
        )
        name = first.setdefault(key, str(node.target))
        count += name != node.target
        node.target, draft.tensors[name] = name, value  # laid out as a file has it
    return f"constants: {len(first)} different ones, {count} repetitions merged"


def _fold(draft: Draft) -> int:
    seen, count = visibilities(draft), 0
    values: dict[fx.Node, Any] = {}
    for node in list(draft.graph.nodes):
        if seen[node] is not Visibility.PUBLIC or node.op == "output":
            continue
        values[node] = draft.tensors[str(node.target)] if node.op == "get_attr" else _compute(node, values)
        outside = [u for u in node.users if seen[u] is not Visibility.PUBLIC or u.op == "output"]
        if node.op == "call_function":
            count += 1
            if outside and isinstance(values[node], Tensor):
                with draft.graph.inserting_before(node):
                    constant = draft.constant(values[node])
                constant.meta = dict(node.meta)
                for user in outside:
                    user.replace_input_with(node, constant)
    drop_dead(draft)
    return count


def _compute(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    tags = getattr(node.target, "tags", ())
    if torch.Tag.nondeterministic_seeded in tags:
        raise UnsupportedOp(f"{op_name(node.target)} draws random numbers: pass them in as an argument of the module")
    args = fx.map_arg(args_of(node), values.__getitem__)
    kwargs = fx.map_arg(node.kwargs, values.__getitem__)
    assert callable(node.target)
    with torch.no_grad():
        return node.target(*args, **kwargs)


def _simplify(draft: Draft) -> int:
    count = 0
    for node in list(draft.graph.nodes):
        if node.op != "call_function":
            continue
        with draft.graph.inserting_before(node):
            instead = _trivial(draft, node)
        if instead is not None:
            replace(draft, node, instead)
            count += 1
    return count


def _trivial(draft: Draft, node: fx.Node) -> fx.Node | None:
    """The node that gives the same values more cheaply, if a constant operand allows one."""
    simplify = _SIMPLER.get(op_name(node.target))
    return None if simplify is None else simplify(draft, node)


def _filled(draft: Draft, node: fx.Node) -> fx.Node | None:
    """Of the operand only the shape counts: a constant, unless the shape is known when the program runs alone."""
    fill = _FILLS[op_name(node.target)]
    value = args_of(node)[-1] if fill is None else fill
    if draft.places or isinstance(value, fx.Node) or "shape" not in node.meta:
        return None
    return draft.constant(torch.full(node.meta["shape"], value, dtype=node.meta["dtype"]))


def _finite(draft: Draft, node: fx.Node) -> fx.Node | None:
    """Secrets are finite numbers, unless minus infinity is put among them: those are left, and have no rule."""
    if holds_huge(draft, args_of(node)[0]):
        return None
    if is_op(node, "aten.nan_to_num.default"):
        return _broadcast(draft, args_of(node)[0], node)
    return draft.constant(torch.full(node.meta["shape"], is_op(node, "aten.isfinite.default")))


def _added(draft: Draft, node: fx.Node) -> fx.Node | None:
    return None if node.kwargs else _unit(draft, node, 0.0, commutes=is_op(node, "aten.add.Tensor"))


def _multiplied(draft: Draft, node: fx.Node) -> fx.Node | None:
    return _unit(draft, node, 1.0, commutes=is_op(node, "aten.mul.Tensor"))


def _unit(draft: Draft, node: fx.Node, unit: float, *, commutes: bool) -> fx.Node | None:
    pairs = [(args_of(node)[0], args_of(node)[1])] + ([(args_of(node)[1], args_of(node)[0])] if commutes else [])
    for kept, constant in pairs:
        value = constant_of(draft, constant)
        if value is not None and isinstance(kept, fx.Node) and bool((torch.as_tensor(value) == unit).all()):
            return _broadcast(draft, kept, node)
    return None


def _decided(draft: Draft, node: fx.Node) -> fx.Node | None:
    """where(condition, a, b) and masked_fill(b, condition, a) whose condition is the same everywhere."""
    condition, first, second = args_of(node)
    if not is_op(node, *_WHERE):
        condition, first, second = first, second, condition
    condition = constant_of(draft, condition)
    if not isinstance(condition, Tensor):
        return None
    for branch, wanted in ((first, True), (second, False)):
        if isinstance(branch, fx.Node) and bool((condition == wanted).all()):
            return _broadcast(draft, branch, node)
    return None


def _true(draft: Draft, node: fx.Node) -> fx.Node | None:
    for kept, constant in ((args_of(node)[0], args_of(node)[1]), (args_of(node)[1], args_of(node)[0])):
        value = constant_of(draft, constant)
        if isinstance(kept, fx.Node) and isinstance(value, Tensor) and value.dtype == torch.bool and bool(value.all()):
            return _broadcast(draft, kept, node)
    return None


def _uniform(draft: Draft, node: fx.Node) -> fx.Node | None:
    """Gathering from a table of equal entries gives that entry wherever one looks."""
    table = constant_of(draft, args_of(node)[0])
    if not isinstance(table, Tensor) or scalar_of(draft, args_of(node)[2]) is not None or not table.numel():
        return None
    if bool((table == table.reshape(-1)[0]).all()):
        return draft.constant(table.reshape(-1)[0].expand(node.meta["shape"]))
    return None


def _broadcast(draft: Draft, kept: fx.Node, node: fx.Node) -> fx.Node | None:
    """`kept` in the shape of `node`; None where shapes are unknown or the dtype would change."""
    shape, own = node.meta.get("shape"), kept.meta.get("shape")
    if shape is None or own is None or node.meta.get("dtype") != kept.meta.get("dtype"):
        return None
    return kept if shape == own else call(draft, "aten.expand.default", kept, list(shape), like=node)


_WHERE = ("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf")
_FILLS: dict[str, float | None] = {
    **dict.fromkeys(("aten.zeros_like.default", "aten.new_zeros.default", "aten.zero.default"), 0),
    **dict.fromkeys(("aten.empty_like.default", "aten.new_empty.default", "aten.new_empty_strided.default"), 0),
    **dict.fromkeys(("aten.ones_like.default", "aten.new_ones.default"), 1),
    **dict.fromkeys(("aten.full_like.default", "aten.new_full.default", "aten.fill.Scalar"), None),
}
"""What fills the shape; None: the last argument."""
_SIMPLER: dict[str, Callable[[Draft, fx.Node], fx.Node | None]] = {
    **dict.fromkeys(_FILLS, _filled),
    **{
        f"aten.{name}.default": _finite for name in ("isnan", "isinf", "isposinf", "isneginf", "isfinite", "nan_to_num")
    },
    **dict.fromkeys(("aten.add.Tensor", "aten.sub.Tensor"), _added),
    **dict.fromkeys(("aten.mul.Tensor", "aten.div.Tensor"), _multiplied),
    **dict.fromkeys((*_WHERE, "aten.masked_fill.Scalar", "aten.masked_fill.Tensor"), _decided),
    **dict.fromkeys(("aten.__and__.Tensor", "aten.bitwise_and.Tensor", "aten.logical_and.default"), _true),
    "aten.gather.default": _uniform,
}
SIMPLIFIED = tuple(_SIMPLER)
"""Ops that may go without a rule of their own."""
