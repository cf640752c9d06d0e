"""What a program will cost, from running it under a protocol's cost model: no data, no messages."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from hush.mpc.compiler.execute import execute
from hush.mpc.compiler.generate import turn
from hush.mpc.compiler.program import Program
from hush.mpc.compiler.spec import InputSpec
from hush.mpc.compiler.types import Kind
from hush.mpc.cost import Cost, Tally, Traffic
from hush.mpc.functions.sampling import GREEDY, Choice
from hush.mpc.points import Points
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared


def predict(program: Program, model: Protocol) -> Program:
    """Set `program.cost` and `program.layer_costs` (a round counts to the earliest op under way). Returns it.

    Of a program that generates: its first turn, up to the token chosen greedily.
    """
    program.cost, program.layer_costs = foresee(program, model)
    return program


def foresee(
    program: Program, model: Protocol, *, held: int | None = None, choice: Choice = GREEDY, first: int = 0
) -> tuple[Cost, dict[str, Cost]]:
    """Cost in all and by layer: of an inference, of a first turn, or of a turn that goes on with `held` positions."""
    weights = blank_weights(program, model)
    inputs = blank_inputs(program.firsts[first], model)
    layer = ""

    def observe(name: str) -> None:
        nonlocal layer
        layer = name

    tally, before = Tally(), Cost()
    layers: dict[str, Cost] = {}

    def run() -> Iterable[Traffic]:
        if program.generation is None:
            return execute(program, model, weights, inputs, observe)
        state = None if held is None else _state(program.generation.then, model, held)
        return turn(program, model, weights, inputs, state, choice, observe, first)

    for traffic in run():
        now = tally.add(traffic).cost
        layers[layer] = _plus(layers.get(layer, Cost()), _minus(now, before))
        before = now
    return tally.cost, layers


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
