"""What a program will cost, from running it under a protocol's cost model: no data, no messages."""

from __future__ import annotations

import torch

from hush.mpc.compiler.execute import execute
from hush.mpc.compiler.program import Program
from hush.mpc.cost import Cost, Tally
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared


def predict(program: Program, model: Protocol) -> Program:
    """Set `program.cost` and `program.layer_costs` (a round counts to the earliest op under way). Returns it."""
    inputs = [_blank(model, spec.shared_shape, spec.frac) for spec in program.inputs]
    weights: dict[str, Shared | torch.Tensor] = {}
    for spec in program.weight_specs:
        secret = program.weights_mode == "secret"
        weights[spec.name] = _blank(model, spec.shape, spec.frac) if secret else torch.zeros(()).expand(spec.shape)
    layer = ""

    def observe(name: str) -> None:
        nonlocal layer
        layer = name

    tally, before = Tally(), Cost()
    layers: dict[str, Cost] = {}
    for traffic in execute(program, model, weights, inputs, observe):
        now = tally.add(traffic).cost
        layers[layer] = _plus(layers.get(layer, Cost()), _minus(now, before))
        before = now
    program.cost, program.layer_costs = tally.cost, layers
    return program


def _blank(model: Protocol, shape: tuple[int, ...], frac: int) -> Shared:
    return model.constant(torch.zeros(()), frac=frac).expand(*shape)


def _plus(a: Cost, b: Cost) -> Cost:
    return Cost(a.rounds + b.rounds, _each(a.bytes_sent, b.bytes_sent, 1), _each(a.messages, b.messages, 1))


def _minus(a: Cost, b: Cost) -> Cost:
    return Cost(a.rounds - b.rounds, _each(a.bytes_sent, b.bytes_sent, -1), _each(a.messages, b.messages, -1))


def _each(a: tuple[int, int, int], b: tuple[int, int, int], sign: int) -> tuple[int, int, int]:
    return a[0] + sign * b[0], a[1] + sign * b[1], a[2] + sign * b[2]
