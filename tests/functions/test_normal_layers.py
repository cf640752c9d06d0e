"""Layer, RMS, group, instance and batch norm, and unit vectors, through shares against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.trio import Trio
from torch import Tensor

from hush.mpc.functions.norms import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    mean,
    rms_norm,
    sum_of_squares,
    unit_length,
)
from hush.protocols.fixed import Fixed

UNIT = 2.0**-18


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Encodable normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) / UNIT).round() * UNIT


def secure(program: Callable[..., Any], *xs: Tensor) -> Tensor:
    trio = Trio(seed=2)
    return trio.reveal(trio.run(program, *[trio.share(x) for x in xs]))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 384, 768, 1000, 8192])
def test_layer_norm_of_rows_of_any_length(n: int) -> None:
    x = normal(5, n)
    bound = float(x.abs().max())
    y = secure(lambda p, a: layer_norm(p, a, bound=bound), x)
    assert (y - F.layer_norm(x, (n,))).abs().max() < 4e-5


def test_layer_norm_at_a_million_points() -> None:
    """Rows whose variances range from 1e-2 to 1e4 in one tensor, weights and bias secret."""
    x = (normal(2048, 512) * 10 ** torch.linspace(-1, 2, 2048, dtype=torch.float64)[:, None] / UNIT).round() * UNIT
    w, b = normal(512, seed=1), normal(512, seed=2)
    y = secure(lambda p, a, w, b: layer_norm(p, a, bound=512.0, weight=w, bias=b), x, w, b)
    error = (y - F.layer_norm(x, (512,), w, b)).abs().amax(-1)
    sigma = x.std(-1)
    assert (error <= 4e-5 + 4 * 4 * UNIT / sigma).all()  # entries and mean are off by a unit: |weight| up to 4


@pytest.mark.parametrize("deviation", [1e-3, 1e-2, 1.0, 100.0])
def test_layer_norm_keeps_relative_precision(deviation: float) -> None:
    """Variances from 1e-6 to 1e4 under one declared bound; below, only the entries' own rounding remains."""
    x = ((normal(16, 768) * deviation + 3 * deviation) / UNIT).round() * UNIT
    y = secure(lambda p, a: layer_norm(p, a, bound=1024.0, eps=1e-12), x)
    assert (y - F.layer_norm(x, (768,), eps=1e-12)).abs().max() < 2e-5 + 2 * UNIT / deviation


@pytest.mark.parametrize("eps", [1e-12, 1e-5])
def test_constant_rows_give_the_bias(eps: float) -> None:
    x = torch.tensor([0.0, 1.0, -7.5, 3.25], dtype=torch.float64)[:, None].expand(4, 96).contiguous()
    y = secure(lambda p, a: layer_norm(p, a, bound=8.0, eps=eps, bias=torch.ones(96)), x)
    assert torch.isfinite(y).all()
    # the mean of a constant row is off by a unit at most, which eps divides
    assert (y - 1).abs().max() <= (1.0 if eps < UNIT**2 else 0.01)


@pytest.mark.parametrize("bound", [4.0, 64.0, 2.0**10, 2.0**12])
@pytest.mark.parametrize("n", [64, 8192])
def test_rms_norm_up_to_its_bound(bound: float, n: int) -> None:
    x = normal(4, n) * torch.tensor([0.1, 1.0, bound / 8, 0.0], dtype=torch.float64)[:, None]
    x[3], x = bound, (x / UNIT).round() * UNIT
    y = secure(lambda p, a: rms_norm(p, a, bound=bound), x)
    error = (y - F.rms_norm(x, (n,), eps=1e-6)).abs().amax(-1)
    assert (error[1:] < 6e-5).all()
    assert error[0] < 1e-3


def test_no_square_overflows_at_the_bound() -> None:
    for bound in (2.0**5, 2.0**12, 2.0**14, 2.0**20):
        p = Fixed(strict=True)
        x = torch.full((2, 8192), bound, dtype=torch.float64)
        x[1, ::2] *= -1
        for step in (rms_norm(p, p.enter(x), bound=bound), layer_norm(p, p.enter(x), bound=bound)):
            with pytest.raises(StopIteration) as stop:
                next(step)
            y = p.value_of(stop.value.value)
            assert (y[1].abs() - 1).abs().max() < 1e-4


