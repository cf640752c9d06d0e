"""What a program will cost, from running it under a protocol's cost model: no data, no messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from hush.mpc.compiler.execute import execute
from hush.mpc.compiler.generate import turn
from hush.mpc.compiler.probe import Place, named
from hush.mpc.compiler.program import Program
from hush.mpc.compiler.spec import InputSpec
from hush.mpc.compiler.types import Kind
from hush.mpc.cost import Cost, Tally, Traffic
from hush.mpc.functions.sampling import GREEDY, Choice
from hush.mpc.points import Points
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared


def predict(program: Program, model: Protocol) -> Program:
    """Set `program.cost`, `program.layer_costs` and `program.op_costs` (`Forecast`). Returns it.

    Of a program that generates: its first turn, up to the token chosen greedily.
    """
    found = foresee(program, model)
    program.cost, program.layer_costs, program.op_costs = found.cost, found.layers, found.ops
    return program


@dataclass(frozen=True, slots=True)
class Forecast:
    """Cost in all, by layer and by operator; each of the two adds up to the whole.

    A round counts to the earliest op under way, and to its layer. So do, of layers, all of its bytes; of operators only
    its messages and their headers: the payload is that of each operator that shares the round.
    """

    cost: Cost
    layers: dict[str, Cost]
    ops: dict[str, Cost]


def foresee(
    program: Program, model: Protocol, *, held: int | None = None, choice: Choice = GREEDY, first: int = 0
) -> Forecast:
    """What it will cost: an inference, a first turn, or a turn that goes on with `held` positions."""
    weights = blank_weights(program, model)
    inputs = blank_inputs(program.firsts[first], model)
    layer = ""

    def observe(name: str) -> None:
        nonlocal layer
        layer = name

    tally, before = Tally(), Cost()
    layers: dict[str, Cost] = {}
    ops = _Operators()

    def run() -> Iterable[Traffic]:
        if program.generation is None:
            return execute(program, model, weights, inputs, observe, ops)
        state = None if held is None else _state(program.generation.then, model, held)
        return turn(program, model, weights, inputs, state, choice, observe, first, ops)

    for traffic in run():
        now = tally.add(traffic).cost
        spent, before = _minus(now, before), now
        layers[layer] = _plus(layers.get(layer, Cost()), spent)
        ops.count(spent)
    return Forecast(tally.cost, layers, ops.costs)


@dataclass(slots=True)
class _Operators:
    """Divides each round among the operators that share it."""

    costs: dict[str, Cost] = field(default_factory=dict)
    _at: str = ""
    _parts: list[tuple[str, Traffic]] = field(default_factory=list)

    def enter(self, place: Place) -> None:
        """What follows is this operator's."""
        self._at, _ = named(place)

    def exchange(self, nodes: Sequence[fx.Node], parts: Sequence[Any]) -> None:
        """The round that comes is that of these operators."""
        self._parts = [(named(node)[0], part) for node, part in zip(nodes, parts, strict=True)]

    def count(self, spent: Cost) -> None:
        """What the round has cost in all."""
        first = self._parts[0][0] if self._parts else self._at
        for op, part in self._parts:
            own = Cost(0, tuple(map(sum, part.sent)))
            self._add(op, own)
            spent = _minus(spent, own)
        self._add(first, spent)
        self._parts = []

    def _add(self, op: str, spent: Cost) -> None:
        self.costs[op] = _plus(self.costs.get(op, Cost()), spent)


def blank_inputs(program: Program, model: Protocol) -> list[Shared | Points]:
    """A program's inputs without data, as its client deals them."""
    return [_input(model, spec) for spec in program.inputs if spec.dealt]


def _input(model: Protocol, spec: InputSpec) -> Shared | Points:
    if spec.kind is Kind.POINT:
        return Points((torch.empty((*spec.shape, 1), dtype=torch.uint8, device="meta"),), int(spec.bound))
    return _blank(model, spec.shared_shape, spec.frac)


def blank_weights(program: Program, model: Protocol) -> dict[str, Shared | torch.Tensor]:
    """A program's weights without data."""
    secret = program.weights_mode == "secret"
    return {
        spec.name: _blank(model, spec.shape, spec.frac) if secret else torch.zeros(()).expand(spec.shape)
        for spec in program.weight_specs
    }


def _state(then: Program, model: Protocol, held: int) -> dict[str, Shared]:
    return {spec.state: _blank(model, spec.shape_at(held), spec.frac) for spec in then.inputs if spec.state}


def _blank(model: Protocol, shape: tuple[int, ...], frac: int) -> Shared:
    return model.constant(torch.zeros(()), frac=frac).expand(*shape)


def _plus(a: Cost, b: Cost) -> Cost:
    return Cost(a.rounds + b.rounds, _each(a.bytes_sent, b.bytes_sent, 1), _each(a.messages, b.messages, 1))


def _minus(a: Cost, b: Cost) -> Cost:
    return Cost(a.rounds - b.rounds, _each(a.bytes_sent, b.bytes_sent, -1), _each(a.messages, b.messages, -1))


def _each(a: tuple[int, ...], b: tuple[int, ...], sign: int) -> tuple[int, ...]:
    return tuple(x + sign * y for x, y in zip(a, b, strict=True))
