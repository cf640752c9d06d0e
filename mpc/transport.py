"""Links between parties: ordered, reliable byte frames to and from each neighbour."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import Literal, Protocol

from hush.mpc.errors import AbortReason, DeadlineExceeded, PartyError

Neighbour = Literal["next", "prev"]
Buffer = bytes | bytearray | memoryview


class Transport(Protocol):
    """One party's two links. `send` queues and returns; `receive` blocks for the next frame's bytes.

    A frame is sent as a sequence of buffers, which the receiver sees as one. Buffers must not change after `send`.
    Failures are `PartyError`s that name the neighbour.
    """

    party: int

    def send(self, to: Neighbour, buffers: Sequence[Buffer]) -> None: ...

    def receive(self, source: Neighbour, nbytes: int) -> memoryview:
        """The next `nbytes` from a neighbour (writable or not); exactly that many, or PartyError."""

    def close(self, reason: AbortReason = AbortReason.CLOSED) -> None: ...


class MemoryTransport:
    """Three parties in one process, for tests and benchmarks: queues in the place of sockets."""

    def __init__(self, party: int, inbox: dict[Neighbour, queue.SimpleQueue[bytes | None]], deadline: float) -> None:
        self.party, self._inbox, self._deadline = party, inbox, deadline
        self.peers: dict[Neighbour, MemoryTransport] = {}

    def send(self, to: Neighbour, buffers: Sequence[Buffer]) -> None:
        """Hand one frame to a neighbour."""
        side: Neighbour = "prev" if to == "next" else "next"
        self.peers[to]._inbox[side].put(b"".join(buffers))

    def receive(self, source: Neighbour, nbytes: int) -> memoryview:
        """The next frame of a neighbour, which must have `nbytes`."""
        neighbour = (self.party + (1 if source == "next" else -1)) % 3
        try:
            frame = self._inbox[source].get(timeout=self._deadline)
        except queue.Empty:
            raise DeadlineExceeded(neighbour, AbortReason.DEADLINE) from None
        if frame is None:
            raise PartyError(neighbour, AbortReason.DISCONNECTED)
        if len(frame) != nbytes:
            raise PartyError(neighbour, AbortReason.MALFORMED, f"{len(frame)} bytes where {nbytes} were due")
        return memoryview(frame)

    def close(self, reason: AbortReason = AbortReason.CLOSED) -> None:
        """Wake both neighbours."""
        for to, peer in self.peers.items():
            peer._inbox["prev" if to == "next" else "next"].put(None)


def memory_trio(deadline: float = 60.0) -> tuple[MemoryTransport, MemoryTransport, MemoryTransport]:
    """Three connected in-memory transports."""
    trio = tuple(
        MemoryTransport(i, {"next": queue.SimpleQueue(), "prev": queue.SimpleQueue()}, deadline) for i in range(3)
    )
    for i, transport in enumerate(trio):
        transport.peers = {"next": trio[(i + 1) % 3], "prev": trio[(i - 1) % 3]}
    return trio[0], trio[1], trio[2]
