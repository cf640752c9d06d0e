"""Programs under the schedule of a slow network: the same values, fewer rounds, more bytes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.programs import check, compiled
from support.trio import Trio
from torch import Tensor, nn

from benchmarks.peers.workloads import named
from hush import api
from hush.mpc.compiler import Program, compile_module, scheduled
from hush.mpc.compiler.serialise import dump, parse
from hush.mpc.errors import ProgramError, UserError
from hush.mpc.functions.contest import largest
from hush.mpc.functions.normalise import normalise
from hush.mpc.ring import RING64, Ring
from hush.mpc.schedule import LAN, WAN
from hush.parties.cost import predicted
from hush.proto import program_pb2 as pb


class Layer(nn.Module):
    """A transformer layer of a width and as many heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.inner = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, width] -> the same."""
        y: Tensor = self.inner(x)
        return y


def _call(tokens: int, width: int) -> tuple[Tensor]:
    return (torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(4)),)


def _wan_seconds(program: Program) -> float:
    """Half a round trip for a round, half of a party's bytes over each of its two links."""
    cost = predicted(program)
    return cost.rounds * 0.02 + max(cost.bytes_sent) * 8 / 2 / 400e6


@pytest.mark.parametrize("schedule", ["lan", "wan"])
def test_a_layer_is_right_and_costs_what_is_predicted(schedule: str) -> None:
    program = check(Layer(16, 2), _call(40, 16), bound=4e-3, schedule=schedule)
    assert program.schedule.name == schedule


def test_wan_takes_fewer_rounds_more_bytes_and_less_time() -> None:
    """Of a layer of BERT base at 128 tokens."""
    lan = compiled(Layer(768, 12), _call(128, 768))
    wan = scheduled(lan, "wan")
    near, far = predicted(scheduled(lan, "lan")), predicted(wan)
    assert far.rounds < near.rounds
    assert sum(far.bytes_sent) > sum(near.bytes_sent)
    assert _wan_seconds(wan) < _wan_seconds(lan)


def test_wan_takes_half_of_the_rounds_of_berts_encoder() -> None:
    """The peers' workload, four layers of it at 128 tokens; over the modelled network in two thirds of the time."""
    work = named("bert12")
    work.module.layers = work.module.layers[:4]
    lan = api.compile(work.module, work.args, work.kwargs)
    wan = scheduled(lan, "wan")
    assert 2 * predicted(wan).rounds <= predicted(lan).rounds
    assert _wan_seconds(wan) < 2 / 3 * _wan_seconds(lan)


def test_the_schedule_is_part_of_the_program() -> None:
    lan = compile_module(nn.Sequential(nn.Linear(4, 4), nn.GELU()).eval(), (torch.randn(2, 4),))
    wan = scheduled(lan, "wan")
    assert (lan.schedule, wan.schedule) == (LAN, WAN)
    assert lan.digest != wan.digest
    assert parse(dump(wan)).schedule == WAN
    assert scheduled(wan, "lan").digest == lan.digest
    assert wan.weights is lan.weights
    assert "schedule: wan" in str(wan)


def test_unknown_schedules_are_refused() -> None:
    module, call = nn.Linear(4, 4), (torch.randn(2, 4),)
    with pytest.raises(UserError, match="'moon': say one of lan, wan"):
        api.compile(module, call, schedule="moon")
    message = pb.Program.FromString(compile_module(module, call).data)
    message.schedule = "moon"
    with pytest.raises(ProgramError, match="damaged"):
        parse(message.SerializeToString(deterministic=True))


def _negative(p: Any, x: Any) -> Any:
    return p.negative(x, bound=100.0)


def _bits(p: Any, x: Any) -> Any:
    return p.to_bits(x, planes=60)


def _scale(p: Any, x: Any) -> Any:
    return _mantissa((yield from normalise(p, x, bound=100.0, floor=0.1)))


def _mantissa(found: Any) -> Any:
    return found.signed_mantissa


@pytest.mark.parametrize("program", [_negative, _bits, _scale])
@pytest.mark.parametrize("numel", [1, 70, 500])
def test_steps_measure_what_is_predicted_and_take_no_more_rounds(program: Any, numel: int) -> None:
    rounds = []
    for schedule in (LAN, WAN):
        trio = Trio(schedule=schedule)
        x = trio.share(torch.linspace(0.5, 90.0, numel))
        trio.run(program, x)
        assert trio.traffic == trio.predict(program, x)
        rounds.append(len(trio.traffic))
    assert rounds[1] <= rounds[0]


def test_wide_digits_compare_right() -> None:
    """Digits of 8 bits are dealt: signs of all numbers near 0 and at both ends."""
    trio = Trio(schedule=WAN)
    x = torch.cat([torch.arange(-300, 300), torch.tensor([-(2**16), 2**16 - 1])]) / 2.0**9
    found = trio.run(lambda p, a: p.negative(a, bound=128.0), trio.share(x, frac=9, ring=Ring(18)))
    bits = trio.reveal_bits(found)
    assert torch.equal(bits.reshape(-1).bool(), x < 0)


def test_rows_meet_in_fours() -> None:
    trio = Trio(schedule=WAN)
    x = torch.randint(-64, 64, (3, 130), generator=torch.Generator().manual_seed(1)) / 8.0
    found = trio.run(lambda p, a: largest(p, a, bound=8.0, drop=0), trio.share(x, frac=3, ring=RING64))
    assert torch.equal(trio.reveal(found), x.amax(-1, keepdim=True).double())
