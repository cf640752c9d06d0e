"""Ops beyond the usual: writing at places, order, windows, resampling, convolutions, and what torch takes apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        self.kernel = nn.Parameter(torch.randn(4, 2, 3, 3, generator=generator) / 2)
        self.gru = nn.GRU(6, 4, batch_first=True)
        self.lstm = nn.LSTM(6, 4, bidirectional=True, batch_first=True)

    def forward(self, *args: Tensor) -> Any:
        return self.body(self, *args)


def _randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(11))


def _shifted(m: Wrap, x: Tensor) -> Tensor:
    """In place, as decoders move their input to the right."""
    y = x.new_zeros(x.shape)
    y[:, 1:] = x[:, :-1].clone()
    y[:, 0] = 2.0
    y[..., ::2] = m.v[:3]
    return y


def _put(m: Wrap, x: Tensor) -> Any:
    y = x.clone()
    y[torch.tensor([0, 1]), torch.tensor([2, 0])] = x[:, 1]
    z = x.clone()
    z[z > 0.5] = -3.0
    behind = x.clone()
    behind[:, torch.tensor([0, 1]), torch.tensor([2, 0])] = x[:, 1, :2]
    return y, z, torch.index_put(x, (torch.tensor([0, 0]),), x[1:], accumulate=True), behind


def _scattered(m: Wrap, x: Tensor) -> Any:
    places = torch.tensor([[[2, 0, 1, 2, 0, 1]]]).expand(2, 1, 6)
    return (
        x.scatter(1, places, x[:, :1]),
        x.scatter(1, places, 0.75),
        x.scatter_add(1, places, x[:, 1:2]),
        torch.zeros(2, 3, 6).index_add(1, torch.tensor([1, 1, 0]), x),
        x.masked_scatter(torch.tensor([True, False, True, True, False, False]), x.flip(1)),
    )


def _chosen(m: Wrap, x: Tensor) -> Any:
    """At secret places: a mixture's gate."""
    values, places = x.topk(2, -1)
    gate = torch.zeros_like(x).scatter(-1, places, values.softmax(-1))
    return gate, x.scatter_add(-1, places, values), x.scatter(-1, places, -4.0), F.one_hot(places, 6)


WRITING: dict[str, Body] = {
    "shifted": _shifted,
    "put": _put,
    "scattered": _scattered,
    "chosen": _chosen,
    "filled": lambda m, x: x + x.new_ones(6) * 2 + torch.empty_like(x).fill_(0.5) + x.new_full((3, 6), -1.0),
    "index_select": lambda m, x: (x.index_select(1, torch.tensor([2, 0])), x.index_select(1, x[:, :, 0].argmax(1))),
    "rows by mask": lambda m, x: x.masked_scatter((x[..., :1] > 0).expand_as(x), x.flip(1)),
    "finite": lambda m, x: torch.where(x.isfinite() & ~x.isnan(), x.nan_to_num(), m.v),
}


def _buckets(m: Wrap, x: Tensor) -> Any:
    """Public boundaries, at one of which a value lies, and a weight's."""
    edges = torch.arange(4) * 0.75 - 1.0
    on_an_edge = (x * 0).cumsum(-1) + 0.5
    found = (torch.bucketize(value, edges, right=right) for value in (x, on_an_edge) for right in (False, True))
    return (*found, torch.bucketize(x, m.v.sort().values, out_int32=True))


