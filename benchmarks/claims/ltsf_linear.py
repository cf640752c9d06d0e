"""LTSF-Linear: where the level shifts, NLinear forecasts better than Linear, and both better than the last value.

Weekly CO2, two years to half a year ahead, standardised on the first 70%, tested on the last 20%.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from claims.claim import Claim
from claims.data import batches, co2, standardised, windows
from claims.training import fit, mse, seeded
from hush.models.ltsf_linear import Linear, LTSFConfig, NLinear

CONFIG = LTSFConfig(seq_len=104, pred_len=26)


def claim() -> Claim:
    """Test error of NLinear against Linear's."""
    series = standardised(co2(), 1600).reshape(-1, 1)
    train, test = windows(series[:1600], 104, 26), windows(series[1826 - 104 :], 104, 26)
    linear, nlinear = (_trained(network, train) for network in (Linear, NLinear))
    calls, wanted = batches(test[:1], 64), torch.cat([rows for (rows,) in batches(test[1:], 64)])

    def score(outputs: list[Tensor]) -> float:
        return nn.functional.mse_loss(torch.cat(outputs), wanted).item()

    with torch.inference_mode():
        rival = score([linear(*call) for call in calls])
    return Claim(
        network="ltsf-nlinear",
        says="under a shifting level NLinear's error is less than three quarters of Linear's (weekly CO2, MSE)",
        module=nlinear,
        calls=calls,
        score=score,
        rival=rival,
        ranges=batches(train[:1], 64),
        factor=0.75,
    )


def _trained(network: type[nn.Module], train: tuple[Tensor, Tensor]) -> nn.Module:
    return fit(seeded(lambda: network(CONFIG)), train, mse, steps=1500, rate=5e-3)
