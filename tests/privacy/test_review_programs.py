"""A program is somebody else's data: reading one gives no more than its bytes say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from hush.mpc.compiler import compile_module, parse
from hush.mpc.errors import ProgramError
from hush.proto import program_pb2 as pb


class _Shifted(nn.Module):
    shift: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.arange(64.0) / 64, persistent=False)
        self.inner = nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x + self.shift)


def _message() -> pb.Program:
    return pb.Program.FromString(compile_module(_Shifted(), (torch.linspace(-1, 1, 128).reshape(2, 64),)).data)


def _constant(message: pb.Program) -> pb.Tensor:
    return next(c.value for c in message.graph.constants if list(c.value.shape) == [64])


def _no_bytes(message: pb.Program) -> None:
    _constant(message).data = b""


def _too_few(message: pb.Program) -> None:
    _constant(message).shape[:] = [65]


def _two_negatives(message: pb.Program) -> None:
    _constant(message).shape[:] = [-8, -8]


def _negative_weight(message: pb.Program) -> None:
    message.weight_specs[0].shape[:] = [-64, 4]


def _negative_input(message: pb.Program) -> None:
    message.inputs[0].shape[:] = [-2, 64]


def _negative_output(message: pb.Program) -> None:
    message.outputs[0].shape[:] = [2, -4]


def test_the_program_itself_is_read() -> None:
    message = _message()
    assert parse(message.SerializeToString(deterministic=True)).constants


@pytest.mark.parametrize(
    "damage", [_no_bytes, _too_few, _two_negatives, _negative_weight, _negative_input, _negative_output]
)
def test_a_shape_that_its_bytes_do_not_fill_is_refused(damage: Callable[[pb.Program], None]) -> None:
    """A constant without its bytes would hold whatever the party's memory held before, other clients' shares among
    it, and the program's output would carry that to whoever asks for it."""
    message = _message()
    damage(message)
    with pytest.raises(ProgramError):
        parse(message.SerializeToString())


class _Layers(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.norm, self.second = nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 4)
        self.batch = nn.BatchNorm1d(16)
        self.batch.running_var.uniform_(0.6, 0.9)  # type: ignore[union-attr]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.gelu(self.norm(self.batch(self.first(x))))
        return torch.softmax(self.second(hidden) / self.norm.weight[0], -1)


def _layers(change: Callable[[str, torch.Tensor], torch.Tensor]) -> pb.Program:
    module = _Layers(0)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.is_floating_point():
                value.copy_(change(name, value))
    return pb.Program.FromString(compile_module(module, (torch.linspace(-1, 1, 48).reshape(3, 16),)).data)


def test_a_program_tells_powers_of_two_of_its_weights_and_nothing_finer() -> None:
    """Weights that differ in every digit but in no power of two make the same bytes."""
    programs = [_layers(lambda name, value, by=by: value * by) for by in (0.97, 0.9701, 0.9717)]  # type: ignore[misc]
    assert len({p.SerializeToString(deterministic=True) for p in programs}) == 1


def test_no_special_value_of_a_weight_changes_a_program_s_shape() -> None:
    """Zeros, ones and repeated values of weights fold nothing: only bounds, which are declared, may differ."""

    def plain(name: str, value: torch.Tensor) -> torch.Tensor:
        return value

    def special(name: str, value: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(value) if name.endswith("bias") else torch.ones_like(value)

    seen = []
    for change in (plain, special):
        program = _layers(change)
        for node in [*program.graph.nodes, *program.recipe.nodes]:
            node.ClearField("type")
        for spec in (*program.inputs, *program.outputs):
            spec.ClearField("frac")
        seen.append(program.SerializeToString(deterministic=True))
    assert seen[0] == seen[1]
