"""How secret integers that look rows up travel: chosen for each argument, and what else reads them rewritten for it."""

from __future__ import annotations

import torch
from torch import fx

from hush.mpc.compiler.capture import Draft
from hush.mpc.compiler.ops import args_of, is_op
from hush.mpc.compiler.passes.rewrite import argument, call
from hush.mpc.compiler.rules.layout import KEEPS_ROWS
from hush.mpc.compiler.rules.logic import COMPARISONS
from hush.mpc.compiler.types import Kind

LOOKUPS = ("auto", "onehot", "dpf", "equality")
MANY = 512
"""Classes from which keys are dealt by default: 1.1 KB for the three parties and an id there, and 8.2 KB as a row."""
_TRAVELS = "hush_travels"
_CONVERSIONS = ("aten._to_copy.default", "aten.to.dtype", "aten.to.dtype_layout")
_NAMES = {Kind.ONEHOT: "one-hot rows", Kind.POINT: "keys", Kind.ID: "numbers"}


def choose_lookups(draft: Draft, how: str) -> str:
    """Choose for each argument that looks rows up; of keys the number is read out where an op asks for it."""
    _drop_conversions(draft)
    found = []
    for node in [n for n in draft.graph.nodes if n.op == "placeholder" and str(n.target) not in draft.places]:
        sizes = vocabularies(node)
        if not sizes:
            continue
        node.meta[_TRAVELS] = kind = _kind(node, how, min(sizes))
        if kind is Kind.POINT:
            _read_out(draft, node)
        found.append(f"{node.target} as {_NAMES[kind]} of {min(sizes):,} classes")
    return f"lookups: {', '.join(found) or 'no argument looks rows up'}"


def travels(node: fx.Node) -> Kind | None:
    """The kind that was chosen for an argument, or for what is a rearrangement of it."""
    source = node
    while is_op(source, *KEEPS_ROWS):
        before = argument(source, 0, "self")
        if not isinstance(before, fx.Node):
            return None
        source = before
    kind: Kind | None = source.meta.get(_TRAVELS)
    return Kind.INT if kind is Kind.ID and source is not node else kind


def vocabularies(node: fx.Node) -> list[int]:
    """Rows of the tables that a secret integer looks up, directly or rearranged."""
    found: list[int] = []
    for user in node.users:
        if _embeds(user, node):
            table = args_of(user)[0]
            assert isinstance(table, fx.Node)
            found.append(int(table.meta["shape"][0]))
        elif _moves(user, node):
            found += vocabularies(user)
    return found


def _kind(node: fx.Node, how: str, classes: int) -> Kind:
    """ "auto": keys from `MANY` classes on, where they are far shorter than one-hot rows; rows if an op wants them."""
    if how == "equality":
        return Kind.ID
    keys = how == "dpf" or (how == "auto" and classes >= MANY and not _wants_rows(node))
    return Kind.POINT if keys else Kind.ONEHOT


def _drop_conversions(draft: Draft) -> None:
    """Look up at an integer argument as it is, where it is made a wider or narrower one for lookups alone."""
    for node in list(draft.graph.nodes):
        if not is_op(node, *_CONVERSIONS):
            continue
        source = args_of(node)[0]
        if _is_index(node) and isinstance(source, fx.Node) and _is_index(source) and _only_looks_up(node):
            node.replace_all_uses_with(source)
            draft.graph.erase_node(node)


def _is_index(node: fx.Node) -> bool:
    return node.meta.get("dtype") in (torch.int32, torch.int64)


def _only_looks_up(node: fx.Node) -> bool:
    return all(_embeds(user, node) or (_moves(user, node) and _only_looks_up(user)) for user in node.users)


def _wants_rows(node: fx.Node) -> bool:
    """Whether an op takes one-hot rows as they are, and would have to make them of numbers by equality tests."""
    for user in node.users:
        indexes = is_op(user, "aten.index.Tensor") and args_of(user)[0] is not node
        if indexes or is_op(user, "aten.one_hot.default") or (_moves(user, node) and _wants_rows(user)):
            return True
    return False


def _read_out(draft: Draft, node: fx.Node) -> None:
    """Give ops that neither look up, nor rearrange, nor compare with a number, the number itself."""
    for user in list(node.users):
        if _moves(user, node):
            _read_out(draft, user)
    others = [user for user in node.users if not (_embeds(user, node) or _moves(user, node) or _compares(user, node))]
    if others:
        with draft.graph.inserting_after(node):
            number = call(draft, "hush.number", node, like=node)
        number.meta |= {key: node.meta[key] for key in ("shape", "dtype") if key in node.meta}
        number.meta.pop(_TRAVELS, None)
        for user in others:
            user.replace_input_with(node, number)


def _embeds(user: fx.Node, node: fx.Node) -> bool:
    return is_op(user, "aten.embedding.default") and args_of(user)[1] is node and args_of(user)[0] is not node


def _moves(user: fx.Node, node: fx.Node) -> bool:
    return is_op(user, *KEEPS_ROWS) and args_of(user)[0] is node


def _compares(user: fx.Node, node: fx.Node) -> bool:
    return is_op(user, *COMPARISONS) and args_of(user)[0] is node and isinstance(args_of(user)[1], int | float)
