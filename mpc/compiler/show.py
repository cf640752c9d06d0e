"""Programs for reading: what goes in and out, what each layer holds and costs, and the typed graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import fx

from hush.mpc.compiler.execute import group_of
from hush.mpc.compiler.ops import op_name
from hush.mpc.compiler.types import META, Visibility, layer_of, type_of

if TYPE_CHECKING:
    from hush.mpc.compiler.program import Program


def show(program: Program) -> str:
    """Head, inputs, weights, layers, operators and passes."""
    lines = [
        f"program {program.digest[:16]}  ring 2^{program.ring.bits}  {program.frac} fraction bits  "
        f"{program.weights_mode} weights  approximations: {program.approx}  schedule: {program.schedule.name}"
    ]
    for spec in program.inputs:
        lines.append(f"  input   {spec.name}: {spec.kind} {list(spec.shape)} {_limit(spec.kind, spec.bound)}")
    for index, out in enumerate(program.outputs):
        what = f"{out.kind} {list(out.shape)} {out.dtype}" if out.kind else f"known: {_brief(out.literal)}"
        lines.append(f"  output  {index}: {what}")
    count = sum(_numel(w.shape) for w in program.weight_specs)
    lines.append(f"  weights {len(program.weight_specs)} tensors, {count:,} numbers")
    lines.append(
        f"  leakage {len(leakage(program))} calibrated magnitudes, as powers of two (hush.mpc.compiler.leakage)"
    )
    tables = [*_layers(program), *_operators(program)]
    return "\n".join([*lines, *tables, *(f"  pass    {line}" for line in program.passes)])


def listing(program: Program) -> str:
    """The typed graph, a line per op."""
    return "\n".join(_line(node) for node in program.graph.nodes)


def leakage(program: Program) -> dict[str, float]:
    """What a program declares to leak beside its shapes: calibrated magnitudes by input, weight and op, powers of two.

    `name (at least)` is a calibrated smallest magnitude, which roots, logarithms and divisions rely on.
    """
    found: dict[str, float] = {}
    for node in program.graph.nodes:
        typed = node.meta.get(META)
        if typed is None or typed.visibility is Visibility.PUBLIC:
            continue
        if not typed.proven:
            found[node.name] = typed.bound
        if typed.floor:
            found[f"{node.name} (at least)"] = typed.floor
    return found


def _line(node: fx.Node) -> str:
    if node.op == "output":
        return f"return {node.args[0]}"
    name = op_name(node.target) if node.op == "call_function" else f"{node.op} {node.target}"
    text = f"%{node.name} = {name}"
    if node.op == "call_function":
        text += "(" + ", ".join(map(_argument, node.args)) + ")"
    typed = f" : {type_of(node)}" if META in node.meta else ""
    return f"{text}{typed}" + (f"  [{layer_of(node)}]" if layer_of(node) else "")


def _argument(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_argument, value)) + "]"
    return f"%{value.name}" if isinstance(value, fx.Node) else str(value)


def _layers(program: Program) -> list[str]:
    counts: dict[str, int] = {}
    for node in program.graph.nodes:
        if node.op == "call_function" and type_of(node).visibility is Visibility.SECRET:
            layer = group_of(layer_of(node))
            counts[layer] = counts.get(layer, 0) + 1
    lines = [f"  {'layer':32} {'ops':>5} {'rounds':>7} {'MB/party':>9}"]
    for layer, count in counts.items():
        cost = program.layer_costs.get(layer)
        spent = f"{cost.rounds:7} {sum(cost.bytes_sent) / 3e6:9.3f}" if cost else f"{'-':>7} {'-':>9}"
        lines.append(f"  {layer[:32]:32} {count:5} {spent}")
    if program.cost is not None:
        total = program.cost
        lines.append(f"  {'all':32} {sum(counts.values()):5} {total.rounds:7} {sum(total.bytes_sent) / 3e6:9.3f}")
    return lines


def _operators(program: Program) -> list[str]:
    """What each operator costs, in all layers: most bytes first. The sums are the program's."""
    counts: dict[str, int] = {}
    for node in program.graph.nodes:
        if node.op == "call_function":
            counts[op_name(node.target)] = counts.get(op_name(node.target), 0) + 1
    lines = [f"  {'operator':32} {'ops':>5} {'rounds':>7} {'MB/party':>9}"] if program.op_costs else []
    for op, cost in sorted(program.op_costs.items(), key=lambda pair: -sum(pair[1].bytes_sent)):
        lines.append(f"  {op[:32]:32} {counts.get(op, ''):5} {cost.rounds:7} {sum(cost.bytes_sent) / 3e6:9.3f}")
    return lines


def _limit(kind: str, bound: float) -> str:
    return f"of {int(bound)} classes" if kind == "onehot" else f"|x| <= {bound:g}"


def _brief(value: object) -> str:
    shape = getattr(value, "shape", None)
    return repr(value) if shape is None else f"tensor {list(shape)}"


def _numel(shape: tuple[int, ...]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count
