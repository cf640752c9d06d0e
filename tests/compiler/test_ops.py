"""Every family of rules against torch: random modules of one or two ops, under `Fixed`; a few on shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.programs import check, compiled, largest_error, run_fixed
from torch import Tensor, nn

from hush.mpc.compiler import compile_module
from hush.mpc.errors import UnsupportedOp

Body = Callable[..., Any]


class Wrap(nn.Module):
    """A function as a module, with weights it may use."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body = body
        generator = torch.Generator().manual_seed(3)
        self.w = nn.Parameter(torch.randn(6, 6, generator=generator))
        self.v = nn.Parameter(torch.randn(6, generator=generator))
        self.kernel = nn.Parameter(torch.randn(4, 2, 3, generator=generator) / 2)
        self.filter = nn.Parameter(torch.randn(4, 2, 3, 3, generator=generator) / 2)

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def _randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(11))


EXACT = 3e-5  # a few units of rounding
LAYOUT: dict[str, Body] = {
    "view": lambda m, x: x.view(4, 9, 1),
    "transpose": lambda m, x: x.transpose(0, 1).contiguous().view(-1),
    "permute": lambda m, x: x.permute(2, 0, 1),
    "squeeze": lambda m, x: x.unsqueeze(1).squeeze(1),
    "expand": lambda m, x: x.unsqueeze(0).expand(3, -1, -1, -1),
    "slice": lambda m, x: x[:, 1:, ::2],
    "select": lambda m, x: x[:, 0],
    "flip": lambda m, x: x.flip(2),
    "roll": lambda m, x: torch.roll(x, (1, -1), (1, 2)),
    "repeat": lambda m, x: x.repeat(2, 1, 3),
    "repeat_interleave": lambda m, x: x.repeat_interleave(2, 1),
    "split": lambda m, x: x.split(2, -1)[1],
    "chunk": lambda m, x: torch.cat(x.chunk(3, -1)[::-1], -1),
    "unbind": lambda m, x: x.unbind(1)[2] - x.unbind(1)[0],
    "stack": lambda m, x: torch.stack([x, -x, torch.ones_like(x)], 1),
    "cat weight": lambda m, x: torch.cat([x, m.v.expand(2, 1, 6)], 1),
    "index": lambda m, x: x[:, torch.tensor([2, 0, 0])],
    "index bool": lambda m, x: x[:, torch.tensor([True, False, True])],
    "index_select": lambda m, x: x.index_select(2, torch.tensor([5, 1])),
    "gather": lambda m, x: x.gather(2, torch.tensor([[[1, 0]], [[3, 3]]]).expand(2, 3, 2)),
    "pad": lambda m, x: F.pad(x, (1, 2), value=1.5),
    "pad reflect": lambda m, x: F.pad(x, (2, 1), mode="reflect"),
    "unfold": lambda m, x: x.unfold(2, 3, 2),
    "tril": lambda m, x: x.tril(),
    "masked_fill": lambda m, x: x.masked_fill(torch.ones(3, 6).triu().bool(), -2.5),
    "where": lambda m, x: torch.where(torch.ones(3, 6).tril().bool(), x, 2 * x),
}
ARITHMETIC: dict[str, Body] = {
    "add": lambda m, x: x + 1.5 + x,
    "add alpha": lambda m, x: torch.add(x, x, alpha=0.25),
    "sub": lambda m, x: 2.0 - x - m.v,
    "neg": lambda m, x: -x,
    "mul scalar": lambda m, x: x * 0.3 * 3,
    "mul weight": lambda m, x: x * m.v,
    "mul secret": lambda m, x: x * x.flip(1),
    "div": lambda m, x: x / 3,
    "square": lambda m, x: x.pow(2) + x.square(),
    "cube": lambda m, x: x**3 / 8,
    "mean": lambda m, x: x.mean(-1, keepdim=True) + x.mean((0, 1)),
    "sum": lambda m, x: x.sum(1) + x.sum(),
    "cumsum": lambda m, x: x.cumsum(2),
    "diff": lambda m, x: x.diff(dim=1),
    "var": lambda m, x: x.var(-1) + x.var(-1, unbiased=False),
    "linear": lambda m, x: F.linear(x, m.w, m.v),
    "matmul": lambda m, x: x @ x.transpose(1, 2) / 4,
    "matmul vector": lambda m, x: x @ m.v,
    "weight first": lambda m, x: m.w @ x.transpose(1, 2),
    "einsum": lambda m, x: torch.einsum("bij,bkj->bik", x, x),
    "einsum weight": lambda m, x: torch.einsum("bij,jk->kib", x, m.w),
    "baddbmm": lambda m, x: torch.addmm(m.v, x[0], m.w),
    "avg_pool1d": lambda m, x: F.avg_pool1d(x, 2),
    "adaptive pool": lambda m, x: F.adaptive_avg_pool1d(x, 3) + F.adaptive_avg_pool1d(x, 1),
    "clamp": lambda m, x: x.clamp(-0.5, 0.75) + x.clamp(min=0.1) * x.clamp(max=0.2),
    "clamp crossed": lambda m, x: x.clamp(0.75, -0.5) + torch.clamp_min(x, -0.3) - torch.clamp_max(x, -0.3),
    "relu": lambda m, x: F.relu(x) - F.leaky_relu(x, 0.2) + F.leaky_relu(x, 3.0),
    "relu6": lambda m, x: F.relu6(5 * x) - F.hardtanh(x) + F.hardtanh(x, -2.5, 0.25),
    "hard": lambda m, x: F.hardsigmoid(3 * x) + F.hardswish(3 * x),
    "abs": lambda m, x: x.abs() + x.sign(),
    "maximum": lambda m, x: torch.maximum(x, m.v) + torch.minimum(x, -x),
    "amax": lambda m, x: x.amax(-1) - x.amin((1, 2), keepdim=True)[..., 0],
    "max_pool1d": lambda m, x: F.max_pool2d(x.unsqueeze(1), 2),
    "where secret": lambda m, x: torch.where(x > 0.1, x, m.v),
    "where constants": lambda m, x: torch.where(x > 0.1, 1.25, -3.0),
}
SMOOTH: dict[str, tuple[Body, float]] = {
    "gelu": (lambda m, x: F.gelu(x), 1e-3),
    "gelu tanh": (lambda m, x: F.gelu(x, approximate="tanh"), 1e-3),
    "silu": (lambda m, x: F.silu(x), 1.1e-2),
    "sigmoid": (lambda m, x: torch.sigmoid(x), 3e-3),
    "tanh": (lambda m, x: torch.tanh(x), 3e-3),
    "softplus": (lambda m, x: F.softplus(x) + F.softplus(x, 2.5, 30.0), 3e-3),
    "log_sigmoid": (lambda m, x: F.logsigmoid(3 * x), 2e-3),
    "glu": (lambda m, x: F.glu(x) + F.glu(x.transpose(1, 2), 1).transpose(1, 2)[:, :, :3], 4e-3),
    "elu": (lambda m, x: F.elu(x) + F.elu(2 * x, 0.5), 1e-3),
    "selu": (lambda m, x: F.selu(x) - F.celu(3 * x, 1.5), 1e-3),
    "erf": (lambda m, x: torch.erf(x), 2e-4),
    "sin": (lambda m, x: torch.sin(9 * x) + torch.cos(40 * x), 2e-4),
    "quick_gelu": (lambda m, x: x * torch.sigmoid(1.702 * x), 4e-3),
    "log2": (lambda m, x: torch.log2(x.square() + 0.5), 1e-3),
    "exp": (lambda m, x: torch.exp(x), 2e-3),
    "softmax": (lambda m, x: x.softmax(1) + x.softmax(-1), 1e-3),
    "log_softmax": (lambda m, x: x.log_softmax(-1), 1e-3),
    "layer_norm": (lambda m, x: F.layer_norm(x, (6,), m.v, m.v), 1e-3),
    "layer_norm 2d": (lambda m, x: F.layer_norm(x, (3, 6)), 1e-3),
    "group_norm": (lambda m, x: F.group_norm(x.transpose(1, 2), 2, m.v, m.v), 1e-3),
    "rms_norm": (lambda m, x: F.rms_norm(x, (6,), m.v, 1e-6), 1e-3),
    "normalize": (lambda m, x: F.normalize(x, dim=-1), 1e-4),
    "norm": (lambda m, x: x.norm(dim=-1), 1e-3),
    "sqrt": (lambda m, x: (x.square() + 0.5).sqrt(), 1e-3),
    "rsqrt": (lambda m, x: (x.square() + 0.5).rsqrt(), 1e-3),
    "log": (lambda m, x: (x.square() + 0.5).log(), 1e-3),
    "reciprocal": (lambda m, x: 1 / (x.square() + 0.5) + (x.square() + 0.5).reciprocal(), 1e-3),
    "divide": (lambda m, x: x / (x.square() + 0.5), 1e-3),
    "attention": (lambda m, x: F.scaled_dot_product_attention(x, x @ m.w, x, is_causal=False), 2e-3),
    "causal attention": (lambda m, x: F.scaled_dot_product_attention(x, x, x, is_causal=True), 2e-3),
}


