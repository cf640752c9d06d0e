"""Bytes by operator and primitive: they add up to the program's, and what is public sends nothing."""

from __future__ import annotations

import torch
from support.programs import compiled
from torch import nn

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
    items = itemise(program, ReplicatedCost(program.ring, program.frac))
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
