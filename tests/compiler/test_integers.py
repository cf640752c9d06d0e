"""Secret integers: ids as one-hot rows, bits and values, and the rules that models use on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.programs import check, compiled, largest_error, run_fixed
from torch import Tensor, nn

from hush.mpc.compiler import Kind, compile_module
from hush.mpc.errors import RangeError, ShapeError, UnsupportedOp

IDS = torch.tensor([[1, 7, 3, 0], [9, 9, 2, 4]])


class Ids(nn.Module):
    """A function of ids and of an embedding."""

    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        self.body = body
        torch.manual_seed(0)
        self.table = nn.Embedding(10, 5)
        self.places = nn.Embedding(8, 5)

    def forward(self, ids: Tensor) -> Any:
        return self.body(self, ids)


def _roberta_places(m: Ids, ids: Tensor) -> Tensor:
    """HF RoBERTa: positions count the tokens that are no padding."""
    real = ids.ne(1).int()
    return m.table(ids) + m.places((torch.cumsum(real, 1).type_as(real) * real).long() + 1)


def _clip_end(m: Ids, ids: Tensor) -> Tensor:
    """HF CLIP: the state at the first place of the end token."""
    states = m.table(ids)
    return states[torch.arange(ids.shape[0]), (ids == 9).int().argmax(-1)]


ONE_HOT: dict[str, Callable[..., Any]] = {
    "embedding": lambda m, ids: m.table(ids.view(-1, 4)[:, :3]),
    "roberta positions": _roberta_places,
    "clip end": _clip_end,
    "comparisons": lambda m, ids: (m.table(ids), ids == 9, ids.ne(0), ids < 3, ids >= 4, ids.gt(2), ids <= 7),
    "arithmetic": lambda m, ids: (m.table(ids), ids * 2 + 1, ids.sum(1), ids - ids.flip(1)),
    "mask": lambda m, ids: (m.table(ids) * (ids != 0).unsqueeze(-1)).sum(1) / (ids != 0).sum(1, keepdim=True),
    "largest": lambda m, ids: (m.table(ids), m.table(ids).argmax(-1), ids.argmax(-1), ids.amax(-1)),
}


@pytest.mark.parametrize("name", ONE_HOT)
def test_one_hot_ids(name: str) -> None:
    module = Ids(ONE_HOT[name])
    program = compiled(module, (IDS,))
    assert program.inputs[0].kind is Kind.ONEHOT
    assert program.inputs[0].shared_shape == (2, 4, 10)
    for ids in (IDS, torch.tensor([[0, 0, 9, 1], [5, 6, 7, 8]])):
        with torch.no_grad():
            plain = module(ids)
        assert largest_error(run_fixed(program, (ids,)), plain) <= 1e-4


@pytest.mark.parametrize("name", ONE_HOT)
def test_the_same_by_keys(name: str) -> None:
    module = Ids(ONE_HOT[name])
    program = compiled(module, (IDS,), lookup="dpf")
    assert program.inputs[0].kind is Kind.POINT
    for ids in (IDS, torch.tensor([[0, 0, 9, 1], [5, 6, 7, 8]])):
        with torch.no_grad():
            plain = module(ids)
        assert largest_error(run_fixed(program, (ids,)), plain) <= 1e-4


@pytest.mark.parametrize("lookup", ["onehot", "dpf"])
@pytest.mark.parametrize("name", ["roberta positions", "clip end"])
def test_on_shares_at_the_predicted_cost(name: str, lookup: str) -> None:
    check(Ids(ONE_HOT[name]), (IDS,), bound=1e-4, lookup=lookup)


class Values(nn.Module):
    """Integers and bits that look nothing up."""

    def forward(self, x: Tensor, counts: Tensor, bits: Tensor) -> Any:
        real = bits & (counts > 0)
        return {
            "eq": counts == counts.flip(0),
            "ne": counts != 2,
            "logic": (real | ~bits, real.logical_not()),
            "where": torch.where(bits, x, torch.zeros(())),
            "filled": x.masked_fill(~bits, 7.0),
            "chosen": torch.where(counts > 1, counts, -counts),
            "weighted": x * counts,
            "cumsum": counts.cumsum(0),
            "any": real.any(),
        }


def test_integers_and_bits_by_value() -> None:
    x = torch.randn(4, generator=torch.Generator().manual_seed(2))
    counts, bits = torch.tensor([0, 3, 2, 1]), torch.tensor([True, False, True, True])
    program = check(Values(), (x, counts, bits), bound=1e-4)
    assert [s.kind for s in program.inputs] == [Kind.REAL, Kind.INT, Kind.BOOL]


def test_secret_gather_and_index() -> None:
    class Gather(nn.Module):
        def forward(self, x: Tensor, places: Tensor) -> Any:
            return x.gather(1, places), x[places[0]], x[torch.arange(3), places[:, 0]]

    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    check(Gather(), (x, torch.tensor([[0, 2], [1, 2], [2, 0]])), bound=1e-4)


def test_zeros_and_ones_are_bits_unless_a_range_says_otherwise() -> None:
    class Scale(nn.Module):
        def forward(self, x: Tensor, n: Tensor) -> Tensor:
            return x * n

    args = (torch.ones(2), torch.tensor([0, 1]))
    program = compile_module(Scale(), args)
    assert program.inputs[1].kind is Kind.BOOL
    with pytest.raises(RangeError, match=r"'n'.*0\.\.1"):
        program.encode_inputs((torch.ones(2), torch.tensor([0, 2])))
    wide = compile_module(Scale(), args, ranges={"n": 8})
    assert wide.inputs[1].kind is Kind.INT
    assert torch.equal(run_fixed(wide, (torch.ones(2), torch.tensor([5, -8]))), torch.tensor([5.0, -8.0]))


def test_ids_outside_the_vocabulary_are_refused() -> None:
    program = compile_module(Ids(ONE_HOT["embedding"]), (IDS,))
    for bad in (torch.full_like(IDS, 10), torch.full_like(IDS, -1)):
        with pytest.raises(RangeError, match="vocabulary"):
            program.encode_inputs((bad,))
    with pytest.raises(ShapeError, match="dtype"):
        program.encode_inputs((IDS.float(),))


def test_numbers_are_true_where_they_are_not_zero() -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor, counts: Tensor, bits: Tensor) -> Any:
            chosen = torch.where(torch.logical_and(counts, bits), x, -x)
            return chosen, counts.logical_or(bits), counts.logical_xor(x > 0), counts.logical_not(), bits ^ (x > 0)

    args = (torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0, -2, 3]), torch.tensor([True, True, False]))
    check(Both(), args, bound=1e-4)


def test_logic_of_the_bits_of_secret_numbers_is_refused() -> None:
    """As a product of numbers it would give 9 where torch gives 3."""

    class Bits(nn.Module):
        def forward(self, counts: Tensor, other: Tensor) -> Tensor:
            return counts & other

    with pytest.raises(UnsupportedOp, match="truth values"):
        compile_module(Bits(), (torch.tensor([0, 2, 3]), torch.tensor([3, 1, 3])))


def test_rounding_a_secret_real_is_refused() -> None:
    class Round(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.long()

    with pytest.raises(UnsupportedOp, match="integer"):
        compiled(Round(), (torch.ones(2),))
