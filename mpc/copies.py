"""Messages between a GPU and the transport: pinned host buffers, and copies that nobody waits for but once a round.

What a round sends is copied to pinned buffers on a stream of its own, and the thread waits once, for all of it, before
it is handed on. What arrives is copied from pinned buffers on the stream that computes, so that whatever is computed
next comes after it, and nobody waits. A buffer is used again when its copy is done and the transport has let it go.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hush.mpc.step import Spec

_LEAST = 1 << 12  # bytes of the smallest buffer; the others are twice, four times... as large

Copy = tuple[Tensor, Tensor]  # where to, where from: of one dtype and shape


class Mark(Protocol):
    """A place in a stream of work."""

    def wait(self) -> None:
        """Until all that comes before it is done."""

    def passed(self) -> bool:
        """Whether it is."""


class Lanes(Protocol):
    """What copying needs of a device."""

    device: torch.device

    def pinned(self, nbytes: int) -> Tensor:
        """uint8 [nbytes] in host memory that the device can read and write by itself."""

    def leave(self, copies: Sequence[Copy]) -> Mark:
        """Queue copies to the host, after all that computing has queued so far; computing goes on beside them."""

    def enter(self, copies: Sequence[Copy]) -> Mark:
        """Queue copies to the device, before all that computing queues from now on."""


class CudaLanes:
    """`Lanes` of a GPU.

    What arrives takes the stream that computes: on another one its memory would have to come from another pool, and
    what is queued before it was needed for the round anyway.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def pinned(self, nbytes: int) -> Tensor:
        """uint8 [nbytes]; torch keeps pinned memory that was let go for the next one who asks."""
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)

    def leave(self, copies: Sequence[Copy]) -> Mark:
        """On a stream of its own."""
        self._side.wait_stream(torch.cuda.current_stream(self.device))
        return self._queue(self._side, copies)

    def enter(self, copies: Sequence[Copy]) -> Mark:
        """On the stream that computes."""
        return self._queue(torch.cuda.current_stream(self.device), copies)

    def _queue(self, stream: torch.cuda.Stream, copies: Sequence[Copy]) -> Mark:
        with torch.cuda.stream(stream):
            for target, source in copies:
                target.copy_(source, non_blocking=True)
            return _Passing(stream.record_event())


class _Passing:
    """A CUDA event."""

    def __init__(self, event: torch.cuda.Event) -> None:
        self._event = event

    def wait(self) -> None:
        self._event.synchronize()

    def passed(self) -> bool:
        return bool(self._event.query())  # type: ignore[no-untyped-call]


class _Buffer:
    """Pinned memory, and what tells whether it is free again."""

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory
        self.free: Callable[[], bool] = lambda: False  # taken, and not yet said until when

    def lend(self, nbytes: int) -> memoryview:
        """Its first bytes, for others to read; free once they have let go of every view of them."""
        array = self.memory[:nbytes].numpy()
        held = weakref.ref(array)
        self.free = lambda: held() is None
        return array.data


class Copies:
    """One party's messages to and from a device; for one thread at a time."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._buffers: dict[int, list[_Buffer]] = {}

    @property
    def pinned(self) -> int:
        """Bytes of pinned memory held."""
        return sum(size * len(buffers) for size, buffers in self._buffers.items())

    def outgoing(self, messages: Sequence[Sequence[Tensor]]) -> list[list[memoryview]]:
        """The bytes of each message, as buffers of the host; one without bytes has none. Waits once for them all.

        They do not change for as long as anybody holds a view of them.
        """
        queue: list[Copy] = []
        filled: list[tuple[_Buffer, int] | None] = []
        for message in messages:
            flat = [_flat(tensor) for tensor in message if tensor.numel()]
            size = sum(len(f) for f in flat)
            if not size:
                filled.append(None)
                continue
            buffer = self._take(size)
            queue += zip(_cut(buffer.memory, [len(f) for f in flat]), flat, strict=True)
            filled.append((buffer, size))
        if queue:
            self._lanes.leave(queue).wait()
        return [[] if f is None else [f[0].lend(f[1])] for f in filled]

    def incoming(self, payload: memoryview, specs: Sequence[Spec]) -> tuple[Tensor, ...]:
        """The tensors of a message, on the device. Returns before they are there; what is computed next finds them."""
        made = tuple(torch.empty(s.shape, dtype=s.dtype, device=self._lanes.device) for s in specs)
        if not len(payload):
            return made
        buffer = self._take(len(payload))
        buffer.memory[: len(payload)].numpy()[:] = np.frombuffer(payload, np.uint8)
        targets = [_flat(tensor) for tensor in made if tensor.numel()]
        pieces = _cut(buffer.memory, [len(t) for t in targets])
        buffer.free = self._lanes.enter(list(zip(targets, pieces, strict=True))).passed
        return made

    def _take(self, nbytes: int) -> _Buffer:
        size = max(_LEAST, 1 << (nbytes - 1).bit_length())
        known = self._buffers.setdefault(size, [])
        found = next((buffer for buffer in known if buffer.free()), None)
        if found is None:
            found = _Buffer(self._lanes.pinned(size))
            known.append(found)
        found.free = lambda: False
        return found


def copies_for(device: torch.device) -> Copies | None:
    """Those of a GPU; None of main memory, where messages are sent from where they lie."""
    return Copies(CudaLanes(device)) if device.type == "cuda" else None


def _flat(tensor: Tensor) -> Tensor:
    """uint8 [nbytes]: its bytes in order, in its own memory if they lie so."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _cut(memory: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Pieces of these sizes, one after the other."""
    return list(torch.split(memory[: sum(sizes)], list(sizes)))
