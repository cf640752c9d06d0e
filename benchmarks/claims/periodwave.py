"""PeriodWave: waves folded by several periods come out more periodic than waves that are not folded.

Synthetic: a random pattern of 3, 4 or 6 samples over and over, so high notes. Measured is what of a generated wave's
energy does not repeat, which is nothing in the data. The network with period 1 alone has the same layers and as many
training steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from claims.claim import Call, Claim
from claims.training import fit, seeded
from hush.models.periodwave import TINY, PeriodWave, PeriodWaveConfig, prior, request, spectrogram

LENGTHS = (3, 4, 6)
CONFIG = replace(TINY, frames=4)
FLOOR = 1e-4  # sigma of the flow at its end


def waves(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Waves [count, 1, T], their spectrograms, the length of what each repeats."""
    numbers = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(LENGTHS)[torch.randint(len(LENGTHS), (count,), generator=numbers)]
    patterns, places = torch.randn(count, max(LENGTHS), generator=numbers), torch.arange(CONFIG.frames * CONFIG.hop)
    wave = patterns.gather(1, places[None] % lengths[:, None])
    wave = wave - wave.mean(-1, keepdim=True)
    wave = 0.5 * wave / wave.std(-1, keepdim=True).clamp(min=0.1)
    return wave[:, None], spectrogram(wave, CONFIG.n_mel, CONFIG.hop), lengths


def flow_matching(network: torch.nn.Module, wave: Tensor, mel: Tensor) -> Tensor:
    """Squared error of the velocity, relative to the prior's deviation, at random times."""
    assert isinstance(network, PeriodWave)
    c, v = network.config, network.estimator
    start, given = request(c, mel, torch.randn_like(wave))
    time = torch.rand(len(wave))
    t = time[:, None, None]
    there = (1 - (1 - FLOOR) * t) * start + t * wave
    said: Tensor = v(there, v.MelCond(given), v.embedding(time))
    gap = (said - (wave - (1 - FLOOR) * start)) / prior(mel).repeat_interleave(c.hop, -1)
    return gap.square().mean()


def aperiodic(outputs: Sequence[Tensor], lengths: Tensor) -> float:
    """The share of all waves' energy that does not repeat."""
    repeated, energy = 0.0, 0.0
    for wave, length in zip(torch.cat(list(outputs))[:, 0], lengths.tolist(), strict=True):
        rows = wave[: len(wave) // length * length].reshape(-1, length)
        rows = rows - rows.mean()
        repeated += rows.mean(0).square().mean().item()
        energy += rows.square().mean().item()
    return 1 - repeated / energy


def claim() -> Claim:
    """What does not repeat, against the same network with period 1 alone."""
    train, mel, _ = waves(2000, 1)
    _, given, lengths = waves(12, 2)
    numbers = torch.Generator().manual_seed(3)

    def trained(c: PeriodWaveConfig) -> torch.nn.Module:
        return fit(seeded(lambda: PeriodWave(c)), (train, mel), flow_matching, steps=110, rate=1e-2, batch=32)

    several, one = trained(CONFIG), trained(replace(CONFIG, periods=(1,)))

    def call(mels: Tensor) -> Call:
        return request(CONFIG, mels, torch.randn(len(mels), 1, CONFIG.frames * CONFIG.hop, generator=numbers))

    held = call(given)
    with torch.inference_mode():
        rival = aperiodic([one(*held)], lengths)
    return Claim(
        network="periodwave",
        says="of waves that repeat, no more than 0.7 of what period 1 alone leaves aperiodic (share of energy)",
        module=several,
        calls=[held],
        score=lambda outputs: aperiodic(outputs, lengths),
        rival=rival,
        ranges=[call(mel[:12])],
        factor=0.7,
    )