ORDER: dict[str, Body] = {
    "buckets": _buckets,
    "max": lambda m, x: (*x.max(1), *x.min(-1, keepdim=True)),
    "sort": lambda m, x: (*x.sort(1), *x.sort(-1, descending=True), x.argsort(-1)),
    "topk": lambda m, x: (*x.topk(3), *x.topk(1, 1, largest=False)),
    "ties": lambda m, x: (x * 0 + 1).max(-1),
    "logical": lambda m, x: ((x > 0).all(-1), (x > 2).any(), (x > 0) ^ (x > 1), (x > 0).count_nonzero(-1)),
}
SUMS: dict[str, Body] = {
    "three": lambda m, x: torch.einsum("bij,bkj,kl->bil", x, x, m.w[:3]) / 8,
    "one": lambda m, x: torch.einsum("bij->jb", x),
    "alone": lambda m, x: torch.einsum("bij,kl->bkl", x, m.w) / 8,
    "dots": lambda m, x: torch.einsum("...ij,...kj->...ik", x, x) + torch.einsum("...j,jk->...k", x, m.w)[..., :3],
    "implied": lambda m, x: torch.einsum("bij,kj", x, m.w),
    "vector": lambda m, x: torch.einsum("bij,j->bi", x, m.v),
    "baddbmm": lambda m, x: torch.baddbmm(m.w[:3, :3], x, x.transpose(1, 2), beta=0.5, alpha=2),
    "lerp": lambda m, x: x.lerp(x.flip(1), 0.3) + torch.addcdiv(x, m.v, m.v + 4),
    "p norm": lambda m, x: torch.linalg.norm(x, dim=-1) + x.norm(p=2, dim=1)[:, :3],
}
WINDOWS: dict[str, Body] = {
    "max": lambda m, x: F.max_pool2d(x, 3, stride=2, padding=1),
    "max ceil": lambda m, x: F.max_pool2d(x, 2, ceil_mode=True) + F.max_pool2d(x, (2, 1), 2, ceil_mode=True),
    "max gaps": lambda m, x: F.max_pool2d(x, 2, stride=1, dilation=(2, 1)),
    "mean": lambda m, x: F.avg_pool2d(x, 3, stride=2, padding=1),
    "mean inside": lambda m, x: F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False),
    "mean ceil": lambda m, x: F.avg_pool2d(x, 2, ceil_mode=True),
    "mean ceil padded": lambda m, x: F.avg_pool2d(x, 2, ceil_mode=True, padding=1),
    "mean divisor": lambda m, x: F.avg_pool2d(x, 2, divisor_override=3),
    "adaptive": lambda m, x: F.adaptive_avg_pool2d(x, (3, 2)) + F.adaptive_avg_pool2d(x, 1),
    "nearest": lambda m, x: F.interpolate(x, scale_factor=2) + F.interpolate(x, size=(10, 12), mode="nearest-exact"),
    "bilinear": lambda m, x: F.interpolate(x, size=(7, 4), mode="bilinear"),
    "aligned": lambda m, x: F.interpolate(x, scale_factor=1.6, mode="bilinear", align_corners=True),
    "bicubic": lambda m, x: F.interpolate(x, size=(4, 9), mode="bicubic"),
    "transposed": lambda m, x: F.conv_transpose2d(x, m.kernel.transpose(0, 1), m.v[:4], 2, 1, output_padding=1),
    "transposed gaps": lambda m, x: F.conv_transpose2d(x, m.kernel[:2, :1], None, stride=(1, 3), dilation=2, groups=2),
    "transposed cut": lambda m, x: F.conv_transpose2d(x, m.kernel.transpose(0, 1)[..., :1], None, padding=(1, 1)),
    "space": lambda m, x: F.conv3d(x.reshape(1, 2, 2, 3, 5), m.kernel[:, :, None], m.v[:4], padding=(0, 1, 1)),
    "unbatched": lambda m, x: F.conv2d(x[0], m.kernel, m.v[:4], padding="same"),
}  # fmt: skip
SMOOTH: dict[str, tuple[Body, float]] = {
    "log1p": (lambda m, x: x.square().log1p() + (x.square() + 0.5).log10(), 1e-3),
    "powers": (lambda m, x: x.exp2() + 3.0**x + x.expm1(), 8e-3),
    "mish": (lambda m, x: F.mish(x) - F.tanhshrink(x), 1.5e-2),
    "shrink": (lambda m, x: F.hardshrink(x, 0.3) + F.softshrink(x, 0.4) + F.threshold(x, 0.25, -1.0), 1e-4),
    "prelu": (lambda m, x: F.prelu(x, m.v[:3]) + F.softsign(x), 1e-3),
    "cosine": (lambda m, x: F.cosine_similarity(x, x.flip(1), dim=-1), 1e-3),
    "logsumexp": (lambda m, x: torch.logsumexp(x, -1) + torch.logsumexp(x, (0, 1))[:3], 1e-3),
    "deviation": (lambda m, x: torch.std_mean(x, -1)[0] + torch.var_mean(x, -1)[1] + x.std(1)[:, :3], 1e-3),
    "rms of two": (lambda m, x: F.rms_norm(x, (3, 6), m.w[:3], 1e-6), 1e-3),
    "gru": (lambda m, x: m.gru(x), 8e-3),
    "lstm": (lambda m, x: m.lstm(x), 8e-3),
}


