"""What the figures are of: the card, its driver, its int8 peak, how much of its memory is taken."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from types import TracebackType
from typing import Any, Self

import torch

from hush.mpc.ring import backends
from hush.parties.cli import measure

Data = dict[str, Any]
PEAKS = {
    "H200 NVL": 1671,
    "H200": 1979,
    "GH200": 1979,
    "H100 NVL": 1671,
    "H100 PCIe": 1513,
    "H100": 1979,
    "A100": 624,
    "A30": 330,
    "A10": 250,
    "L40S": 733,
    "L40": 362,
    "L4": 242,
}
"""10^12 int8 operations a second on tensor cores, dense (half of what the sheets say with sparsity), at full clocks."""
SOURCE = "NVIDIA's data sheets, dense"


def peak(name: str) -> float | None:
    """10^12 int8 multiply-adds a second of a card by its name; None of one that is not known, or a part of one."""
    if "MIG" in name:
        return None
    return next((tops / 2 for card, tops in PEAKS.items() if re.search(rf"\b{card}\b", name, re.IGNORECASE)), None)


def card() -> Data:
    """The GPU and what drives it."""
    found: Data = {"kernels": getattr(backends.get("cuda"), "about", ""), "versions": measure.versions("triton")}
    if not torch.cuda.is_available():
        return found | {"name": "Triton, interpreted", "int8_peak": None}
    name, made = torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0)
    found |= {
        "name": name,
        "capability": f"{made.major}.{made.minor}",
        "memory_gib": round(made.total_memory / 2**30, 1),
    }
    return found | {"cuda": torch.version.cuda, "driver": _driver(), "int8_peak": peak(name), "peak_source": SOURCE}


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        print(f"no driver version: {error}", file=sys.stderr)
        return None


class Memory:
    """The most of the card's memory that is taken meanwhile, by whoever; looked at five times a second."""

    def __init__(self) -> None:
        self._most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def gib(self) -> float | None:
        """None where there is no card."""
        return round(self._most / 2**30, 2) if self._most else None

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            free, total = torch.cuda.mem_get_info()
            self._most = max(self._most, total - free)

    def __enter__(self) -> Self:
        if torch.cuda.is_available():
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
