"""Programs as data: bytes, digests, damage; weights that are never in them; what goes in and comes out."""

from __future__ import annotations

import contextlib
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.programs import compiled, largest_error, run_fixed
from torch import Tensor, nn

from hush.mpc.compiler import compile_module, listing, load, parse
from hush.mpc.errors import ConfigError, HushWarning, ProgramError, RangeError, ShapeError, UnsupportedOp, UserError
from hush.proto import program_pb2 as pb


def _mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3)).eval()


X = torch.linspace(-1, 1, 8).reshape(2, 4)


def test_saved_program_is_the_same_program(tmp_path: Path) -> None:
    module = _mlp()
    program = compile_module(module, (X,))
    program.save(tmp_path / "mlp.hush")
    again = load(tmp_path / "mlp.hush")
    assert again.digest == program.digest
    assert again.weights is None
    assert listing(again) == listing(program)
    assert again.inputs == program.inputs
    again.bind(module)
    with torch.no_grad():
        assert largest_error(run_fixed(again, (X,)), module(X)) <= 1e-3


def test_compiling_twice_gives_the_same_bytes() -> None:
    assert compile_module(_mlp(), (X,)).data == compile_module(_mlp(), (X,)).data


@pytest.mark.parametrize("weights", ["secret", "public"])
def test_program_does_not_depend_on_weights_within_their_powers_of_two(weights: str) -> None:
    """No weight and no hash of one: a model whose ranges round alike gives the very same program."""
    module = _mlp()
    before = compile_module(module, (X,), weights=weights)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.001)
    after = compile_module(module, (X,), weights=weights)
    assert before.data == after.data
    assert any(not torch.equal(before.weights[n], after.weights[n]) for n in before.weights)


def test_weights_of_another_model_are_refused() -> None:
    program = compile_module(_mlp(), (X,))
    with pytest.raises(ProgramError, match="not this program's model"):
        program.bind(nn.Linear(4, 3))
    wide = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 3))
    with pytest.raises(ProgramError):
        program.bind(wide)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_bytes_are_refused_or_give_another_digest(data: st.DataObject) -> None:
    good = _GOOD.data
    kind = data.draw(st.sampled_from(["cut", "flip", "noise"]))
    if kind == "cut":
        bad = good[: data.draw(st.integers(0, len(good) - 1))]
    elif kind == "flip":
        place = data.draw(st.integers(0, len(good) - 1))
        bad = good[:place] + bytes([good[place] ^ data.draw(st.integers(1, 255))]) + good[place + 1 :]
    else:
        bad = data.draw(st.binary(min_size=1, max_size=200))
    with contextlib.suppress(ProgramError):
        assert parse(bad).digest != _GOOD.digest


def test_other_versions_and_missing_files_are_refused(tmp_path: Path) -> None:
    message = pb.Program.FromString(_GOOD.data)
    message.version = 99
    with pytest.raises(ProgramError, match="compile the module again"):
        parse(message.SerializeToString())
    with pytest.raises(ConfigError, match="cannot be written"):
        _GOOD.save(tmp_path / "no" / "folder")
    with pytest.raises(ProgramError, match="cannot be read"):
        load(tmp_path / "nothing.hush")


@pytest.mark.parametrize("target", ["aten.from_file.default", "os.system", "aten.add_.Tensor", "aten.__class__.x"])
def test_a_file_cannot_call_what_is_no_rule(target: str) -> None:
    for graph in ("graph", "recipe"):
        message = pb.Program.FromString(_GOOD.data)
        node = next(n for n in getattr(message, graph).nodes if n.op == "call_function")
        node.target = target
        with pytest.raises(ProgramError, match="damaged"):
            parse(message.SerializeToString())


_GOOD = compile_module(_mlp(), (X,))


# ---------------------------------------------------------------------- calls and results
def test_wrong_inputs_name_the_argument_and_the_way_out() -> None:
    for bad, error, word in (
        (torch.zeros(3, 4), ShapeError, "shape"),
        (torch.zeros(2, 4, dtype=torch.long), ShapeError, "dtype"),
        ("text", ShapeError, "tensor"),
        (X * float("nan"), RangeError, "NaN"),
        (X / 0, RangeError, "infinity"),
        (X * 1e6, RangeError, "range"),
    ):
        with pytest.raises(error, match=word) as caught:
            _GOOD.encode_inputs((bad,))
        assert "'input'" in str(caught.value)
    with pytest.raises(ShapeError, match="missing"):
        _GOOD.encode_inputs(())
    with pytest.raises(ShapeError, match="positional"):
        _GOOD.encode_inputs((X, X))


Pair = namedtuple("Pair", ["first", "second"])


