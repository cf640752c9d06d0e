"""How a kernel is started: as Triton does it, but one at a time in its interpreter, which is not made for threads."""

from __future__ import annotations

import os
import threading
from contextlib import nullcontext
from typing import Any

_ONE = threading.Lock()


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """kernel[grid](*arguments, **options)."""
    with _ONE if interpreted() else nullcontext():
        kernel[grid](*arguments, **options)
