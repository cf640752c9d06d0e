"""iTransformer: attention over variates finds what one series says of another.

Synthetic: a leader is noise that nobody can forecast from itself, a follower repeats it later. A linear forecaster
that looks at each variate alone cannot forecast followers; attention over variates can.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from claims.claim import Claim
from claims.data import batches, windows
from claims.training import fit, mse, seeded
from hush.models.itransformer import ITransformer, ITransformerConfig
from hush.models.ltsf_linear import Linear, LTSFConfig

LAG = 12
CONFIG = ITransformerConfig(seq_len=48, pred_len=LAG, d_model=32, n_heads=4, e_layers=2, d_ff=32, variates=4)


def series(steps: int = 3000, seed: int = 0) -> Tensor:
    """[steps, 4]: two leaders, smooth noise; two followers, which repeat them `LAG` steps later, with noise."""
    numbers = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, 1, steps + LAG + 4, generator=numbers)
    leaders = nn.functional.avg_pool1d(noise, 5, stride=1)[:, 0] * 5**0.5
    followers = leaders[:, :steps] + 0.1 * torch.randn(2, steps, generator=numbers)
    return torch.cat([leaders[:, LAG:], followers]).T


def claim() -> Claim:
    """Error on the followers, against a linear layer for each variate alone."""
    values = series()
    train, test = windows(values[:2400], 48, LAG), windows(values[2400:], 48, LAG)
    alone = fit(seeded(lambda: Linear(LTSFConfig(48, LAG, 4, True))), train, mse, steps=600, rate=3e-3)
    inverted = fit(seeded(lambda: ITransformer(CONFIG)), train, mse, steps=800, rate=3e-3)
    calls, wanted = batches(test[:1], 64), torch.cat([rows for (rows,) in batches(test[1:], 64)])

    def score(outputs: list[Tensor]) -> float:
        return nn.functional.mse_loss(torch.cat(outputs)[..., 2:], wanted[..., 2:]).item()

    with torch.inference_mode():
        rival = score([alone(*call) for call in calls])
    return Claim(
        network="itransformer",
        says="followers of other series: error below 0.6 of a forecaster that looks at each series alone (MSE)",
        module=inverted,
        calls=calls[:4],
        score=lambda outputs: nn.functional.mse_loss(
            torch.cat(list(outputs))[..., 2:], wanted[: 64 * len(outputs), :, 2:]
        ).item(),
        rival=rival,
        ranges=batches(train[:1], 64)[:8],
        factor=0.6,
    )
