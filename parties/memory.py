"""How much memory this process uses."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from pathlib import Path


def resident() -> int:
    """Resident memory of this process in bytes (its peak, where the system tells nothing better)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return peak_resident()


def peak_resident() -> int:
    """Largest resident memory of this process so far, in bytes.

    From the kernel's own mark where there is one: `ru_maxrss` of a child begins at its launcher's.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    if (mark := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)) is not None:
        return int(mark[1]) << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's names in glibc
_RETAINED = 1 << 30


def retain() -> None:
    """Let the C library keep freed memory, up to 1 GiB, until `trim`, where it can be asked to.

    A run frees and takes tensors of megabytes all the time. Left alone, glibc hands each back to the system, and the
    kernel finds and clears its pages anew.
    """
    if sys.platform == "linux":
        option = getattr(ctypes.CDLL(None), "mallopt", None)
        if option is not None:
            option(_MMAP_THRESHOLD, _RETAINED)
            option(_TRIM_THRESHOLD, _RETAINED)


def trim() -> None:
    """Hand back to the system what the C library keeps of memory that was freed, where it can be asked to."""
    if sys.platform == "linux":
        release = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if release is not None:
            release(0)
