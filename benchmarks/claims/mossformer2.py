"""MossFormer2: attention over frames and memory of those around separate voices that no frame alone can tell apart.

Synthetic: a low and a high voice whose pitches glide and whose overtones meet in the same bands. Trained as in the
paper, for the scale-invariant ratio of signal to distortion under the better order of speakers. Measured as the share
of an answer's energy that is not its speaker's, against the same network without layers: a mask from each frame alone.
What the recurrent module adds to attention does not show after seconds of training, and is not claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from claims.claim import Claim
from claims.training import fit, seeded
from hush.models.mossformer2 import TINY, MossFormer2, voices

SAMPLES = TINY.samples


def likeness(said: Tensor, wanted: Tensor) -> Tensor:
    """[B, speakers, samples] twice -> [B, speakers]: the squared cosine, which no scale changes."""
    energy = said.square().sum(-1) * wanted.square().sum(-1)
    return (said * wanted).sum(-1).square() / (energy + 1e-8)


def ordered(said: Tensor, wanted: Tensor) -> Tensor:
    """The likeness [B, 2] of the order of speakers that is better on average."""
    straight, crossed = likeness(said, wanted), likeness(said, wanted.flip(1))
    better = straight.mean(1, keepdim=True) >= crossed.mean(1, keepdim=True)
    return torch.where(better, straight, crossed)


def loss(module: nn.Module, wanted: Tensor) -> Tensor:
    """Minus the scale-invariant ratio, in dB, of the answer to the mixture."""
    same = ordered(module(wanted.sum(1)), wanted)
    return -10 * torch.log10(same / (1 - same + 1e-6) + 1e-6).mean()


def claim() -> Claim:
    """Energy that is not the speaker's, with and without the mask network's layers."""
    train, test = voices(512, SAMPLES, 0), voices(32, SAMPLES, 1)
    frame = fit(
        seeded(lambda: MossFormer2(replace(TINY, num_mossformer_layer=0))),
        (train,),
        loss,
        steps=300,
        rate=2e-2,
        batch=16,
    )
    whole = fit(seeded(lambda: MossFormer2(TINY)), (train,), loss, steps=180, rate=2e-2, batch=16)
    calls = [(rows.sum(1),) for rows in torch.split(test, 16)]

    def score(outputs: Sequence[Tensor]) -> float:
        return 1 - ordered(torch.cat(list(outputs)), test).mean().item()

    with torch.inference_mode():
        rival = score([frame(*call) for call in calls])
    return Claim(
        network="mossformer2",
        says="two voices: what is not the speaker's is below 0.65 of a mask from each frame alone (share of energy)",
        module=whole,
        calls=calls,
        score=score,
        rival=rival,
        ranges=[(rows.sum(1),) for rows in torch.split(train[:64], 16)],
        factor=0.65,
    )
