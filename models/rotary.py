"""Rotary positions: Su et al., "RoFormer", arXiv 2104.09864, in the form of HF's LLaMA (halves, not pairs)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hush.mpc.errors import ModelError

Turn = tuple[Tensor, Tensor]  # cosines and sines, each [slots, size]
KNOWN = ("default", "linear", "llama3")


def rotary_tables(size: int, length: int, theta: float, scaling: Mapping[str, Any]) -> Turn:
    """cos and sin of position * frequency, each [length, size]; public, so computed before anything is shared.

    `scaling` is `rope_parameters` (before: `rope_scaling`) of a `config.json`. ModelError for a kind not in `KNOWN`.
    """
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in KNOWN:
        raise ModelError(f"config.json: rotary positions of type {kind!r}: choose from {', '.join(KNOWN)}")
    frequencies = 1.0 / theta ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    try:
        if kind == "linear":
            frequencies = frequencies / scaling["factor"]
        elif kind == "llama3":
            frequencies = _llama3(frequencies, scaling)
    except KeyError as missing:
        raise ModelError(f"config.json: rotary positions of type {kind!r} need {missing}") from None
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies
    return torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()


def _llama3(frequencies: Tensor, scaling: Mapping[str, Any]) -> Tensor:
    """Long waves slowed down by `factor`, short ones kept, between them a mixture (Llama 3.1)."""
    factor, low, high = (scaling[name] for name in ("factor", "low_freq_factor", "high_freq_factor"))
    waves = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)  # in the original context
    mixture = ((waves - low) / (high - low)).clamp(0, 1)
    slowed: Tensor = (1 - mixture) * frequencies / factor + mixture * frequencies
    return slowed


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[..., T, size] with each of its rows turned by its position."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin
