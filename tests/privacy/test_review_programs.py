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
