"""The spiking LMUFormer: activations of one bit, and still a better classifier than the memory unit alone.

The digits and the rival of `claims.lmuformer`.
"""

from __future__ import annotations

from dataclasses import replace

from claims.claim import Claim
from claims.lmuformer import against_the_unit, entropy, rows
from claims.training import fit, seeded
from hush.models.lmuformer import TINY, LMUFormer


def claim() -> Claim:
    """Accuracy on held-out digits, against the memory unit alone."""
    former = fit(
        seeded(lambda: LMUFormer(replace(TINY, spiking=True, memory_ratio=2))),
        rows()[0],
        entropy,
        steps=300,
        rate=2e-2,
        batch=128,
    )
    return against_the_unit("lmuformer-spiking", former, 0.03)