def test_unit_length() -> None:
    x = normal(6, 384) * torch.tensor([1e-2, 0.1, 1, 3, 10, 0], dtype=torch.float64)[:, None]
    x = (x / UNIT).round() * UNIT
    y = secure(lambda p, a: unit_length(p, a, bound=64.0), x)
    assert (y - F.normalize(x, dim=-1)).abs().max() < 1e-5
    across = secure(lambda p, a: unit_length(p, a, 0, bound=64.0), x)
    assert (across - F.normalize(x, dim=0)).abs().max() < 1e-5


@pytest.mark.parametrize("public", [False, True])
def test_group_and_instance_norm(public: bool) -> None:
    x, w, b = normal(2, 6, 5, 7), normal(6, seed=1), normal(6, seed=2)

    def weights(secret_w: Any, secret_b: Any) -> dict[str, Any]:
        return {"weight": w, "bias": b} if public else {"weight": secret_w, "bias": secret_b}

    groups = secure(lambda p, x, v, c: group_norm(p, x, 3, bound=8.0, **weights(v, c)), x, w, b)
    instances = secure(lambda p, x, v, c: instance_norm(p, x, bound=8.0, **weights(v, c)), x, w, b)
    assert (groups - F.group_norm(x, 3, w, b)).abs().max() < 4e-5
    assert (instances - F.instance_norm(x, None, None, w, b)).abs().max() < 4e-5


def test_groups_must_divide_channels() -> None:
    p = Fixed()
    with pytest.raises(ValueError, match="5 channels"):
        list(group_norm(p, p.enter(torch.zeros(1, 5, 2)), 2, bound=1.0))


@pytest.mark.parametrize("public", [False, True])
def test_batch_norm(public: bool) -> None:
    x, w, b, m = normal(3, 6, 4, 4), normal(6, seed=1), normal(6, seed=2), normal(6, seed=3)
    v = (torch.linspace(0.01, 2, 6, dtype=torch.float64) / UNIT).round() * UNIT
    expected = F.batch_norm(x, m, v, w, b)
    if public:
        y = secure(lambda p, x: batch_norm(p, x, m, v, variance_bound=2.0, weight=w, bias=b), x)
    else:
        y = secure(lambda p, x, m, v, w, b: batch_norm(p, x, m, v, variance_bound=2.0, weight=w, bias=b), x, m, v, w, b)
    assert (y - expected).abs().max() < 6e-5


@pytest.mark.parametrize(("n", "bound"), [(768, 64.0), (1000, 8.0), (8192, 2.0**12)])
def test_mean(n: int, bound: float) -> None:
    x = (normal(4, n) * bound / 6).clamp(-bound, bound)
    x[0] = bound
    x = (x / UNIT).round() * UNIT
    y = secure(lambda p, a: mean(p, a, bound=bound), x)
    assert (y - x.mean(-1, keepdim=True)).abs().max() <= UNIT + bound * 2.0**-28


def test_puma_layer_norm_has_pumas_error() -> None:
    x = normal(64, 128)
    y = secure(lambda p, a: layer_norm(p, a, bound=8.0, approx="puma"), x)
    error = (y - F.layer_norm(x, (128,))).abs().max()
    assert 5e-5 < error < 4e-4


def test_squares_cost_a_row_and_not_an_entry() -> None:
    trio = Trio()
    sent = [
        sum(sum(map(sum, r.sent)) for r in trio.predict(program, trio.share(torch.zeros(8, n))))
        for n in (64, 1024)
        for program in [lambda p, a: sum_of_squares(p, a, peak=4.0, total=16.0 * 1024)]
    ]
    assert sent[0] == sent[1]


@pytest.mark.parametrize(
    "program",
    [
        lambda p, a: layer_norm(p, a, bound=8.0),
        lambda p, a: layer_norm(p, a, bound=8.0, dims=2, weight=torch.ones(3, 20)),
        lambda p, a: rms_norm(p, a, bound=3000.0),
        lambda p, a: unit_length(p, a, bound=8.0),
        lambda p, a: group_norm(p, a, 3, bound=8.0),
        lambda p, a: layer_norm(p, a, bound=2.0**14),
    ],
)
def test_predicted_traffic_is_the_measured_one(program: Callable[..., Any]) -> None:
    trio = Trio()
    trio.run(program, x := trio.share(normal(2, 3, 20)))
    assert trio.predict(program, x) == trio.traffic
