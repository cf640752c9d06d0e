"""Attention in programs: what the passes make of it, that it costs no more, and that a step runs at any length."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.programs import check, compiled, finish, largest_error
from torch import Tensor, nn

from hush.mpc.compiler import Program, execute, leakage
from hush.mpc.compiler.ops import op_name
from hush.mpc.compiler.types import type_of
from hush.mpc.cost import Cost
from hush.mpc.functions import chunks, tiles
from hush.protocols.fixed import Fixed


def _randn(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _ops(program: Program) -> list[str]:
    return [op_name(n.target) for n in program.graph.nodes if n.op == "call_function"]


class Attention(nn.Module):
    """Attention with a secret padding mask, a weight for each head and distance, both, or neither; causal or not."""

    def __init__(self, *, causal: bool = False, padded: bool = False, biased: bool = False) -> None:
        super().__init__()
        self.causal, self.padded = causal, padded
        self.bias = nn.Parameter(_randn(3, 12, 12)) if biased else None

    def forward(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
        scores = q @ k.transpose(-1, -2) / 2
        if self.bias is not None:
            scores = scores + self.bias
        if self.causal:
            scores = scores + torch.full(scores.shape[-2:], -torch.inf).triu(1)
        if self.padded:
            scores = torch.where(keep, 0.0, -torch.inf)[:, None, None, :] + scores
        return scores.softmax(-1) @ v


KINDS: dict[str, dict[str, bool]] = {
    "plain": {},
    "causal": {"causal": True},
    "padded": {"padded": True},
    "all": {"causal": True, "padded": True, "biased": True},
}


def _call(width: int = 5) -> tuple[Tensor, ...]:
    keep = torch.tensor([[True] * 12, [False, True, True] * 4])
    keep[:, 0] = True
    return _randn(2, 3, 12, 4), _randn(2, 3, 12, 4, seed=6), _randn(2, 3, 12, width, seed=7), keep


def _cost(program: Program) -> Cost:
    assert program.cost is not None
    return program.cost


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_put_off_and_computed_in_chunks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predicted and measured cost are compared in `check`: chunks of 100 scores take more rounds, and give the same."""
    options = KINDS[kind]
    program = check(Attention(**options), _call(), bound=2e-3)
    ops = _ops(program)
    assert ops.count("hush.scores") == ops.count("hush.attend") == 1
    assert ops.count("hush.shifted") == sum(options.get(k, False) for k in ("padded", "biased"))
    assert not {"hush.matmul", "hush.softmax", "aten.add.Tensor"} & set(ops)
    monkeypatch.setattr(chunks, "MOST", 100)
    monkeypatch.setattr(tiles, "WORTH", 1)
    small = check(Attention(**options), _call(), bound=2e-3)
    assert _cost(small).rounds > 3 * _cost(program).rounds


@pytest.mark.parametrize("width", [5, 20], ids=["divided late", "divided early"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_chunk_costs_what_separate_ops_cost(kind: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module, args = Attention(**KINDS[kind]), _call(width)
    together = _cost(compiled(module, args))
    monkeypatch.setattr("hush.mpc.compiler.compile.defer_scores", lambda draft: "left alone")
    apart = compiled(module, args)
    assert "hush.scores" not in _ops(apart)
    assert together == _cost(apart)
    if width == 20:
        monkeypatch.setattr("hush.mpc.compiler.compile.join_attention", lambda draft: "left alone")
        assert "hush.softmax" in _ops(separate := compiled(module, args))
        assert together == _cost(separate)


def test_causal_products_are_halved_where_that_is_worth_it() -> None:
    class Causal(nn.Module):
        def forward(self, q: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, q, q, is_causal=True)

    program = compiled(Causal(), (_randn(12, 128, 4),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "WORTH", math.inf)
        whole = compiled(Causal(), (_randn(12, 128, 4),))
    assert _cost(program).rounds == _cost(whole).rounds
    assert sum(_cost(program).bytes_sent) < 0.97 * sum(_cost(whole).bytes_sent)


def test_bounds_of_scores_stay_declared() -> None:
    """The product's calibrated bound leaks, and the bound of the masked scores follows from it."""
    program = compiled(Attention(padded=True), _call())
    product, shifted = (
        next(n for n in program.graph.nodes if op_name(n.target) == f"hush.{o}") for o in ("scores", "shifted")
    )
    leaks = leakage(program)
    assert leaks[product.name] == type_of(product).bound
    assert type_of(shifted).bound > type_of(product).bound


def test_scores_that_others_read_or_weights_make_are_not_put_off() -> None:
    class Shown(nn.Module):
        def forward(self, q: Tensor, v: Tensor) -> Any:
            scores = q @ q.transpose(-1, -2)
            return scores.softmax(-1) @ v, scores

    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Parameter(_randn(3, 4))

        def forward(self, q: Tensor, v: Tensor) -> Tensor:
            return (self.query @ q.transpose(-1, -2)).softmax(-1) @ v

    for module in (Shown(), Learned()):
        for weights in ("secret", "public"):
            ops = _ops(check(module, (_randn(2, 9, 4), _randn(2, 9, 3)), bound=1e-3, weights=weights))
            assert "hush.scores" not in ops
            assert "hush.attend" in ops


class Step(nn.Module):
    """A decode step: one query against the keys so far, some of them padding."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])


@pytest.mark.parametrize("most", [1 << 21, 40])
def test_a_step_runs_at_any_number_of_keys(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled at 6 keys, run at 3 and 25, around the width of the values, from where on it divides late."""
    monkeypatch.setattr(chunks, "MOST", most)

    def call(keys: int) -> tuple[Tensor, ...]:
        mask = torch.ones(2, keys, dtype=torch.bool)
        mask[1, :2] = False
        return _randn(2, 3, 1, 8) / 2, _randn(2, 3, keys, 8), _randn(2, 3, keys, 8, seed=6), mask

    program = compiled(Step(), call(6))
    for keys in (3, 25):
        p = Fixed(program.ring, program.frac, strict=True)
        args = call(keys)
        inputs = [p.enter(x.double(), frac=s.frac) for x, s in zip(args, program.inputs, strict=True)]
        (result,) = finish(execute(program, p, {}, inputs))
        assert largest_error(p.value_of(result), Step()(*args).double()) < 1e-3


def test_large_rows_and_activations_run_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.keep = nn.LayerNorm(8), torch.arange(8) < 6

        def forward(self, x: Tensor) -> Any:
            masked = x.masked_fill(~self.keep, -torch.inf)
            return F.gelu(x), torch.tanh(x), self.norm(x), x.log_softmax(1), masked.softmax(-1), F.rms_norm(x, (8,))

    args = (_randn(5, 4, 8),)
    whole = check(Large(), args, bound=2e-3)
    monkeypatch.setattr(chunks, "MOST", 60)
    pieces = check(Large(), args, bound=2e-3)
    assert _cost(pieces).rounds > 2 * _cost(whole).rounds


@pytest.mark.parametrize("weights", ["secret", "public"])
def test_products_of_many_outputs_run_in_pieces(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the logits of every position do; 800 outputs here, at most 200 of them at a time."""
    module, args = nn.Linear(8, 40), (_randn(5, 4, 8),)
    whole = check(module, args, bound=1e-4, weights=weights)
    monkeypatch.setattr(chunks, "MOST", 100)
    pieces = check(module, args, bound=1e-4, weights=weights)
    assert _cost(pieces).rounds == 4 * _cost(whole).rounds
