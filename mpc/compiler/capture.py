"""Capture: a module and an example call become a graph of ATen ops and the tensors it refers to."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx
from torch.export.graph_signature import InputKind, OutputKind

from hush.mpc.compiler.decompose import take_apart
from hush.mpc.compiler.quiet import quiet
from hush.mpc.compiler.spec import Structure, by_name, describe
from hush.mpc.compiler.types import LAYER, Visibility
from hush.mpc.errors import HushWarning, ShapeError, UnsupportedOp

Call = tuple[Sequence[Any], Mapping[str, Any]]
_NARROW = (torch.int8, torch.uint8, torch.int16, torch.int32)  # persistent buffers of these may be quantised weights


@dataclass(frozen=True, slots=True)
class Argument:
    """A secret tensor argument of the example call: its graph name, its place in the call, its value."""

    name: str
    path: tuple[str | int, ...]
    value: Tensor


@dataclass(slots=True)
class Draft:
    """A graph on its way through the passes.

    Placeholders are the secret arguments; get_attr nodes name a tensor of `tensors`, whose visibility is in `owners`.
    The output node holds the list of the result's leaves: nodes, or literals. `places` are the arguments that are
    public but known only when the program runs: passes treat them as secrets, for nothing can be computed from them.
    """

    graph: fx.Graph
    arguments: list[Argument]
    tensors: dict[str, Tensor]
    owners: dict[str, Visibility]
    structure: Structure
    parameters: tuple[str, ...]
    places: frozenset[str] = frozenset()
    log: list[str] = field(default_factory=list)
    _fresh: Iterator[int] = field(default_factory=itertools.count)

    def constant(self, value: Tensor) -> fx.Node:
        """A get_attr node, at the graph's insertion point, of a new public tensor."""
        name = f"constant_{next(self._fresh)}"
        self.tensors[name], self.owners[name] = value, Visibility.PUBLIC
        return self.graph.create_node("get_attr", name)

    @property
    def output(self) -> fx.Node:
        """The output node."""
        last: fx.Node = next(iter(reversed(self.graph.nodes)))
        return last


def capture(
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    public: Sequence[str],
    places: Sequence[str] = (),
) -> Draft:
    """Export a module in evaluation mode and split what its graph reads into arguments, weights and constants.

    Parameters and persistent floating-point buffers (8- to 32-bit integer ones too: quantised weights) are weights.
    Other buffers, tensors made in `forward` and arguments named in `public` are constants.
    """
    call = (tuple(args), _settle(module, kwargs))
    with _evaluating(module), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = _export(module, call)
        structure = describe(
            exported.call_spec.out_spec.unflatten(range(exported.call_spec.out_spec.num_leaves)), itertools.count()
        )
    draft = Draft(fx.Graph(), [], {}, {}, structure, _parameters(module), frozenset(places))
    leaves = _leaves(module, call)
    _check_public(public, leaves)
    replaced = _inputs(exported, draft, leaves, public)
    _body(exported, draft, replaced)
    return draft


def _export(module: torch.nn.Module, call: Call) -> torch.export.ExportedProgram:
    try:
        with quiet():
            exported = torch.export.export(module, tuple(call[0]), dict(call[1]), strict=False)
            return take_apart(exported.run_decompositions({}))
    except Exception as error:  # export fails in as many ways as models are written
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnsupportedOp(
            f"torch.export cannot capture {type(module).__name__} on this call: {reason}\n"
            "  ways out: no branches on values of tensors in forward, arguments as forward takes them, results that "
            "are tensors in tuples, lists, dicts or model outputs"
        ) from error


