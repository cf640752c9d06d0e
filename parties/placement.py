"""Where a party's tensors lie: main memory, or the GPU that it computes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TypeVar, cast

import torch
from torch import Tensor

from hush.mpc.errors import AbortReason, PartyError
from hush.mpc.points import Points
from hush.mpc.secret import Shared

V = TypeVar("V", bound=Shared | Tensor)


class Placed:
    """A deployment's weights on a device: copied there once, and the copies kept as long as this is."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._weights: dict[str, Shared | Tensor] = {}

    def weights(self, weights: Mapping[str, Shared | Tensor]) -> Mapping[str, Shared | Tensor]:
        """All of them; in main memory, those given."""
        if self._device.type == "cpu":
            return weights
        for name, value in weights.items():
            if name not in self._weights:
                self._weights[name] = placed(value, self._device)
        return self._weights

    def inputs(self, inputs: list[Shared | Points]) -> list[Shared | Points]:
        """Shares of inputs; keys of places stay, trees are grown in main memory."""
        return [placed(x, self._device) if isinstance(x, Shared) else x for x in inputs]


def placed(value: V, device: torch.device) -> V:
    """A secret or a tensor on a device."""
    if isinstance(value, Shared):
        return replace(value, parts=tuple(part.to(device) for part in value.parts))
    assert isinstance(value, Tensor)
    return cast(V, value.to(device))


def in_main_memory(value: Shared) -> Shared:
    """What a client is sent."""
    return placed(value, torch.device("cpu"))


@contextmanager
def guarded(party: int, device: torch.device) -> Iterator[None]:
    """What is started meanwhile is started on this device. A GPU that is full or lost ends the session with a reason,
    and gives back what it holds."""
    try:
        with _current(device):
            yield
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        more = "raise `device_memory`, use fewer models or parties on it, shorter inputs, or the CPU"
        detail = f"{device} has no memory left for this model: {more}"
        raise PartyError(party, AbortReason.LIMIT, detail) from None
    except RuntimeError as error:
        if device.type == "cpu" or "CUDA" not in str(error):
            raise
        raise PartyError(
            party, AbortReason.INTERNAL, f"{device} failed: restart the party, on another GPU or the CPU"
        ) from None


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Each thread begins with GPU 0 as its own, where kernels are started whatever their operands lie on."""
    return torch.cuda.device(device) if device.type == "cuda" and torch.cuda.is_available() else nullcontext()
