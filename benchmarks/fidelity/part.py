"""What a part of the measurement has in common with the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Row = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Work:
    """Where trained networks are kept, whether to measure little, and who is told about progress."""

    folder: Path
    quick: bool
    say: Say


class Part(ABC):
    """One network, measured under every interpretation of both approximation sets."""

    name: str

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What is measured: rows of other facts are of another measurement."""

    @abstractmethod
    def reference(self) -> Row:
        """The figures of the module itself, in float."""

    @abstractmethod
    def measure(self, approx: str, interpretation: str) -> Row:
        """The figures of the program with an approximation set under an interpretation."""


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, of two rows of numbers."""
    return float(torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1])


def differences(found: Tensor, wanted: Tensor) -> tuple[float, float]:
    """(largest, mean) absolute difference."""
    gap = (found.double() - wanted.double()).abs()
    return float(gap.max()), float(gap.mean())


def count_of(violations: Mapping[str, int]) -> int:
    """How many there were of all kinds."""
    return sum(violations.values())
