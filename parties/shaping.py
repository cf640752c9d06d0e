"""Links of a modelled network: our own transport delivers later, not one byte more is sent.

A link is full duplex between two parties. A frame leaves when the frames before it have left, takes its size over the
bandwidth to do so, and arrives half a round trip later: max(now, link free) + 8 * bytes / bandwidth + round_trip / 2.
The real link's own time comes on top.

`lan`: 5 Gbit/s, 0.4 ms round trip. `wan`: 400 Mbit/s, 40 ms round trip.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from hush.mpc.errors import AbortReason, ConfigError, PartyError
from hush.mpc.transport import Buffer, Neighbour, Transport

_SIDES: tuple[Neighbour, Neighbour] = ("next", "prev")


@dataclass(frozen=True, slots=True)
class Net:
    """A network between parties: bits per second of each link and direction, and seconds of a round trip."""

    bandwidth: float
    round_trip: float


NETS = {"lan": Net(5e9, 0.4e-3), "wan": Net(400e6, 40e-3)}


def shape(transport: Transport, net: str) -> Transport:
    """A transport as seen over a network of `NETS`, or the transport itself for "none"."""
    if net == "none":
        return transport
    if net not in NETS:
        raise ConfigError(f"no network is called {net!r}: there are none, {', '.join(NETS)}")
    return Shaped(transport, NETS[net])


class Shaped:
    """A transport whose frames leave as late as a network's would arrive."""

    def __init__(self, inner: Transport, net: Net) -> None:
        self.party, self._inner = inner.party, inner
        self._lanes: dict[Neighbour, _Lane] = {side: _Lane(inner, side, net) for side in _SIDES}

    def send(self, to: Neighbour, buffers: Sequence[Buffer]) -> None:
        """Queue one frame; a failure of an earlier one is raised here."""
        self._lanes[to].send(b"".join(buffers))

    def receive(self, source: Neighbour, nbytes: int) -> memoryview:
        """The next frame of a neighbour, which its own end has delayed."""
        return self._inner.receive(source, nbytes)

    def close(self, reason: AbortReason = AbortReason.CLOSED) -> None:
        """Deliver what is under way if the end is orderly, drop it if not; then close the transport."""
        for lane in self._lanes.values():
            lane.stop(drain=reason is AbortReason.CLOSED)
        self._inner.close(reason)


class _Lane:
    """One direction of one link: a thread that hands frames on when they are due."""

    def __init__(self, inner: Transport, to: Neighbour, net: Net) -> None:
        self._inner, self._to, self._net = inner, to, net
        self._free = 0.0  # when the last frame will have left
        self._frames: queue.SimpleQueue[tuple[float, bytes] | None] = queue.SimpleQueue()
        self._failure: PartyError | None = None
        self._dropping = threading.Event()
        self._thread = threading.Thread(target=self._deliver, name=f"hush-shape-{to}", daemon=True)
        self._thread.start()

    def send(self, frame: bytes) -> None:
        if self._failure is not None:
            raise self._failure
        self._free = max(time.monotonic(), self._free) + 8 * len(frame) / self._net.bandwidth
        self._frames.put((self._free + self._net.round_trip / 2, frame))

    def stop(self, *, drain: bool) -> None:
        if not drain:
            self._dropping.set()
        self._frames.put(None)
        self._thread.join()

    def _deliver(self) -> None:
        while (item := self._frames.get()) is not None:
            due, frame = item
            wait = due - time.monotonic()
            if self._dropping.is_set() or (wait > 0 and self._dropping.wait(wait)) or self._failure is not None:
                continue
            try:
                self._inner.send(self._to, [frame])
            except PartyError as error:
                self._failure = error