def _compare(table: dict[str, tuple[Body, float]], x: Tensor, weights: str) -> None:
    """One module that returns the results of all bodies by name."""
    module = Wrap(lambda m, x: {name: body(m, x) for name, (body, _) in table.items()})
    with torch.no_grad():
        plain = module(x)
    secure = run_fixed(compiled(module, (x,), weights=weights), (x,))
    errors = {name: largest_error(secure[name], plain[name]) for name in table}
    assert {n: e for n, e in errors.items() if e > table[n][1]} == {}


GROUPS: dict[str, tuple[dict[str, tuple[Body, float]], Sequence[int]]] = {
    "writing": ({n: (b, 1e-3) for n, b in WRITING.items()}, (2, 3, 6)),
    "order": ({n: (b, 1e-4) for n, b in ORDER.items()}, (2, 3, 6)),
    "sums": ({n: (b, 2e-4) for n, b in SUMS.items()}, (2, 3, 6)),
    "windows": ({n: (b, 1e-4) for n, b in WINDOWS.items()}, (1, 2, 5, 6)),
    "smooth": (SMOOTH, (2, 3, 6)),
}


@pytest.mark.parametrize("weights", ["secret", "public"])
@pytest.mark.parametrize("group", GROUPS)
def test_ops_equal_torch(group: str, weights: str) -> None:
    table, shape = GROUPS[group]
    _compare(table, _randn(*shape), weights)


@pytest.mark.parametrize("name", ["chosen", "rows by mask", "shifted", "index_select"])
def test_writing_on_shares_at_the_predicted_cost(name: str) -> None:
    check(Wrap(WRITING[name]), (_randn(2, 3, 6),), bound=1e-3)


@pytest.mark.parametrize("name", ["max", "sort", "buckets"])
def test_order_on_shares_at_the_predicted_cost(name: str) -> None:
    check(Wrap(ORDER[name]), (_randn(2, 3, 6),), bound=1e-4)


@pytest.mark.parametrize("name", ["max ceil", "mean inside", "bicubic", "transposed", "space"])
def test_windows_on_shares_at_the_predicted_cost(name: str) -> None:
    check(Wrap(WINDOWS[name]), (_randn(1, 2, 5, 6),), bound=1e-4)


def test_bounds_of_pieces_are_those_of_the_whole() -> None:
    """A list has no bound of its own: one of 0 would cut gates short."""
    module = Wrap(lambda m, x: F.silu(x.chunk(2, -1)[0]) * x.unbind(0)[1][:, :3])
    x = 9 * _randn(2, 3, 6)
    with torch.no_grad():
        plain = module(x)
    assert largest_error(run_fixed(compiled(module, (x,)), (x,)), plain) <= 0.25


def test_minus_infinity_is_no_finite_secret() -> None:
    module = Wrap(lambda m, x: x.masked_fill(x > 0, -torch.inf).isinf())
    with pytest.raises(UnsupportedOp, match="isinf"):
        compile_module(module, (_randn(2, 3),))
