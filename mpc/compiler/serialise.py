"""Programs as bytes: protobuf, checked on the way in. Nothing in a file is ever executed or imported.

The digest is over the bytes, so two parties that hold the same digest hold the same program.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from google.protobuf.message import DecodeError
from torch import Tensor, fx

from hush.mpc.compiler.ops import op_name, op_target
from hush.mpc.compiler.program import Generation, Program, Recipe
from hush.mpc.compiler.rules import RULES
from hush.mpc.compiler.spec import InputSpec, OutputSpec, WeightSpec
from hush.mpc.compiler.types import LAYER, META, Kind, Type, Visibility, dtype_name, dtype_named
from hush.mpc.errors import ProgramError
from hush.mpc.ring import Ring
from hush.mpc.schedule import SCHEDULES
from hush.proto import program_pb2 as pb

VERSION = 1
MOST_BYTES = 256 << 20
MOST_NODES = 200_000
_MODES = ("secret", "public")
_REVEALS = ("token", "logits")


def dump(program: Program) -> bytes:
    """The program's bytes; the same program gives the same bytes."""
    return _message(program).SerializeToString(deterministic=True)


def _message(program: Program) -> pb.Program:
    message = pb.Program(
        version=VERSION,
        weights=program.weights_mode,
        approx=program.approx,
        schedule=program.schedule.name,
        frac=program.frac,
        ring=program.ring.bits,
        graph=_graph(program.graph, program.constants),
        recipe=_graph(program.recipe.graph, program.recipe.constants),
        structure=json.dumps(program.structure, separators=(",", ":")),
        parameters=list(program.parameters),
    )
    for spec in program.inputs:
        message.inputs.add(
            name=spec.name,
            kind=spec.kind,
            shape=spec.shape,
            dtype=spec.dtype,
            bound=spec.bound,
            frac=spec.frac,
            path=json.dumps(spec.path),
            state=spec.state,
            grows=0 if spec.grows is None else spec.grows + 1,
        )
    for out in program.outputs:
        message.outputs.append(_output(out))
    for weight in program.weight_specs:
        message.weight_specs.add(name=weight.name, shape=weight.shape, frac=weight.frac)
    if program.generation is not None:
        message.generation.then.CopyFrom(_message(program.generation.then))
        message.generation.context, message.generation.reveals = program.generation.context, program.generation.reveals
        message.generation.longer.extend(_message(part) for part in program.generation.longer)
    return message


def load(path: str | Path) -> Program:
    """A program from a file; ProgramError if it is none of ours."""
    file = Path(path)
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ProgramError(f"{file.name}: {file.stat().st_size} bytes, and a program has at most {MOST_BYTES}")
        data = file.read_bytes()
    except OSError as error:
        raise ProgramError(f"{file.name} cannot be read: {error.strerror}") from error
    return parse(data, file.name)


def parse(data: bytes, name: str = "program") -> Program:
    """A program from its bytes; ProgramError if they are none of ours."""
    if len(data) > MOST_BYTES:
        raise ProgramError(f"{name}: {len(data)} bytes, and a program has at most {MOST_BYTES}")
    try:
        message = pb.Program.FromString(data)
    except DecodeError as error:
        raise ProgramError(f"{name} is not a Hush program") from error
    if message.version != VERSION:
        raise ProgramError(
            f"{name} has format {message.version} and this Hush reads {VERSION}: compile the module again"
        )
    try:
        return _program(message, data)
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError, AttributeError) as error:
        raise ProgramError(f"{name} is damaged: {error}") from error


def _program(message: pb.Program, data: bytes) -> Program:
    if message.weights not in _MODES or not 0 < message.frac < message.ring:
        raise ValueError("weights, ring or fraction bits are out of range")
    graph, constants = _read_graph(message.graph, _secure_target)
    recipe, recipe_constants = _read_graph(message.recipe, _recipe_target)
    return Program(
        graph=graph,
        constants=constants,
        inputs=tuple(_read_input(m) for m in message.inputs),
        outputs=tuple(_read_output(m) for m in message.outputs),
        structure=json.loads(message.structure),
        weight_specs=tuple(WeightSpec(w.name, _read_shape(w.shape), w.frac) for w in message.weight_specs),
        recipe=Recipe(recipe, recipe_constants),
        parameters=tuple(message.parameters),
        weights_mode=message.weights,
        approx=message.approx,
        schedule=SCHEDULES[message.schedule],
        frac=message.frac,
        ring=Ring(message.ring),
        generation=_read_generation(message) if message.HasField("generation") else None,
        data=data,
    )


