"""How things are timed, and what becomes of one that fails."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

Data = dict[str, Any]
Finding = tuple[str, Any]
Findings = Iterator[Finding]
LONG = 0.02  # seconds of one timing: long beside what starting and waiting take


@dataclass(frozen=True, slots=True)
class Job:
    """What a part is told: to be `quick` (toy sizes), and when (time.monotonic) it has to be over."""

    quick: bool
    until: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()

    @property
    def repeat(self) -> int:
        """Timings that a median is of."""
        return 1 if self.quick else 5


def seconds(run: Callable[[], Any], repeat: int) -> float:
    """Of one run: the median of `repeat` timings of as many runs as take `LONG`, after a warm-up; of 1, the
    first run alone."""
    first = _timed(run, 1)
    if repeat == 1:
        return first
    first = _timed(run, 1)
    count = min(200, max(1, round(LONG / max(1e-9, first))))
    return statistics.median(_timed(run, count) / count for _ in range(repeat))


def _timed(run: Callable[[], Any], count: int) -> float:
    wait()
    begin = time.perf_counter()
    for _ in range(count):
        run()
    wait()
    return time.perf_counter() - begin


def wait() -> None:
    """Until the device has done what it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def guarded(run: Callable[[], Any]) -> Any:
    """What it finds, or why it fails: the rest goes on."""
    try:
        return run()
    except Exception as error:  # whatever it is, it belongs into the record
        return failure(error)


def failure(error: Exception) -> Data:
    """What is written down of it."""
    note(f"failed: {type(error).__name__}: {error}")
    return {"failed": f"{type(error).__name__}: {error}"[:600]}


def note(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)