class Nested(nn.Module):
    """Arguments and results of every nesting, secret, public and constant."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.arange(3.0), persistent=False)

    def forward(self, pair: list[Tensor], by_name: dict[str, Tensor], scale: float, mask: Tensor | None = None) -> Any:
        total = pair[0] * scale + pair[1] + by_name["c"]
        if mask is not None:
            total = total * mask
        return {"sum": (total, [pair[0], None]), "steps": self.steps * 2, "named": (total, total), "n": 3}


def test_nested_arguments_and_results() -> None:
    a, b, c, mask = torch.ones(3), torch.tensor([1.0, 2, 3]), torch.tensor([0.5, 0, -0.5]), torch.tensor([1.0, 0, 1])
    module, args, kwargs = Nested(), ([a, b], {"c": c}, 1.5), {"mask": mask}
    program = compiled(module, args, kwargs, public=("mask",))
    assert [s.path for s in program.inputs] == [("pair", 0), ("pair", 1), ("by_name", "c")]
    result = run_fixed(program, ([b, a], {"c": c}, 1.5))
    expected = module([b, a], {"c": c}, 1.5, mask)
    assert largest_error(result, expected) <= 1e-4
    assert torch.equal(result["steps"], expected["steps"])
    assert result["sum"][1][1] is None
    assert result["n"] == 3


def test_any_number_of_arguments() -> None:
    class Sum(nn.Module):
        def forward(self, first: Tensor, *rest: Tensor, factor: float = 1.0) -> Tensor:
            return first + factor * torch.stack(rest).sum(0)

    args = (torch.ones(2), torch.tensor([1.0, 2]), torch.tensor([-3.0, 0]))
    program = compiled(Sum(), args, {"factor": 0.5})
    assert [s.path for s in program.inputs] == [("first",), ("rest", 0), ("rest", 1)]
    assert largest_error(run_fixed(program, args), Sum()(*args, factor=0.5)) <= 1e-4


def test_unknown_public_argument_is_refused() -> None:
    with pytest.raises(ShapeError, match="'mask'"):
        compile_module(_mlp(), (X,), public=("mask",))


@pytest.mark.parametrize("options", [{"weights": "hidden"}, {"approx": "fast"}])
def test_unknown_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(UserError, match="say"):
        compile_module(_mlp(), (X,), **options)  # type: ignore[arg-type]


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.erfinv(x)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Inner()

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x / 2)


def test_an_op_without_a_rule_names_op_module_and_line() -> None:
    with pytest.raises(UnsupportedOp) as caught:
        compile_module(Outer(), (X,))
    message = str(caught.value)
    for word in ("aten.erfinv.default", "module: block", "test_programs.py", "torch.erfinv(x)", "ways out"):
        assert word in message


def test_what_export_cannot_capture_is_one_clear_error() -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedOp, match=r"Branch.*\n.*ways out"):
        compile_module(Branch(), (X,))
    with pytest.raises(UnsupportedOp, match="Sequential"):
        compile_module(_mlp(), (torch.zeros(2, 5),))


def test_the_same_op_of_a_public_argument_needs_no_rule() -> None:
    program = compile_module(Outer(), (X,), public=("x",))
    assert largest_error(program.decode_outputs([]), Outer()(X)) == 0


def test_a_tensor_that_is_no_parameter_is_public_with_a_warning() -> None:
    class Attribute(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.randn(4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.table

    with pytest.warns(HushWarning, match="public"):
        compile_module(Attribute(), (X,))


def test_training_mode_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train()
    program = compile_module(module, (X,))
    assert module.training
    assert module[1].training
    assert "dropout" not in listing(program)


def test_further_examples_and_bounds_widen_ranges() -> None:
    narrow = compile_module(_mlp(), (X,))
    wide = compile_module(_mlp(), (X,), ranges=[(X * 16,)])
    explicit = compile_module(_mlp(), (X,), ranges={"input": 100.0})
    assert narrow.inputs[0].bound == 4
    assert wide.inputs[0].bound == 64
    assert explicit.inputs[0].bound == 100
    stretched = torch.tensor([[90.0, -100, 30, 5], [1, 2, 3, 4]])
    with torch.no_grad():
        assert largest_error(run_fixed(explicit, (stretched,)), _mlp()(stretched)) <= 2e-3
    with pytest.raises(UserError, match="'inputs'"):
        compile_module(_mlp(), (X,), ranges={"inputs": 1.0})
    with pytest.raises(RangeError, match="not"):
        compile_module(_mlp(), (X,), ranges=[(torch.zeros(1, 4),)])


def test_printing_shows_layers_inputs_and_cost() -> None:
    program = compiled(_mlp(), (X,))
    text = str(program)
    for word in (program.digest[:16], "input", "secret weights", "rounds", "MB/party", "pass"):
        assert word in text
    assert "hush.affine" in listing(program)


def test_layer_costs_sum_to_the_total() -> None:
    program = compiled(_mlp(), (X,))
    assert program.cost is not None
    assert sum(c.rounds for c in program.layer_costs.values()) == program.cost.rounds
    for party in range(3):
        assert sum(c.bytes_sent[party] for c in program.layer_costs.values()) == program.cost.bytes_sent[party]
