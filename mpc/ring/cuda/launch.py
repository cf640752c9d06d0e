"""How a kernel is started: as Triton does it, but one at a time, and within a GPU's limits wherever it runs."""

from __future__ import annotations

import os
import threading
from typing import Any

_ONE = threading.Lock()
_MOST = (1 << 31) - 1, 65_535, 65_535
"""Programs along x, y and z that CUDA starts."""


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """kernel[grid](*arguments, **options).

    One at a time, as neither Triton's interpreter is made for threads nor its compiler: a kernel's first launch puts it
    together in steps, and a thread that comes meanwhile may find half of it. Where it is there, a launch is Python's
    work nearly alone, of which there is one at a time anyway.
    """
    if any(n > most for n, most in zip(grid, _MOST, strict=False)):
        raise ValueError(f"a grid of {grid} programs: CUDA starts {_MOST} at most")
    with _ONE:
        kernel[grid](*arguments, **options)
