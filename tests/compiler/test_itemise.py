"""Bytes by operator and primitive: they add up to the program's, and what is public sends nothing."""

from __future__ import annotations

import torch
from support.decoder import CONTEXT, Decoder, Next, Prefill
from support.programs import compiled
from torch import nn

from hush.mpc.compiler import compile_generator, predict
from hush.mpc.compiler.generate import CHOICE
from hush.mpc.compiler.itemise import by_operator, itemise
from hush.mpc.cost import FRAME_HEADER
from hush.protocols.replicated.cost import ReplicatedCost


class Block(nn.Module):
    """A linear layer, GELU and a norm over what went in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.up, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + torch.nn.functional.gelu(self.up(x)))


def test_items_add_up_to_the_program() -> None:
    program = compiled(Block(), (torch.randn(3, 8),))
    items = itemise(program, ReplicatedCost(program.ring, program.frac, program.schedule))
    assert program.cost is not None
    for party in range(3):
        payload = program.cost.bytes_sent[party] - FRAME_HEADER * program.cost.messages[party]
        assert sum(item.bytes_sent[party] for item in items) == payload
    grouped = by_operator(items)
    assert set(grouped) == {"hush.affine", "aten.gelu.default", "aten.layer_norm.default"}
    assert {item.primitive for item in grouped["hush.affine"]} == {"matmul"}
    assert {"mul", "below", "select_sum"} == {item.primitive for item in grouped["aten.gelu.default"]}
    assert sum(item.exchanges for item in items) >= program.cost.rounds


def test_operators_with_the_most_bytes_come_first() -> None:
    program = compiled(Block(), (torch.randn(3, 8),))
    sums = [sum(sum(i.bytes_sent) for i in own) for own in by_operator(itemise(program, ReplicatedCost())).values()]
    assert sums == sorted(sums, reverse=True)


def test_operators_add_up_to_the_program_to_the_byte() -> None:
    program = compiled(Block(), (torch.randn(3, 8),))
    assert program.cost is not None
    costs = program.op_costs
    assert set(costs) == {"hush.affine", "aten.gelu.default", "aten.layer_norm.default"}
    assert sum(c.rounds for c in costs.values()) == program.cost.rounds
    for key in ("bytes_sent", "messages"):
        sums = [sum(column) for column in zip(*(getattr(c, key) for c in costs.values()), strict=True)]
        assert tuple(sums) == getattr(program.cost, key)


class Two(nn.Module):
    """Two independent ops of different lengths, which share rounds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.first(x), torch.nn.functional.gelu(x)


def test_of_a_shared_round_each_operator_has_its_own_bytes() -> None:
    program = compiled(Two(), (torch.randn(3, 8),))
    grouped = by_operator(itemise(program, ReplicatedCost(program.ring, program.frac, program.schedule)))
    for op, cost in program.op_costs.items():
        for party in range(3):
            payload = cost.bytes_sent[party] - FRAME_HEADER * cost.messages[party]
            assert payload == sum(item.bytes_sent[party] for item in grouped[op])
    both = program.op_costs["hush.affine"], program.op_costs["aten.gelu.default"]
    assert min(cost.rounds for cost in both) > 0
    assert program.cost is not None
    assert sum(cost.rounds for cost in both) == program.cost.rounds


def test_the_page_of_a_program_lists_its_operators() -> None:
    program = compiled(Block(), (torch.randn(3, 8),))
    rows = {line.split()[0]: line.split()[1:] for line in str(program).splitlines() if line.startswith("  ")}
    for op, cost in program.op_costs.items():
        assert rows[op][-2:] == [str(cost.rounds), f"{sum(cost.bytes_sent) / 3e6:.3f}"]


def test_choosing_a_token_is_an_operator_of_its_own() -> None:
    torch.manual_seed(0)
    net = Decoder()
    program = compile_generator(Prefill(net), Next(net), (torch.tensor([[3, 1, 4, 1]]),), context=CONTEXT)
    predict(program, ReplicatedCost(program.ring, program.frac, program.schedule))
    assert program.op_costs[CHOICE] == program.layer_costs[CHOICE]
    assert program.cost is not None
    assert sum(c.rounds for c in program.op_costs.values()) == program.cost.rounds
    sums = [sum(column) for column in zip(*(c.bytes_sent for c in program.op_costs.values()), strict=True)]
    assert tuple(sums) == program.cost.bytes_sent
    assert all(min(c.bytes_sent) >= 0 for c in program.op_costs.values())