def _read_generation(message: pb.Program) -> Generation:
    """What follows a program, which must fit it: nothing that it takes may be missing when it runs."""
    found = message.generation
    others = (found.then, *found.longer)
    if any(m.HasField("generation") for m in others) or found.reveals not in _REVEALS or not found.context:
        raise ValueError("its generation is out of range")
    then, *longer = (_program(m, m.SerializeToString(deterministic=True)) for m in others)
    kept = [{out.keep for out in part.outputs if out.keep} for part in (message, *others)]
    needed = {spec.state for spec in then.inputs if spec.state}
    if any("logits" not in names or not needed - {"token"} <= names for names in kept):
        raise ValueError("it does not keep what its next turn takes")
    if any(spec.dealt for spec in then.inputs) or any(spec.state for part in longer for spec in part.inputs):
        raise ValueError("a turn takes what nobody gives")
    weights = {(w.name, tuple(w.shape), w.frac) for w in message.weight_specs}
    for other, part in zip(others, (then, *longer), strict=True):
        same = all(getattr(other, name) == getattr(message, name) for name in ("weights", "frac", "ring", "schedule"))
        if not same or not {(w.name, w.shape, w.frac) for w in part.weight_specs} <= weights:
            raise ValueError("one of its turns has other weights")
    return Generation(then, found.context, found.reveals, tuple(longer))


# ---------------------------------------------------------------------- tensors and values
def _tensor(value: Tensor) -> pb.Tensor:
    plain = value.detach().cpu().contiguous()
    return pb.Tensor(
        dtype=dtype_name(plain.dtype),
        shape=list(plain.shape),
        data=plain.reshape(-1).view(torch.uint8).numpy().tobytes(),
    )


def _read_tensor(message: pb.Tensor) -> Tensor:
    """A tensor of exactly the bytes that are there: one made larger would show what its memory held before."""
    dtype, shape = dtype_named(message.dtype), _read_shape(message.shape)
    if len(message.data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"a tensor of shape {shape} and {message.dtype} has {len(message.data)} bytes of data")
    if not message.data:
        return torch.zeros(shape, dtype=dtype)
    return torch.from_numpy(np.frombuffer(bytearray(message.data), dtype=np.uint8)).view(dtype).reshape(shape)


def _read_shape(sizes: Iterable[int]) -> tuple[int, ...]:
    """Sizes of a tensor's dimensions: a negative one would pass for the complement of others."""
    shape = tuple(sizes)
    if any(size < 0 for size in shape):
        raise ValueError(f"a shape of {shape}")
    return shape


def _value(value: Any, place: Mapping[fx.Node, int]) -> pb.Value:
    if isinstance(value, fx.Node):
        return pb.Value(node=place[value])
    if value is None:
        return pb.Value(none=True)
    if isinstance(value, bool):
        return pb.Value(flag=value)
    if isinstance(value, int):
        return pb.Value(integer=value)
    if isinstance(value, float):
        return pb.Value(real=value)
    if isinstance(value, str):
        return pb.Value(text=value)
    if isinstance(value, torch.dtype):
        return pb.Value(dtype=dtype_name(value))
    if isinstance(value, list | tuple):
        return pb.Value(list=pb.Values(items=[_value(v, place) for v in value]))
    if isinstance(value, torch.device | torch.layout | torch.memory_format):
        return pb.Value(none=True)
    raise ProgramError(f"a program cannot hold an argument of type {type(value).__name__}")


def _read_value(message: pb.Value, nodes: list[fx.Node], depth: int = 0) -> Any:
    kind = message.WhichOneof("kind")
    if depth > 8 or kind is None:
        raise ValueError("an argument is missing or nested too deeply")
    if kind == "node":
        return nodes[message.node]
    if kind == "none":
        return None
    if kind == "list":
        return [_read_value(v, nodes, depth + 1) for v in message.list.items]
    return dtype_named(message.dtype) if kind == "dtype" else getattr(message, kind)


