"""Where a party's tensors lie: main memory, or the GPU that it computes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from hush.mpc.errors import AbortReason, HushError, PartyError
from hush.mpc.points import Points
from hush.mpc.ring.kernels import Kernels
from hush.mpc.ring.seeded import Seeded
from hush.mpc.secret import Shared
from hush.parties.logs import LOGGER

Weights = Mapping[str, Shared | Tensor]
_TOLD = 500  # characters of a device's own words that are logged


class Placed:
    """A model's weights where a party computes, copied there once, for all sessions of the model. Safe for threads.

    Components that came as seeds are expanded there; those of the weights named in `seeds` stay seeds, which products
    expand as they read them.
    """

    def __init__(self, kernels: Kernels, seeds: frozenset[str] = frozenset()) -> None:
        self._kernels, self._seeds, self.streams = kernels, seeds, bool(seeds)
        self._weights: dict[str, Shared | Tensor] = {}
        self._lock = threading.Lock()

    def take(self, name: str, value: Shared | Tensor) -> None:
        """Place one weight."""
        self._weights[name] = self._placed(value, seeds=name in self._seeds)

    def weights(self, weights: Weights) -> Weights:
        """All of them; in main memory, those given."""
        if not self._kernels.seeds:
            return {**weights, **self._weights} if self._weights else weights
        with self._lock:
            for name in weights:
                if name not in self._weights:
                    self.take(name, weights[name])
        return self._weights

    def inputs(self, inputs: list[Shared | Points]) -> list[Shared | Points]:
        """Shares of inputs; keys of places stay, trees are grown in main memory."""
        return [placed(x, self._kernels.device) if isinstance(x, Shared) else x for x in inputs]

    def clear(self) -> None:
        """Let go of them all."""
        self._weights = {}

    def _placed(self, value: Shared | Tensor, *, seeds: bool) -> Shared | Tensor:
        if isinstance(value, Tensor):
            return value.to(self._kernels.device)
        return value.local(lambda part: self._component(part, seeds))

    def _component(self, part: Tensor, seeds: bool) -> Tensor:
        if not isinstance(part, Seeded):
            return part.to(self._kernels.device)
        moved = part.on(self._kernels.device, self._kernels.keystream)
        return moved if seeds else moved.expanded()


def placed(value: Shared, device: torch.device) -> Shared:
    """A secret on a device."""
    return replace(value, parts=tuple(part.to(device) for part in value.parts))


def in_main_memory(value: Shared) -> Shared:
    """What a client is sent."""
    return placed(value, torch.device("cpu"))


@contextmanager
def guarded(party: int, device: torch.device, lost: Callable[[str], None] = lambda why: None) -> Iterator[None]:
    """What is started meanwhile is started on this device. One that is full, broken or gone ends the session with a
    reason; its own words are logged. `lost`: told of one that will serve nobody until the party is started again."""
    try:
        with current(device):
            yield
    except HushError:
        raise
    except Exception as error:
        why = _fault(error, device)
        if why is None:
            raise
        LOGGER.error("device failed", extra={"party": party, "device": str(device), "error": str(error)[:_TOLD]})
        if why.lost:
            lost(why.detail)
        raise PartyError(party, why.reason, why.detail) from None


class _Fault(NamedTuple):
    """What became of a device, the way out, and whether it will serve anybody."""

    reason: AbortReason
    detail: str
    lost: bool = False


def _fault(error: Exception, device: torch.device) -> _Fault | None:
    """None if the error is not the device's: that an operation is not there for it is the program's, for instance."""
    text = str(error)
    full = "CUDA" in text and ("out of memory" in text or "ALLOC_FAILED" in text)
    if full or isinstance(error, torch.cuda.OutOfMemoryError):
        more = "raise `device_memory`, use fewer models or parties on it, shorter inputs, or the CPU"
        return _Fault(AbortReason.LIMIT, f"{device} has no memory left for this model: {more}")
    if type(error).__module__.partition(".")[0] == "triton" or "no kernel image" in text or "C compiler" in text:
        more = "see the party's log; use another GPU or the CPU"
        return _Fault(AbortReason.INTERNAL, f"{device} cannot run the kernels of this model: {more}")
    failed = isinstance(error, RuntimeError) and not isinstance(error, NotImplementedError) and "CUDA" in text
    if failed and device.type != "cpu":
        return _Fault(AbortReason.INTERNAL, f"{device} failed: restart the party, on another GPU or the CPU", lost=True)
    return None


def current(device: torch.device) -> AbstractContextManager[object]:
    """What is started meanwhile is started on this device: each thread begins with GPU 0 as its own, where kernels are
    started whatever their operands lie on."""
    return torch.cuda.device(device) if device.type == "cuda" and torch.cuda.is_available() else nullcontext()
