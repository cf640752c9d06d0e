"""A Transformer encoder with Time2Vec: features chosen by correlation make forecasts better.

Synthetic market: two prices lead, smooth noise; the price in question is their scaled sum of two steps before, with
noise; five more have nothing to do with it. From what the training part's correlations choose, the network forecasts
the next step better than from the price alone.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from claims.claim import Claim
from claims.data import batches, windows
from claims.training import fit, mse, seeded
from hush.models.time2vec import TINY, Time2VecTransformer, correlated

LAG, TRAIN = 2, 2400
CONFIG = replace(TINY, seq_len=16, targets=1)


def market(steps: int = 3200, seed: int = 0) -> Tensor:
    """[steps, 8]: the price in question, its two leaders and five others, all smooth over three steps."""
    numbers = torch.Generator().manual_seed(seed)
    noise = torch.randn(7, 1, steps + LAG + 2, generator=numbers)
    others = nn.functional.avg_pool1d(noise, 3, stride=1)[:, 0] * 3**0.5
    follower = others[:2, :steps].sum(0) / 2**0.5 + 0.2 * torch.randn(steps, generator=numbers)
    return torch.cat([follower[None], others[:, LAG:]]).T


def claim() -> Claim:
    """Error of a forecast from the chosen features, against that from the price alone."""
    series = market()
    chosen = correlated(series[:TRAIN], target=0, count=3, lag=1)
    calls, wanted, train, network = _trained(series[:, chosen])
    alone_calls, _, _, alone = _trained(series[:, :1])

    def score(outputs: list[Tensor]) -> float:
        answers = torch.cat(outputs)
        return nn.functional.mse_loss(answers, wanted[: len(answers)]).item()

    with torch.inference_mode():
        rival = score([alone(*call) for call in alone_calls])
    return Claim(
        network="time2vec",
        says="features chosen by correlation: error below a quarter of a forecast from the price alone (MSE)",
        module=network,
        calls=calls[:4],
        score=lambda outputs: score(list(outputs)),
        rival=rival,
        ranges=train[:8],
        factor=0.25,
    )


def _trained(series: Tensor) -> tuple[list[tuple[Tensor, ...]], Tensor, list[tuple[Tensor, ...]], nn.Module]:
    """Held-out calls, what they should give, training calls, and a network trained on the first `TRAIN` steps."""
    (seen, ahead), (held, wanted) = (windows(part, CONFIG.seq_len, 1) for part in (series[:TRAIN], series[TRAIN:]))
    config = replace(CONFIG, features=series.shape[1])
    train = seen, ahead[:, 0, :1]
    network = fit(seeded(lambda: Time2VecTransformer(config)), train, mse, steps=300, rate=4e-3)
    return batches((held,), 64), wanted[:, 0, :1], batches(train[:1], 64), network
