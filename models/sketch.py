"""What of a network's answer a person looks at: curves, arrows, images or bars; `hush run NAME --picture FILE`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Curve:
    """Values [N] from the place `start` on. `answer`: from the network's output, so drawn for shares and plaintext."""

    label: str
    values: Tensor
    start: int = 0
    answer: bool = False


@dataclass(frozen=True, slots=True)
class Curves:
    """Curves over one axis: a forecast behind its history, a waveform."""

    title: str
    curves: Sequence[Curve]
    axis: str = "step"


@dataclass(frozen=True, slots=True)
class Arrows:
    """Vectors [N, 2] at points [N, 2]: a flow field."""

    title: str
    points: Tensor
    vectors: Tensor


@dataclass(frozen=True, slots=True)
class Image:
    """Values [H, W]: a slice of a field, a spectrogram."""

    title: str
    values: Tensor


@dataclass(frozen=True, slots=True)
class Bars:
    """A number for each label: scores of classes, tokens a patch."""

    title: str
    labels: Sequence[str]
    values: Tensor


Sketch = Curves | Arrows | Image | Bars


def forecast(title: str, history: Tensor, answer: Tensor) -> Curves:
    """History [L] and what a network says comes after it [H]."""
    return Curves(title, (Curve("history", history), Curve("forecast", answer, len(history), answer=True)))
