"""The provider's part: what depends on weights alone leaves the program and becomes a recipe for the provider."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, fx

from hush.mpc.compiler.capture import Draft
from hush.mpc.compiler.ops import args_of, is_op
from hush.mpc.compiler.passes.rewrite import drop_dead
from hush.mpc.compiler.program import Recipe
from hush.mpc.compiler.spec import WeightSpec
from hush.mpc.compiler.types import LAYER, META, Kind, Type, Visibility, type_of
from hush.mpc.errors import UnsupportedOp


@dataclass(frozen=True, slots=True)
class Split:
    """What partition makes: the recipe, the tensors it yields, and the program's constants by name."""

    recipe: Recipe
    specs: tuple[WeightSpec, ...]
    constants: dict[str, Tensor]


def partition(draft: Draft) -> tuple[Split, str]:
    """Cut the graph at the values that weights alone determine and that a secret op (or the result) reads."""
    frontier = [n for n in draft.graph.nodes if n.op != "output" and _is_weight(n) and _read_outside(n)]
    direct = {str(n.target) for n in frontier if n.op == "get_attr"}
    frontier = [n for n in frontier if not _turned_twice(n, direct)]
    graph, copies = _recipe(draft, frontier)
    names = _names(frontier)
    by_name: dict[str, fx.Node] = {}
    for node in frontier:
        by_name.setdefault(names[node], node)
        _cut(draft, node, names[node])
    for node in draft.graph.nodes:
        if is_op(node, "aten.transpose.int") and _is_weight(node):
            node.meta[META] = _secret(type_of(node))
    drop_dead(draft)
    unique = list(by_name)
    recipe = _recipe_output(graph, [copies[by_name[n]] for n in unique], draft)
    specs = tuple(WeightSpec(n, type_of(by_name[n]).shape, type_of(by_name[n]).frac) for n in unique)
    used = {str(n.target) for n in draft.graph.nodes if n.op == "get_attr"} - set(unique)
    split = Split(recipe, specs, {name: draft.tensors[name] for name in sorted(used)})
    made = sum(1 for n in recipe.graph.nodes if n.op == "call_function")
    return split, f"provider's part: {len(specs)} weights, {made} ops that the provider evaluates when it deploys"


def _is_weight(node: fx.Node) -> bool:
    return META in node.meta and type_of(node).visibility is Visibility.WEIGHT


def _read_outside(node: fx.Node) -> bool:
    return any(not _is_weight(user) for user in node.users)


def _turned_twice(node: fx.Node, direct: set[str]) -> bool:
    """A transposed view of a weight that is read as it is, too: tied weights are shared once."""
    source = args_of(node)[0] if is_op(node, "aten.transpose.int") else None
    return isinstance(source, fx.Node) and source.op == "get_attr" and str(source.target) in direct


def _secret(typed: Type) -> Type:
    return Type(Visibility.SECRET, typed.kind, typed.shape, typed.dtype, typed.bound, typed.frac, typed.ring, True)


def _names(frontier: Iterable[fx.Node]) -> dict[fx.Node, str]:
    """Parameter names where a weight is one, marked where it was folded; unique per value."""
    names: dict[fx.Node, str] = {}
    taken: set[str] = set()
    for node in frontier:
        if node.op == "get_attr":
            names[node] = str(node.target)
            continue
        source = _first_parameter(node)
        base = source + (".T" if is_op(node, "aten.transpose.int") else ".folded")
        name, count = base, 1
        while name in taken:
            count += 1
            name = f"{base}{count}"
        taken.add(name)
        names[node] = name
    return names


def _first_parameter(node: fx.Node) -> str:
    while node.op != "get_attr":
        sources = [n for n in node.all_input_nodes if _is_weight(n)]
        node = sources[0]
    return str(node.target)


def _cut(draft: Draft, node: fx.Node, name: str) -> None:
    if type_of(node).kind is not Kind.REAL:
        raise UnsupportedOp(
            f"weight {name!r} holds {type_of(node).dtype} values that a secret op reads, and weights are real numbers: "
            "convert it to floating point in the module, or register it as a non-persistent buffer if it is public"
        )
    with draft.graph.inserting_before(node):
        weight = draft.graph.create_node("get_attr", name)
    weight.meta = {META: type_of(node), LAYER: node.meta.get(LAYER, "")}
    for user in [u for u in node.users if not _is_weight(u) or is_op(u, "aten.transpose.int")]:
        user.replace_input_with(node, weight)


def _recipe(draft: Draft, frontier: list[fx.Node]) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
    """A copy of the ancestors of the frontier: parameters become placeholders, constants stay constants."""
    needed, stack = set(frontier), list(frontier)
    while stack:
        for source in stack.pop().all_input_nodes:
            if source not in needed:
                needed.add(source)
                stack.append(source)
    graph, copies, sources = fx.Graph(), {}, {}
    for node in draft.graph.nodes:
        if node not in needed:
            continue
        target = str(node.target)
        if node.op == "get_attr" and _is_weight(node):
            if target not in sources:
                sources[target] = graph.create_node("placeholder", target)
            copies[node] = sources[target]
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
            copies[node].meta = {}
    return graph, copies


def _recipe_output(graph: fx.Graph, made: list[fx.Node], draft: Draft) -> Recipe:
    graph.output(made)
    constants = {str(n.target): draft.tensors[str(n.target)] for n in graph.nodes if n.op == "get_attr"}
    return Recipe(graph, constants)
