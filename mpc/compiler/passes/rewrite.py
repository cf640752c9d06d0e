"""Small tools that the passes share: reading arguments, replacing nodes, walking through layout ops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from hush.mpc.compiler.ops import COMPOSITE, args_of, is_op, op_target
from hush.mpc.compiler.types import Visibility

if TYPE_CHECKING:  # which decomposes what this does not know
    from hush.mpc.compiler.capture import Draft

NOTHING = (
    "aten.clone.default",
    "aten.alias.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.detach_.default",
    "aten.lift_fresh_copy.default",
    "aten.dropout.default",
    "aten.native_dropout.default",
    "aten.feature_dropout.default",
)
LAYOUT = (
    "aten.view.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten.transpose.int",
    "aten.permute.default",
    "aten.t.default",
    "aten.unsqueeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.default",
    "aten.squeeze.dims",
    "aten.expand.default",
    "aten.select.int",
    "aten.slice.Tensor",
    "aten.flatten.using_ints",
)
CONVERSIONS = tuple(
    f"aten.{op}"
    for op in ("_to_copy.default", "to.dtype", "to.dtype_layout", "to.device", "to.other", "type_as.default")
)


def argument(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    """A call's argument by position or by name."""
    if len(args_of(node)) > index:
        return args_of(node)[index]
    return node.kwargs.get(name, default)


def call(draft: Draft, name: str, *args: Any, like: fx.Node, **kwargs: Any) -> fx.Node:
    """A new call at the insertion point, with the place of `like` in the module."""
    node = draft.graph.call_function(COMPOSITE.get(name) or op_target(name), args, kwargs)
    node.meta = {k: v for k, v in like.meta.items() if k not in ("shape", "dtype")}
    return node


def replace(draft: Draft, old: fx.Node, new: fx.Node) -> None:
    """Let `new` stand for `old`, which goes."""
    for key in ("shape", "dtype"):
        if key in old.meta:
            new.meta.setdefault(key, old.meta[key])
    old.replace_all_uses_with(new)
    draft.graph.erase_node(old)


def visibilities(draft: Draft) -> dict[fx.Node, Visibility]:
    """Who knows each node's value: the most secret of its operands."""
    seen: dict[fx.Node, Visibility] = {}
    for node in draft.graph.nodes:
        if node.op == "placeholder":
            seen[node] = Visibility.SECRET
        elif node.op == "get_attr":
            seen[node] = draft.owners[str(node.target)]
        else:
            seen[node] = max((seen[n] for n in node.all_input_nodes), default=Visibility.PUBLIC)
    return seen


def constant_of(draft: Draft, value: Any) -> Tensor | float | int | None:
    """The public value that an argument holds, or None."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, fx.Node) and value.op == "get_attr" and draft.owners[str(value.target)] is Visibility.PUBLIC:
        return draft.tensors[str(value.target)]
    return None


def scalar_of(draft: Draft, value: Any) -> float | None:
    """The public number that an argument holds, if it is one number."""
    found = constant_of(draft, value)
    if isinstance(found, Tensor):
        return float(found) if found.numel() == 1 else None
    return None if found is None else float(found)


def through_layout(node: Any) -> Any:
    """The node that a chain of layout ops starts from."""
    while is_op(node, *LAYOUT):
        node = args_of(node)[0]
    return node


def drop_dead(draft: Draft) -> int:
    """Remove nodes nobody uses; how many. Unused arguments stay: they are part of the call."""
    count = 0
    for node in reversed(list(draft.graph.nodes)):
        if node.op in ("call_function", "get_attr") and not node.users:
            draft.graph.erase_node(node)
            count += 1
    return count
