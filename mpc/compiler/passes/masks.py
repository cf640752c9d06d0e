"""Attention masks: minus infinity, finfo.min and -1e4 never reach the ring.

A public mask becomes softmax's `keep`. A secret one stays an addend, but its huge entries become -C with C so far below
the scores that exp of the difference is zero in fixed point; a row that is wholly masked then keeps its plain softmax.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from hush.mpc.compiler.ops import args_of, is_op
from hush.mpc.compiler.passes.rewrite import CONVERSIONS, LAYOUT, call, constant_of, drop_dead, replace, scalar_of

if TYPE_CHECKING:
    from hush.mpc.compiler.capture import Draft

HUGE = -1000.0  # an additive score below this is a mask: exp of it is zero
CLEARANCE = 32.0  # exp(-32) is far below a unit in the last place
_WHERE = ("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
_SPREAD = tuple(
    f"aten.{op}"
    for op in ("cat.default", "stack.default", "repeat.default", "index.Tensor", "tril.default", "triu.default")
)
"""What puts a mask together, beside ops of layout."""
_FILL = ("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")


def public_masks(draft: Draft) -> str:
    """Move public masks from the addends of scores to the `keep` of their softmax."""
    count = 0
    for node in list(draft.graph.nodes):
        if is_op(node, "hush.softmax"):
            with draft.graph.inserting_before(node):
                scores, keep = _peel(draft, args_of(node)[0])
            if keep is not None and not bool(keep.all()):
                with draft.graph.inserting_before(node):
                    node.args = (scores, args_of(node)[1], draft.constant(keep))
                count += 1
            else:
                node.args = (scores, args_of(node)[1])
    drop_dead(draft)
    return f"public masks: {count} softmaxes skip masked entries"


def _peel(draft: Draft, scores: Any) -> tuple[Any, Tensor | None]:
    """Scores without their public masks, and the entries that all masks keep."""
    if is_op(scores, "aten.add.Tensor"):
        left, keep_left = _peel_addend(draft, args_of(scores)[0])
        right, keep_right = _peel_addend(draft, args_of(scores)[1])
        keep = _both(keep_left, keep_right)
        if keep is None:
            return scores, None
        if left is None or right is None:
            return (left if right is None else right), keep
        return call(draft, "aten.add.Tensor", left, right, like=scores), keep
    split = _conditional(draft, scores)
    return scores if split is None else split[0], None if split is None else split[1]


def _peel_addend(draft: Draft, term: Any) -> tuple[Any, Tensor | None]:
    """An addend without its mask (None: nothing left), and what the mask keeps."""
    value = constant_of(draft, term)
    if isinstance(value, Tensor) and value.is_floating_point():
        keep = value > HUGE
        if bool(keep.all()):
            return term, None
        rest = torch.where(keep, value, torch.zeros_like(value))
        return (draft.constant(rest) if bool((rest != 0).any()) else None), keep
    return _peel(draft, term)


def _conditional(draft: Draft, node: Any) -> tuple[fx.Node, Tensor] | None:
    """(x, keep) of where(public, x, huge) and masked_fill(x, public, huge)."""
    if is_op(node, *_WHERE):
        condition, first, second = node.args
        for kept, masked, sign in ((first, second, True), (second, first, False)):
            if isinstance(kept, fx.Node) and _is_huge(draft, masked):
                value = constant_of(draft, condition)
                return (kept, value == sign) if isinstance(value, Tensor) else None
    if is_op(node, *_FILL) and _is_huge(draft, args_of(node)[2]):
        value = constant_of(draft, args_of(node)[1])
        return (args_of(node)[0], ~value) if isinstance(value, Tensor) else None
    return None


def _is_huge(draft: Draft, value: Any) -> bool:
    number = scalar_of(draft, value)
    return number is not None and number <= HUGE


def _both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a & b


def secret_masks(draft: Draft, score_bound: Callable[[], float]) -> str:
    """Replace huge constants that flow into a softmax by -C, C = a power of two above 2 * scores + 32."""
    _added(draft)
    found = [n for n in draft.graph.nodes if is_op(n, "hush.softmax") and holds_huge(draft, args_of(n)[0])]
    if not found:
        return "secret masks: none"
    floor = -(2.0 ** math.ceil(math.log2(2 * score_bound() + CLEARANCE)))
    done: dict[fx.Node, fx.Node] = {}
    for node in found:
        node.args = (_saturate(draft, args_of(node)[0], floor, done), *args_of(node)[1:])
    drop_dead(draft)
    return f"secret masks: {len(found)} softmaxes add {floor:g} where masked"


def _operands(node: fx.Node) -> list[int]:
    """Positions of the arguments through which an additive mask may come; some are lists."""
    if is_op(node, *LAYOUT, *CONVERSIONS, *_SPREAD):
        return [0]
    if is_op(node, "aten.add.Tensor", "aten.mul.Tensor"):
        return [0, 1]
    if is_op(node, *_WHERE):
        return [1, 2]
    return [0, 2] if is_op(node, *_FILL) else []


def holds_huge(draft: Draft, value: Any) -> bool:
    """Whether a mask's constants flow into a value."""
    if isinstance(value, list | tuple):
        return any(holds_huge(draft, v) for v in value)
    constant = constant_of(draft, value)
    if constant is not None:
        return bool((torch.as_tensor(constant) <= HUGE).any())
    return isinstance(value, fx.Node) and any(holds_huge(draft, args_of(value)[i]) for i in _operands(value))


def _saturate(draft: Draft, value: Any, floor: float, done: dict[fx.Node, fx.Node]) -> Any:
    """The same value with its huge constants at `floor`, as new nodes: others may use the old ones."""
    if isinstance(value, list | tuple):
        return [_saturate(draft, v, floor, done) for v in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return max(value, floor)
    if not isinstance(value, fx.Node) or not holds_huge(draft, value):
        return value
    if value not in done:
        with draft.graph.inserting_before(value):
            constant = constant_of(draft, value)
            if isinstance(constant, Tensor):
                done[value] = draft.constant(constant.clamp(min=floor))
            else:
                turned = list(args_of(value))
                for index in _operands(value):
                    turned[index] = _saturate(draft, turned[index], floor, done)
                done[value] = draft.graph.node_copy(value)
                done[value].args = tuple(turned)
    return done[value]


def _added(draft: Draft) -> None:
    """scores - m * 1e4 as scores + m * -1e4."""
    for node in list(draft.graph.nodes):
        taken = args_of(node)[1] if is_op(node, "aten.sub.Tensor") and not node.kwargs else None
        factor = scalar_of(draft, args_of(taken)[1]) if is_op(taken, "aten.mul.Tensor") else None
        if taken is None or factor is None or factor < -HUGE:
            continue
        with draft.graph.inserting_before(node):
            turned = call(draft, "aten.mul.Tensor", args_of(taken)[0], -factor, like=node)
            turned.meta |= {k: taken.meta[k] for k in ("shape", "dtype") if k in taken.meta}
            replace(draft, node, call(draft, "aten.add.Tensor", args_of(node)[0], turned, like=node))
