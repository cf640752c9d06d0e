"""PeriodWave: what its parts are defined to do, and its size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hush.models.initial import seeded
from hush.models.periodwave import (
    GRN,
    PAPER,
    TINY,
    MelSpectrogramUpsampler,
    PeriodWave,
    PeriodWaveConfig,
    example,
    fold,
    prior,
    silu,
    unfold,
)
from hush.models.registry import get


def network(**changes: object) -> PeriodWave:
    """Alike whatever the solver; GRN's weights are not 0."""
    module = seeded(lambda: PeriodWave(replace(TINY, **changes)))  # type: ignore[arg-type]
    assert isinstance(module, PeriodWave)
    for part in module.modules():
        if isinstance(part, GRN):
            part.gamma.fill_(0.5)
    return module


def test_parameters_at_paper_size() -> None:
    """29.80M is published; this is what the convolutions have once weight normalisation is folded into them."""
    count = get("periodwave").sizes["paper"].parameters()
    assert count == 29_795_456
    assert round(count / 1e6, 1) == 29.8


def test_hop_of_the_paper() -> None:
    assert PAPER.hop == 256


@pytest.mark.parametrize("period", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("length", [256, 512, 700])
def test_folding_and_back(period: int, length: int) -> None:
    x = torch.randn(2, 3, length)
    folded = fold(x, period, 8)
    assert folded.shape[2] % 8 == 0
    assert folded.shape[3] == period
    assert torch.equal(folded[:, :, 1, 0], x[:, :, period])
    assert torch.equal(unfold(folded, length), x)


def test_a_period_is_a_constant_column() -> None:
    folded = fold(torch.randn(1, 1, 3).repeat(1, 1, 80), 3, 8)
    assert torch.equal(folded, folded[:, :, :1].expand_as(folded))


@pytest.mark.parametrize("frames", range(4, 13))
def test_the_mels_features_reach_as_far_as_the_folded_waveform(frames: int) -> None:
    c = replace(TINY, periods=(1, 2, 3, 5, 7))
    features = seeded(lambda: MelSpectrogramUpsampler(c))(torch.randn(1, c.n_mel + 1, frames))
    for period, found in zip(c.periods, features, strict=True):
        assert found.shape[2] >= -(-4 * frames // period)


def test_silu_by_tanh() -> None:
    x = torch.linspace(-20, 20, 401)
    torch.testing.assert_close(silu(x), nn.functional.silu(x), atol=1e-6, rtol=1e-4)


def test_grn_is_norms_over_their_mean() -> None:
    grn, x = GRN(6), torch.randn(2, 9, 6)
    grn.gamma.data.normal_(), grn.beta.data.normal_()
    norms = x.norm(dim=1, keepdim=True)
    wanted = grn.gamma * (x * norms / (norms.mean(-1, keepdim=True) + 1e-6)) + grn.beta + x
    torch.testing.assert_close(grn(x), wanted)


class Decay(nn.Module):
    """dx/dt = -(1 + t) x, whose solution is known, in place of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.MelCond = nn.Identity()

    def embedding(self, time: Tensor) -> Tensor:
        return time

    def forward(self, x: Tensor, cond: Tensor, emb: Tensor) -> Tensor:
        return -(1 + emb) * x


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2)])
def test_orders_of_the_solvers(solver: str, order: int) -> None:
    """Twice the steps, an error 2^order times smaller."""
    errors = []
    for steps in (16, 32):
        module = PeriodWave(replace(TINY, solver=solver, steps=steps))
        module.estimator = Decay()  # type: ignore[assignment]
        module.times = module.times.double()
        x = torch.ones(1, 1, 1, dtype=torch.float64)
        errors.append((module(x, x) - torch.exp(torch.tensor(-1.5))).abs().item())
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)


def test_flags_change_the_answer() -> None:
    call = example("tiny", TINY.frames, 1, 0)
    plain = network()(*call)
    flags: dict[str, object] = {"s_w": 0.9, "b_w": 1.1, "scale_by_hidden": False, "pad_by_width": False}
    for name, value in {**flags, "solver": "euler", "steps": 2}.items():
        assert not torch.allclose(network(**{name: value})(*call), plain, atol=1e-5)


def test_a_batch_is_its_rows() -> None:
    call, module = example("tiny", TINY.frames, 2, 0), network()
    alone = torch.cat([module(*(part[i : i + 1] for part in call)) for i in range(2)])
    torch.testing.assert_close(module(*call), alone, atol=1e-5, rtol=1e-4)


def test_the_prior_follows_the_energy() -> None:
    mel = torch.stack([torch.full((PeriodWaveConfig().n_mel, 4), value) for value in (-9.0, -2.0, 0.0)])
    deviations = prior(mel)[:, 0, 0]
    assert deviations[0] == 0.1
    assert deviations[1] < deviations[2]