def _settle(module: torch.nn.Module, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A transformers model that would return its key-value cache, which is no tensor, is asked not to."""
    takes = inspect.signature(module.forward).parameters
    config = getattr(module, "config", None)
    caches = any(getattr(part, "use_cache", None) for part in (config, getattr(config, "text_config", None)))
    if caches and "use_cache" not in kwargs and _accepts(takes, "use_cache"):
        return {**kwargs, "use_cache": False}
    return dict(kwargs)


def _accepts(takes: Mapping[str, inspect.Parameter], name: str) -> bool:
    return name in takes or any(p.kind is p.VAR_KEYWORD for p in takes.values())


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    training = [m for m in module.modules() if m.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _parameters(module: torch.nn.Module) -> tuple[str, ...]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = inspect.signature(module.forward).parameters
    rest = [f"*{n}" for n, p in found.items() if p.kind is inspect.Parameter.VAR_POSITIONAL]
    return (*(n for n, p in found.items() if p.kind in kinds), *rest)


def _leaves(module: torch.nn.Module, call: Call) -> dict[tuple[str | int, ...], Any]:
    """Leaves of a call by path: parameter name first."""
    named = by_name(_parameters(module), call[0]) | dict(call[1])
    return {tuple(_key(k) for k in path): leaf for path, leaf in pytree.tree_flatten_with_path(named)[0]}


def _key(entry: Any) -> str | int:
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            key = getattr(entry, attribute)
            return key if isinstance(key, int) else str(key)
    return str(entry)


def _check_public(public: Sequence[str], leaves: Iterable[tuple[str | int, ...]]) -> None:
    known = {str(path[0]) for path in leaves}
    for name in public:
        if name not in known:
            raise ShapeError(f"public argument {name!r} is not among the call's arguments: {', '.join(sorted(known))}")


def _inputs(
    exported: torch.export.ExportedProgram,
    draft: Draft,
    leaves: Mapping[tuple[str | int, ...], Any],
    public: Sequence[str],
) -> dict[str, fx.Node]:
    """Create the new graph's sources: {placeholder name of the exported graph: node}."""
    paths = iter(leaves.items())
    sources: dict[str, fx.Node] = {}
    metas = {n.name: _shape(n) for n in exported.graph.nodes if n.op == "placeholder"}
    shared: dict[tuple[int, tuple[int, ...]], str] = {}
    for spec in exported.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            path, value = next(paths)
            if isinstance(value, Tensor):
                sources[spec.arg.name] = _argument(draft, path, value, str(path[0]) in public)
                sources[spec.arg.name].meta |= metas[spec.arg.name]
            continue
        if spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            raise UnsupportedOp(f"the module's graph takes an input of kind {spec.kind.name}, which has no rule")
        value = _held(exported, spec)
        place = (value.data_ptr(), tuple(value.stride())) if value.numel() > 1 else (id(spec), ())
        name = shared.setdefault(place, str(spec.target))  # tied weights are one weight
        draft.tensors[name], draft.owners[name] = value.detach(), _owner(spec, value)
        sources[spec.arg.name] = draft.graph.create_node("get_attr", name)
        sources[spec.arg.name].meta |= metas[spec.arg.name]
    return sources


def _argument(draft: Draft, path: tuple[str | int, ...], value: Tensor, public: bool) -> fx.Node:
    name = "_".join(map(str, path))
    if public:
        draft.tensors[name], draft.owners[name] = value.detach(), Visibility.PUBLIC
        return draft.graph.create_node("get_attr", name)
    draft.arguments.append(Argument(name, path, value.detach()))
    return draft.graph.create_node("placeholder", name, name=name)


def _held(exported: torch.export.ExportedProgram, spec: Any) -> Tensor:
    found: Tensor | None = exported.state_dict.get(spec.target)
    if found is None:
        found = exported.constants[spec.target]
    return found


def _owner(spec: Any, value: Tensor) -> Visibility:
    if spec.kind is InputKind.PARAMETER:
        return Visibility.WEIGHT
    if spec.kind is InputKind.CONSTANT_TENSOR:
        if value.is_floating_point() and value.numel() > 1:
            warnings.warn(
                f"tensor {spec.target!r} of the module is neither a parameter nor a buffer, so it becomes a public "
                "constant of the program; register it as a parameter or a persistent buffer if it is secret",
                HushWarning,
                stacklevel=2,
            )
        return Visibility.PUBLIC
    trained = value.is_floating_point() or value.dtype in _NARROW
    return Visibility.WEIGHT if spec.persistent and trained else Visibility.PUBLIC


def _body(exported: torch.export.ExportedProgram, draft: Draft, nodes: dict[str, fx.Node]) -> None:
    """Copy the calls and the output; kept are the result's leaves alone, not updates of buffers."""
    for node in exported.graph.nodes:
        if node.op == "call_function":
            copy = draft.graph.node_copy(node, lambda n: nodes[n.name])
            copy.meta = {LAYER: _layer(node), "stack_trace": node.meta.get("stack_trace", "")} | _shape(node)
            nodes[node.name] = copy
        elif node.op == "get_attr":
            raise UnsupportedOp(f"the module's graph holds a sub-graph ({node.target}): control flow has no rule")
    leaves: list[Any] = []
    for spec in exported.graph_signature.output_specs:
        if spec.kind is OutputKind.USER_OUTPUT:
            leaves.append(
                nodes[spec.arg.name]
                if hasattr(spec.arg, "name") and spec.arg.name in nodes
                else getattr(spec.arg, "value", None)
            )
    draft.graph.output(leaves)


def _shape(node: fx.Node) -> dict[str, Any]:
    value = node.meta.get("val")
    return {"shape": tuple(value.shape), "dtype": value.dtype} if isinstance(value, Tensor) else {}


def _layer(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(entry[0]) for entry in stack.values()]
    return paths[-1] if paths else ""


def placeholders_of(graph: fx.Graph) -> list[fx.Node]:
    """A graph's inputs, in order."""
    return [node for node in graph.nodes if node.op == "placeholder"]
