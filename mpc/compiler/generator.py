"""From two modules over the same weights, one for the prompt and one for each token after it, to one program.

    Prefill.forward(ids [B, T], ...) -> {"logits": [B, V], "state": {name: tensor}}
    Step.forward(token [B, V], place [1], state) -> {"logits": [B, V], "state": {the same names}}

`token` is the one-hot row of the token chosen last, `place` the number of positions the state holds. What a step leaves
one longer than it took (keys, values, a mask) grows; the step is compiled once and runs at every length, so its forward
must not spell that length out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from hush.mpc.compiler.capture import Draft, capture
from hush.mpc.compiler.compile import FRAC, build, checked_modes, sealed
from hush.mpc.compiler.ops import is_op, op_name
from hush.mpc.compiler.passes.calibrate import Typing
from hush.mpc.compiler.passes.rewrite import LAYOUT, visibilities
from hush.mpc.compiler.program import Generation, Program, Recipe
from hush.mpc.compiler.rules.table import place_of
from hush.mpc.compiler.spec import InputSpec, OutputSpec, Structure
from hush.mpc.compiler.types import Kind, Visibility
from hush.mpc.errors import UnsupportedOp, UserError
from hush.mpc.ring import RING64, Ring

State = dict[str, Tensor]
_PLACE = "place"
_EXACT = (*LAYOUT, "aten.cat.default", "aten.neg.default")  # what every machine computes alike


def compile_generator(
    prefill: torch.nn.Module,
    step: torch.nn.Module,
    args: Sequence[Any],
    *,
    context: int,
    calls: Sequence[Sequence[Any]] = (),
    longer: Sequence[Sequence[Sequence[Any]]] = (),
    reveals: str = "token",
    weights: str = "secret",
    approx: str = "default",
    lookup: str = "auto",
    frac: int = FRAC,
    ring: Ring = RING64,
) -> Program:
    """Compile a network that generates, for prompts shaped like the example `args` of `prefill`.

    `context`: positions that prompt and answer may take. `calls`: further public calls of `prefill` that widen the
    calibration. `longer`: for each further length of prompts the calls of `prefill`, in order of length; they read the
    same weights. `reveals`: "token", or "logits" beside it. The rest as `compile_module`.
    """
    if reveals not in ("token", "logits"):
        raise UserError(f"reveals={reveals!r}: say 'token' or 'logits'")
    modes = checked_modes(weights, approx, lookup)
    samples = [tuple(args), *map(tuple, calls)]
    turns = [_continued(prefill, step, call, context) for call in samples]
    grows = _growth(turns[0][2], step, turns[0])
    following = capture(step, turns[0], {}, (), places=(_PLACE,))
    _check_places(following)
    firsts, drafts = [], [following]
    for each in (samples, *longer):
        draft = capture(prefill, tuple(each[0]), {}, ())
        firsts.append(build(draft, Typing(_values(draft, each), ring, frac, lookup=lookup), modes))
        drafts.append(draft)
    then = build(following, Typing(_values(following, turns), ring, frac), modes)
    then.inputs = tuple(_fed(spec, grows) for spec in then.inputs)
    head, *others = firsts
    for program in (*firsts, then):
        program.outputs = _kept(program)
    for program in (then, *others):
        _share_weights(head, program)
    head.generation = Generation(then, context, reveals, tuple(others))
    head.passes = [*head.passes, *(f"then: {line}" for line in then.passes)]
    return sealed(head, *drafts)


# ---------------------------------------------------------------------- examples
def _continued(
    prefill: torch.nn.Module, step: torch.nn.Module, call: Sequence[Any], context: int
) -> tuple[Tensor, Tensor, State]:
    """The call of the step that follows a call of the prefill, greedily. After a prompt that fills the context no step
    ever runs, and the last place serves for its example."""
    with torch.no_grad():
        made = prefill.eval()(*call)
    logits, state = _parts(made, "prefill")
    token = torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1])
    grows = _growth(state, step, (token, torch.zeros(1, dtype=torch.int64), state))
    length = next((state[name].shape[dim] for name, dim in grows.items()), 0)
    return token, torch.tensor([min(length, context - 1)]), state


def _parts(made: Any, what: str) -> tuple[Tensor, State]:
    if not isinstance(made, Mapping) or set(made) != {"logits", "state"}:
        raise UserError(f'a generator\'s {what} returns {{"logits": ..., "state": {{...}}}}, not {type(made).__name__}')
    return made["logits"], dict(made["state"])


def _growth(state: State, step: torch.nn.Module, call: Sequence[Any]) -> dict[str, int]:
    """The dimension in which each part of the state grows by one a step."""
    with torch.no_grad():
        _, after = _parts(step.eval()(*call), "step")
    if set(after) != set(state):
        raise UserError(f"a step must leave the state that it takes: {', '.join(sorted(set(after) ^ set(state)))}")
    found = {}
    for name, before in state.items():
        longer = [d for d, (a, b) in enumerate(zip(before.shape, after[name].shape, strict=True)) if a != b]
        if longer and (len(longer) > 1 or after[name].shape[longer[0]] != before.shape[longer[0]] + 1):
            raise UserError(f"state {name!r} goes from {tuple(before.shape)} to {tuple(after[name].shape)} in a step")
        if longer:
            found[name] = longer[0]
    return found


def _values(draft: Draft, calls: Sequence[Sequence[Any]]) -> list[list[Tensor]]:
    """Each call's values of the draft's arguments."""
    found = []
    for call in calls:
        named: Any = dict(zip(draft.parameters, call, strict=False))
        sample = []
        for argument in draft.arguments:
            value = named
            for key in argument.path:
                value = value[key]
            sample.append(value)
        found.append(sample)
    return found


# ---------------------------------------------------------------------- specs
def _kept(program: Program) -> tuple[OutputSpec, ...]:
    """Outputs under the names that the parties keep them by."""
    names = _leaves(program.structure)
    return tuple(replace(spec, keep=names[i]) for i, spec in enumerate(program.outputs))


def _leaves(structure: Structure) -> dict[int, str]:
    parts = dict(structure["dict"])
    return {parts["logits"]["leaf"]: "logits"} | {leaf["leaf"]: name for name, leaf in parts["state"]["dict"]}


def _fed(spec: InputSpec, grows: Mapping[str, int]) -> InputSpec:
    if spec.kind is Kind.PLACE:
        return spec
    name = str(spec.path[-1])
    return replace(spec, state=name, grows=grows.get(name))


def _check_places(draft: Draft) -> None:
    """What is known only when the program runs is looked up and rearranged, and no more: every party must get the same
    numbers, and floating-point functions differ between machines."""
    public: set[fx.Node] = set()
    seen = visibilities(draft)
    for node in draft.graph.nodes:
        if node.op == "placeholder" and str(node.target) in draft.places:
            public.add(node)
        elif node.op == "call_function" and any(n in public for n in node.all_input_nodes):
            if any(seen[n] is not Visibility.PUBLIC and n not in public for n in node.all_input_nodes):
                continue
            if not is_op(node, "aten.embedding.default", *_EXACT):
                why = f"{op_name(node.target)} of a place: places look up rows of tables, and nothing else"
                raise UnsupportedOp(f"{why}\n{place_of(node)}")
            public.add(node)


# ---------------------------------------------------------------------- weights
def _share_weights(head: Program, then: Program) -> None:
    """Let `then` read the weights of `head`: those that are made alike are one, the rest join the head's."""
    graph, keys = head.recipe.graph, _Keys(head.recipe)
    output = next(iter(reversed(graph.nodes)))
    made: list[fx.Node] = list(output.args[0])
    names = {keys[node]: spec.name for node, spec in zip(made, head.weight_specs, strict=True)}
    nodes = {keys[node]: node for node in graph.nodes if node.op != "output"}
    other, constants, specs, renamed = _Keys(then.recipe), dict(head.recipe.constants), list(head.weight_specs), {}
    for node, spec in zip(_results(then.recipe.graph), then.weight_specs, strict=True):
        key = other[node]
        if key not in names:
            name = _unused(spec.name, {s.name for s in specs})
            with graph.inserting_before(output):
                made.append(_graft(graph, node, nodes, other, constants))
            specs.append(replace(spec, name=name))
            names[key] = name
        renamed[spec.name] = names[key]
    output.args = (made,)
    head.recipe, head.weight_specs = Recipe(graph, constants), tuple(specs)
    for node in then.graph.nodes:
        if node.op == "get_attr" and str(node.target) in renamed:
            node.target = renamed[str(node.target)]
    unique = dict.fromkeys(renamed[s.name] for s in then.weight_specs)
    by_name = {s.name: s for s in specs}
    then.weight_specs = tuple(by_name[name] for name in unique)
    empty = fx.Graph()
    empty.output([])
    then.recipe = Recipe(empty, {})


