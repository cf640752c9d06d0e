"""Public tensors beside the secrets that they meet: where a party computes on a GPU, there, without waiting for it.

A copy to a GPU that is waited for is done only when all is that was queued before it, and until the next kernel is
started the GPU has nothing to do. So the copies here are queued. Of up to `SMALL` bytes CUDA takes a copy of its own at
once and nobody waits; for more it may, so larger ones stay on the device for as long as the tensor that they are of.
Nothing secret goes through here: what is kept would outlive its session. In main memory all of this does nothing.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

SMALL = 1 << 16

_KEPT = WeakTensorKeyDictionary()
_LOCK = threading.Lock()


def beside(value: Tensor, device: torch.device) -> Tensor:
    """A public tensor on a device. What was changed in place since it was kept is copied again."""
    if value.device == device:
        return value
    if value.nbytes <= SMALL or device.type == "meta" or value.is_inference():  # the last do not count their changes
        return value.to(device, non_blocking=True)
    with _LOCK:
        kept: dict[torch.device, tuple[int, Tensor]] = _KEPT.setdefault(value, {})  # type: ignore[no-untyped-call]
        if device not in kept or kept[device][0] != value._version:
            kept[device] = value._version, value.to(device, non_blocking=True)
        return kept[device][1]


def operand(value: Tensor, device: torch.device) -> Tensor:
    """The same for an operand of arithmetic: a number stays in main memory, from where kernels take it as it is."""
    return value if not value.ndim else beside(value, device)


def filled(value: Tensor, device: torch.device) -> Tensor:
    """The same for what is concatenated or returned: a number is filled in there, and not copied."""
    if value.ndim or value.device == device:
        return beside(value, device)
    return torch.full((), int(value), dtype=value.dtype, device=device)


def at(index: Any, device: torch.device) -> Any:
    """What stands in x[...], its tensors on the device of x; without data as it is."""
    if device.type in ("cpu", "meta"):
        return index
    if isinstance(index, tuple):
        return tuple(at(i, device) for i in index)
    return beside(index, device) if isinstance(index, Tensor) else index


@lru_cache(maxsize=4096)
def row(values: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    """A few integers, such as places that a list would name, made once; nobody writes to them."""
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)
