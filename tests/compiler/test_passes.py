"""What each pass makes of the graph, read off the program; the results are held to torch as well."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.programs import check, compiled, largest_error, run_fixed
from torch import Tensor, nn

from hush.mpc.compiler import Program, leakage, listing
from hush.mpc.compiler.ops import op_name


def _ops(program: Program) -> list[str]:
    return [op_name(n.target) for n in program.graph.nodes if n.op == "call_function"]


def _randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


class Attention(nn.Module):
    """Self-attention with heads of 6: 1/sqrt(6) is no power of two."""

    def __init__(self, heads: int = 2, width: int = 12) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.heads = heads
        nn.init.normal_(self.norm.weight, 1.0, 0.3)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (f(self.norm(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def test_attention_scale_and_norm_weights_move_into_the_linear_layers() -> None:
    program = check(Attention(), (_randn(1, 5, 12),), bound=2e-3)
    ops = _ops(program)
    assert "aten.mul.Tensor" not in ops
    assert ops.count("hush.affine") == 3
    names = [w.name for w in program.weight_specs]
    assert not [n for n in names if n.startswith("norm.")]
    assert all(n.endswith(".folded") for n in names)


def test_norm_weights_stay_where_something_else_reads_the_norm() -> None:
    class Product(Attention):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            y = self.norm(x)
            return y * self.q(y)

    program = check(Product(), (_randn(1, 5, 12),), bound=2e-3)
    assert {"norm.weight", "norm.bias", "q.weight.T"} <= {w.name for w in program.weight_specs}


class Residual(Attention):
    """A norm read by a layer and by two sums, of a layer that reads the norm too and of one that does not."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.norm(x)
        return self.k(torch.tanh(y + self.q(y))) + y


@pytest.mark.parametrize("weights", ["secret", "public"])
@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
def test_residuals_join_the_truncation_of_the_layer_they_are_added_to(weights: str, kind: type[nn.Module]) -> None:
    module, x = Residual(), _randn(1, 5, 12)
    module.norm = kind(12)
    nn.init.normal_(module.norm.weight, 1.0, 0.3)
    program = check(module, (x,), bound=2e-3, weights=weights)
    assert _ops(program).count("hush.affine_plus") == 2
    assert "hush.affine" not in _ops(program)
    layers = compiled(nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 12)), (x,), weights=weights)
    assert program.op_costs["hush.affine_plus"] == layers.op_costs["hush.affine"]  # the norm's weight sends nothing


def test_a_norm_that_a_layer_of_another_shape_is_added_to_keeps_its_weight() -> None:
    class Broadcast(Attention):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return self.norm(x) + self.q(x[:, :1])

    program = check(Broadcast(), (_randn(1, 5, 12),), bound=2e-3)
    assert "norm.weight" in {w.name for w in program.weight_specs}
    assert "hush.affine_plus" not in _ops(program)


def test_two_linear_layers_scales_and_batch_norm_become_one_layer() -> None:
    module = nn.Sequential(nn.Linear(6, 4, bias=False), nn.Linear(4, 3), nn.BatchNorm1d(3))
    nn.init.uniform_(module[2].running_mean)
    nn.init.uniform_(module[2].running_var, 0.5, 2)
    program = check(module.eval(), (_randn(5, 6),), bound=1e-4)
    assert _ops(program) == ["hush.affine"]
    assert len(program.weight_specs) == 2


def test_batch_norm_moves_into_a_convolution() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
    nn.init.uniform_(module[1].running_mean)
    nn.init.uniform_(module[1].running_var, 0.5, 2)
    program = check(module.eval(), (_randn(2, 2, 5, 5),), bound=1e-4)
    assert _ops(program) == ["aten.conv2d.default", "aten.relu.default"]


def test_products_larger_than_the_two_layers_are_not_made() -> None:
    module = nn.Sequential(nn.Linear(16, 2), nn.Linear(2, 16))
    assert _ops(check(module, (_randn(3, 16),), bound=1e-4)).count("hush.affine") == 2