@pytest.mark.parametrize("weights", ["secret", "public"])
@pytest.mark.parametrize("group", ["layout", "arithmetic", "smooth"])
def test_ops_equal_torch(group: str, weights: str) -> None:
    table = {
        "layout": {name: (body, EXACT) for name, body in LAYOUT.items()},
        "arithmetic": {name: (body, 2e-4) for name, body in ARITHMETIC.items()},
        "smooth": SMOOTH,
    }[group]
    _compare(table, _randn(2, 3, 6), weights)


CONVOLUTIONS: dict[str, tuple[Body, Sequence[int]]] = {
    "conv1d": (lambda m, x: F.conv1d(x, m.kernel, m.v[:4], stride=2, padding=1), (2, 2, 9)),
    "conv1d same": (lambda m, x: F.conv1d(x, m.kernel, padding="same", dilation=2), (1, 2, 9)),
    "conv2d": (lambda m, x: F.conv2d(x, m.filter, m.v[:4], stride=(1, 2), padding=1), (1, 2, 5, 6)),
    "depthwise": (lambda m, x: F.conv1d(x, m.kernel[:, :1], groups=4), (1, 4, 7)),
    "avg_pool2d": (lambda m, x: F.avg_pool2d(x, 2), (1, 2, 4, 6)),
    "batch_norm": (
        lambda m, x: F.batch_norm(x, m.v[:2].detach(), m.v[:2].detach().abs() + 0.5, m.v[2:4], m.v[4:6]),
        (2, 2, 5),
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    body, shape = CONVOLUTIONS[name]
    for weights in ("secret", "public"):
        _compare({name: (body, 2e-4)}, _randn(*shape), weights)


def _compare(table: Mapping[str, tuple[Body, float]], x: Tensor, weights: str) -> None:
    """One module that returns the results of all bodies by name."""
    module = Wrap(lambda m, x: {name: body(m, x) for name, (body, _) in table.items()})
    with torch.no_grad():
        plain = module(x)
    secure = run_fixed(compiled(module, (x,), weights=weights), (x,))
    errors = {name: largest_error(secure[name], plain[name]) for name in table}
    assert {n: e for n, e in errors.items() if e > table[n][1]} == {}


UNCOVERED: dict[str, tuple[Body, str]] = {
    "softplus": (lambda m, x: F.softplus(x, 1.0, 2.0), "threshold 2"),
    "celu": (lambda m, x: torch.celu(x, -1.0), "alpha"),
    "elu": (lambda m, x: torch.ops.aten.elu(x, 1.0, 1.0, 2.0), "input_scale"),
    "einsum": (lambda m, x: torch.einsum("bii->bi", x[:, :, :3]), "diagonals"),
    "conv3d": (lambda m, x: F.conv3d(x.reshape(2, 2, 1, 3, 3), m.filter[:, :1, None], groups=2), "three dimensions"),
    "sort": (lambda m, x: x.repeat(1, 1, 50).sort(-1)[0], "more than 256"),
    "mask": (lambda m, x: x[x > 0], "shapes are public"),
    "norm": (lambda m, x: x.norm(p=3, dim=-1), "order 3"),
    "power": (lambda m, x: x.abs() ** 4.5, "beyond 4"),
    "rounding": (lambda m, x: x.long(), "integer"),
}


@pytest.mark.parametrize("weights", ["secret", "public"])
@pytest.mark.parametrize("name", UNCOVERED)
def test_arguments_that_no_rule_covers_are_named_while_compiling(name: str, weights: str) -> None:
    body, message = UNCOVERED[name]
    with pytest.raises(UnsupportedOp, match=message) as caught:
        compile_module(Wrap(body), (_randn(2, 3, 6),), weights=weights)
    assert "test_ops.py" in str(caught.value)


@pytest.mark.parametrize("weights", ["secret", "public"])
@pytest.mark.parametrize("name", ["where secret", "relu6", "hard", "mul weight", "linear", "maximum", "einsum weight"])
def test_on_shares_at_the_predicted_cost(name: str, weights: str) -> None:
    check(Wrap(ARITHMETIC[name]), (_randn(2, 3, 6),), bound=2e-4, weights=weights)
