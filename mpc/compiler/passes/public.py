"""What everyone knows is computed now: subgraphs of constants, and ops that a constant operand makes trivial."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, fx

from hush.mpc.compiler.capture import Draft
from hush.mpc.compiler.ops import args_of, is_op, op_name
from hush.mpc.compiler.passes.rewrite import call, constant_of, drop_dead, replace, scalar_of, visibilities
from hush.mpc.compiler.types import Visibility
from hush.mpc.errors import UnsupportedOp


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
        value = draft.tensors[str(node.target)].detach().contiguous()
        key = (
            value.dtype,
            tuple(value.shape),
            hashlib.sha256(value.reshape(-1).view(torch.uint8).numpy().tobytes()).digest(),
        )
        name = first.setdefault(key, str(node.target))
        count += name != node.target
        node.target = name
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
    if is_op(node, "aten.add.Tensor", "aten.sub.Tensor") and not node.kwargs:
        return _unit(draft, node, 0.0, commutes=is_op(node, "aten.add.Tensor"))
    if is_op(node, "aten.mul.Tensor", "aten.div.Tensor"):
        return _unit(draft, node, 1.0, commutes=is_op(node, "aten.mul.Tensor"))
    if is_op(node, "aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf"):
        return _decided(draft, node)
    if is_op(node, "aten.__and__.Tensor", "aten.bitwise_and.Tensor", "aten.logical_and.default"):
        return _true(draft, node)
    if is_op(node, "aten.gather.default"):
        return _uniform(draft, node)
    return None


def _unit(draft: Draft, node: fx.Node, unit: float, *, commutes: bool) -> fx.Node | None:
    pairs = [(args_of(node)[0], args_of(node)[1])] + ([(args_of(node)[1], args_of(node)[0])] if commutes else [])
    for kept, constant in pairs:
        value = constant_of(draft, constant)
        if value is not None and isinstance(kept, fx.Node) and bool((torch.as_tensor(value) == unit).all()):
            return _broadcast(draft, kept, node)
    return None


def _decided(draft: Draft, node: fx.Node) -> fx.Node | None:
    condition = constant_of(draft, args_of(node)[0])
    if not isinstance(condition, Tensor):
        return None
    for branch, wanted in ((args_of(node)[1], True), (args_of(node)[2], False)):
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