class Pieces(nn.Module):
    """GELU, SiLU, RMS norm, rotary products and unit length as models write them out."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2, 8))

    def forward(self, x: Tensor) -> Any:
        gelu = 0.5 * x * (1.0 + torch.tanh(0.7978845608 * (x + 0.044715 * torch.pow(x, 3.0))))
        erf = x * 0.5 * (1.0 + torch.erf(x / 2**0.5))
        rms = self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
        angles = torch.arange(8.0) * 0.3
        rotated = x * angles.cos() + x.roll(1, -1) * angles.sin()
        gates = x * torch.sigmoid(1.702 * x), torch.sigmoid(x) * x
        return gelu, erf, rms, rotated, F.normalize(x, dim=-1), gates


def test_written_out_functions_are_recognised() -> None:
    program = check(Pieces(), (_randn(3, 8),), bound=6e-3)
    ops = _ops(program)
    assert ops.count("aten.gelu.default") == 2
    for op in ("hush.rms_norm", "hush.combine", "hush.unit", "aten.silu.default", "hush.quick_gelu"):
        assert ops.count(op) == 1
    assert not {
        "aten.tanh.default",
        "aten.sigmoid.default",
        "aten.rsqrt.default",
        "aten.cos.default",
        "aten.mul.Tensor",
    } & set(ops)


@pytest.mark.parametrize("floor", [-1e4, -1e9, torch.finfo(torch.float32).min, float("-inf")])
def test_additive_masks_public_and_secret(floor: float) -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor, keep: Tensor) -> Tensor:
            mask = torch.where(keep, 0.0, floor)
            return (x @ x.transpose(1, 2) + mask[:, None, :]).softmax(-1)

    x, keep = _randn(2, 5, 4), torch.tensor([[True, True, True, False, False], [False, True, True, True, True]])
    plain = Masked()(x, keep)
    for public in ((), ("keep",)):
        program = compiled(Masked(), (x, keep), public=public)
        assert largest_error(run_fixed(program, (x, keep)), plain) <= 1e-3
    assert "secret masks: none" in program.passes
    assert any("1 softmaxes skip" in line for line in program.passes)


def test_old_style_mask_product() -> None:
    """(1 - mask) * -10000, as older BERT implementations have it."""

    class Old(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            extended = (1.0 - mask[:, None, :].float()) * -10000.0
            return (x @ x.transpose(1, 2) / 2 + extended).softmax(-1)

    check(Old(), (_randn(1, 4, 4), torch.tensor([[1, 1, 0, 1]])), bound=1e-3)


def test_causal_mask_costs_less_than_none() -> None:
    class Causal(nn.Module):
        def __init__(self, causal: bool) -> None:
            super().__init__()
            self.causal = causal

        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(x, x, x, is_causal=self.causal)

    x = _randn(1, 1, 48, 4)
    costs = [compiled(Causal(causal), (x,)).cost for causal in (True, False)]
    assert costs[0] is not None
    assert costs[1] is not None
    assert sum(costs[0].bytes_sent) < 0.8 * sum(costs[1].bytes_sent)


def test_all_true_masks_vanish_and_equal_ones_are_kept_once() -> None:
    class Twice(nn.Module):
        def __init__(self, mask: Tensor) -> None:
            super().__init__()
            self.register_buffer("mask", mask, persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            y = F.scaled_dot_product_attention(x, x, x, attn_mask=self.mask & True)
            return F.scaled_dot_product_attention(y, y, y, attn_mask=self.mask & True)

    x = _randn(1, 4, 4)
    nothing = check(Twice(torch.ones(4, 4, dtype=torch.bool)), (x,), bound=1e-3)
    assert not nothing.constants
    assert "aten.add.Tensor" not in _ops(nothing)
    assert len(check(Twice(torch.ones(4, 4).tril().bool()), (x,), bound=1e-3).constants) == 1


def test_grouped_query_attention() -> None:
    class Grouped(nn.Module):
        def forward(self, q: Tensor, kv: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, kv, kv, enable_gqa=True)

    check(Grouped(), (_randn(1, 4, 3, 4), _randn(1, 2, 3, 4)), bound=1e-3)


class Eager(nn.Module):
    """Attention as eager code has it; `masked` says which entries it leaves out."""

    def __init__(self, masked: str = "nothing") -> None:
        super().__init__()
        self.masked = masked

    def forward(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
        scores = q @ k.transpose(-1, -2) / 2
        if self.masked == "causal":
            scores = scores + torch.full(scores.shape[-2:], -1e9).triu(1)
        elif self.masked == "secret":
            scores = scores + torch.where(keep, 0.0, torch.finfo(torch.float32).min)
        return F.dropout(scores.softmax(-1), 0.1, self.training) @ v


@pytest.mark.parametrize("masked", ["nothing", "causal", "secret"])
def test_attention_divides_after_the_product_which_costs_less(masked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = torch.tensor([True, False, True] * 4)
    args = (_randn(2, 12, 4), _randn(2, 12, 4), 3 * _randn(2, 12, 4), keep)
    joined = check(Eager(masked), args, bound=1e-3)
    assert "hush.attend" in _ops(joined)
    assert "hush.softmax" not in _ops(joined)
    monkeypatch.setattr("hush.mpc.compiler.compile.join_attention", lambda draft: "left alone")
    apart = compiled(Eager(masked), args)
    assert "hush.softmax" in _ops(apart)
    assert joined.cost is not None
    assert apart.cost is not None
    assert sum(joined.cost.bytes_sent) < sum(apart.cost.bytes_sent)
    assert joined.cost.rounds < apart.cost.rounds


def test_attention_of_the_library_divides_after_the_product() -> None:
    class Grouped(nn.Module):
        def forward(self, q: Tensor, kv: Tensor, mask: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, kv, kv, attn_mask=mask, enable_gqa=True)

    mask = torch.ones(9, 9, dtype=torch.bool).tril(2)
    for public in ((), ("mask",)):
        program = check(Grouped(), (_randn(1, 4, 9, 4), _randn(1, 2, 9, 4), mask), bound=1e-3, public=public)
        assert "hush.attend" in _ops(program)


def test_softmaxes_that_are_read_elsewhere_or_weigh_weights_stay() -> None:
    class Shown(Eager):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Any:
            weights = (q @ k.transpose(-1, -2)).softmax(-1)
            return weights @ v, weights

    class Columns(Eager):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
            return (q @ k.transpose(-1, -2)).softmax(-2) @ v

    class Weighed(Eager):
        def __init__(self) -> None:
            super().__init__()
            self.values = nn.Parameter(_randn(9, 2))

        def forward(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
            return (q @ k.transpose(-1, -2)).softmax(-1) @ self.values

    narrow = (_randn(9, 4), _randn(9, 4), _randn(9, 4), torch.ones(9))
    for module in (Shown(), Columns(), Weighed()):
        assert "hush.softmax" in _ops(check(module, narrow, bound=1e-3))


def test_independent_layers_share_rounds() -> None:
    class Wide(nn.Module):
        def __init__(self, count: int) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(count))

        def forward(self, x: Tensor) -> list[Tensor]:
            return [F.relu(layer(x)) for layer in self.layers]

    one, many = (compiled(Wide(n), (_randn(2, 4),)).cost for n in (1, 6))
    assert one is not None
    assert many is not None
    assert one.rounds == many.rounds


def test_tied_weights_are_shared_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(12, 4)
            self.head = nn.Linear(4, 12, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.embed(ids))

    program = check(Tied(), (torch.tensor([[3, 11]]),), bound=1e-4)
    assert [w.shape for w in program.weight_specs] == [(12, 4)]


def test_puma_set_is_used_when_asked_for() -> None:
    module, x = nn.GELU(), torch.linspace(-5, 5, 200)
    fine, coarse = (run_fixed(compiled(module, (x,), approx=a), (x,)) for a in ("default", "puma"))
    plain = module(x)
    assert largest_error(fine, plain) < 1e-3 < largest_error(coarse, plain) < 0.03


def test_calibrated_bounds_are_powers_of_two_and_marked() -> None:
    program = compiled(Attention(), (_randn(1, 5, 12),))
    marked = [line for line in listing(program).splitlines() if "*" in line]
    leaks = leakage(program)
    assert not set(leaks) & {w.name for w in program.weight_specs}
    assert len(marked) == len(leaks) > 5
    for bound in leaks.values():
        assert torch.frexp(torch.tensor(bound))[0] == 0.5


def test_smallest_magnitudes_are_leaked_only_where_something_divides() -> None:
    class Divide(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1 / (x.square() + 0.5)

    assert [n for n in leakage(compiled(Divide(), (_randn(4),))) if "at least" in n]
    assert not [n for n in leakage(compiled(nn.GELU(), (_randn(4),))) if "at least" in n]


class _Tied(nn.Module):
    """A table that is also the head, behind a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 8)
        self.norm = nn.LayerNorm(8)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.linear(self.norm(self.table(ids)), self.table.weight)


def test_a_table_that_is_also_the_head_is_deployed_once() -> None:
    program = check(_Tied(), (torch.tensor([[3, 7, 29]]),), bound=2e-3)
    assert [spec.shape for spec in program.weight_specs if len(spec.shape) == 2] == [(30, 8)]