# ---------------------------------------------------------------------- graphs
def _graph(graph: fx.Graph, constants: Mapping[str, Tensor]) -> pb.Graph:
    place = {node: i for i, node in enumerate(graph.nodes)}
    message = pb.Graph()
    for node in graph.nodes:
        entry = message.nodes.add(name=node.name, op=node.op, layer=str(node.meta.get(LAYER, "")))
        entry.target = op_name(node.target)
        entry.args.extend(_value(a, place) for a in node.args)
        for name, value in node.kwargs.items():
            if name not in ("device", "pin_memory", "layout", "memory_format"):
                entry.kwargs.add(name=name, value=_value(value, place))
        if META in node.meta:
            entry.type.CopyFrom(_type(node.meta[META]))
    for name in sorted(constants):
        message.constants.add(name=name, value=_tensor(constants[name]))
    return message


def _read_graph(message: pb.Graph, target: Callable[[str], Any]) -> tuple[fx.Graph, dict[str, Tensor]]:
    if len(message.nodes) > MOST_NODES:
        raise ValueError(f"{len(message.nodes)} nodes, and {MOST_NODES} is the most")
    graph, nodes = fx.Graph(), list[fx.Node]()
    for entry in message.nodes:
        args = tuple(_read_value(a, nodes) for a in entry.args)
        kwargs = {k.name: _read_value(k.value, nodes) for k in entry.kwargs}
        if entry.op == "call_function":
            node = graph.create_node("call_function", target(entry.target), args, kwargs, name=entry.name)
        elif entry.op in ("placeholder", "get_attr"):
            node = graph.create_node(entry.op, entry.target, name=entry.name)
        elif entry.op == "output":
            node = graph.output(args[0])
        else:
            raise ValueError(f"{entry.op!r} is no kind of node")
        node.meta[LAYER] = entry.layer
        if entry.HasField("type"):
            node.meta[META] = _read_type(entry.type)
        nodes.append(node)
    if not nodes or nodes[-1].op != "output":
        raise ValueError("a graph must end in its output")
    return graph, {c.name: _read_tensor(c.value) for c in message.constants}


def _secure_target(name: str) -> Any:
    if name not in RULES:
        raise ValueError(f"op {name!r} has no rule here")
    return op_target(name)


def _recipe_target(name: str) -> Any:
    """Ops a provider may be asked to evaluate: functions of tensors, nothing that writes or reads elsewhere."""
    target = op_target(name)
    schema = getattr(target, "_schema", None)
    if schema is not None:
        takes_tensor = any("Tensor" in str(a.type) for a in schema.arguments)
        if schema.is_mutable or not takes_tensor:
            raise ValueError(f"op {name!r} is no pure function of tensors")
    return target


def _type(typed: Type) -> pb.Type:
    return pb.Type(
        visibility=int(typed.visibility),
        kind=typed.kind,
        shape=typed.shape,
        dtype=typed.dtype,
        bound=typed.bound,
        frac=typed.frac,
        ring=typed.ring,
        proven=typed.proven,
        floor=typed.floor,
    )


def _read_type(m: pb.Type) -> Type:
    return Type(
        Visibility(m.visibility),
        Kind(m.kind),
        _read_shape(m.shape),
        m.dtype,
        m.bound,
        m.frac,
        m.ring,
        m.proven,
        m.floor,
    )


# ---------------------------------------------------------------------- specs
def _read_input(m: pb.Input) -> InputSpec:
    shape, grows = _read_shape(m.shape), m.grows - 1 if m.grows else None
    if grows is not None and grows >= len(shape):
        raise ValueError("an input grows in a dimension that it does not have")
    return InputSpec(m.name, Kind(m.kind), shape, m.dtype, m.bound, m.frac, tuple(json.loads(m.path)), m.state, grows)


def _output(spec: OutputSpec) -> pb.Output:
    message = pb.Output(kind=spec.kind or "known", shape=spec.shape, dtype=spec.dtype, frac=spec.frac, keep=spec.keep)
    if spec.kind is None:
        if isinstance(spec.literal, Tensor):
            message.constant.CopyFrom(_tensor(spec.literal))
        else:
            message.literal.CopyFrom(_value(spec.literal, {}))
    return message


def _read_output(m: pb.Output) -> OutputSpec:
    if m.kind != "known":
        return OutputSpec(Kind(m.kind), _read_shape(m.shape), m.dtype, m.frac, keep=m.keep)
    literal = _read_tensor(m.constant) if m.HasField("constant") else _read_value(m.literal, [])
    return OutputSpec(None, _read_shape(m.shape), m.dtype, m.frac, literal, m.keep)