def _results(graph: fx.Graph) -> list[fx.Node]:
    last: Any = next(iter(reversed(graph.nodes)))
    return list(last.args[0])


def _unused(name: str, taken: set[str]) -> str:
    count, base = 1, name
    while name in taken:
        count += 1
        name = f"{base}.{count}"
    return name


class _Keys:
    """How each node of a recipe is made, as a value that is equal for equal recipes."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._known: dict[fx.Node, str] = {}

    def __getitem__(self, node: fx.Node) -> str:
        if node not in self._known:
            self._known[node] = hashlib.sha256(self._text(node).encode()).hexdigest()
        return self._known[node]

    def _text(self, node: fx.Node) -> str:
        if node.op == "placeholder":
            return f"parameter {node.target}"
        if node.op == "get_attr":
            value = self._recipe.constants[str(node.target)].detach().contiguous()
            data = value.reshape(-1).view(torch.uint8).numpy().tobytes()
            return f"constant {value.dtype} {tuple(value.shape)} {hashlib.sha256(data).hexdigest()}"
        args = fx.map_arg((node.args, dict(node.kwargs)), lambda n: self[n])
        return f"call {op_name(node.target)} {args}"


def _graft(
    graph: fx.Graph, node: fx.Node, nodes: dict[str, fx.Node], keys: _Keys, constants: dict[str, Tensor]
) -> fx.Node:
    """A node of another recipe in this one, with what it needs."""
    key = keys[node]
    if key not in nodes:
        if node.op == "get_attr":
            name = _unused(f"then_{node.target}", set(constants))
            constants[name] = keys._recipe.constants[str(node.target)]
            nodes[key] = graph.create_node("get_attr", name)
        elif node.op == "placeholder":
            nodes[key] = graph.create_node("placeholder", str(node.target))
        else:
            nodes[key] = graph.node_copy(node, lambda n: _graft(graph, n, nodes, keys, constants))
    return nodes[key]
