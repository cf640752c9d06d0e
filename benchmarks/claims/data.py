"""Data that ships with packages, and windows over it. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def co2() -> Tensor:
    """[2,284] weekly CO2 at Mauna Loa, 1958 to 2001, gaps filled in a straight line (statsmodels)."""
    from statsmodels.datasets import co2 as source

    values = source.load_pandas().data["co2"].interpolate()
    return torch.tensor(values.to_numpy(), dtype=torch.float32)


def sunspots() -> Tensor:
    """[309] sunspots a year, 1700 to 2008 (statsmodels)."""
    from statsmodels.datasets import sunspots as source

    return torch.tensor(source.load_pandas().data["SUNACTIVITY"].to_numpy(), dtype=torch.float32)


def digits() -> tuple[Tensor, Tensor]:
    """Images [1797, 8, 8] in 0..1 and their digits (scikit-learn)."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return torch.tensor(found.images, dtype=torch.float32) / 16, torch.tensor(found.target)


def standardised(series: Tensor, train: int) -> Tensor:
    """A series [T] or [T, C] less its mean, over its deviation, both of the first `train` steps."""
    seen = series[:train]
    return (series - seen.mean(0)) / seen.std(0)


def windows(series: Tensor, seen: int, ahead: int) -> tuple[Tensor, Tensor]:
    """All pairs ([n, seen, C], [n, ahead, C]) of a series [T, C]."""
    cut = series.unfold(0, seen + ahead, 1).transpose(1, 2)
    return cut[:, :seen].contiguous(), cut[:, seen:].contiguous()


def batches(data: Sequence[Tensor], size: int) -> list[tuple[Tensor, ...]]:
    """The rows in calls of one size; what does not fill a call is left out."""
    count = len(data[0]) // size
    return [tuple(part[i * size : (i + 1) * size] for part in data) for i in range(count)]
