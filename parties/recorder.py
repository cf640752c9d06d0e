"""What a party writes down of an invocation whose client asked for a profile: when it did what, and for how long.

It sees rounds as they pass and takes their sizes, never a value. Time is cut into spans without a gap: what runs
between two calls belongs to the op that was named last. Nothing of this exists in an invocation without a profile.

A GPU is asked to work and not waited for, so that all of it would show where somebody first waits. A recorder of a
party on a GPU waits for the device wherever it cuts: a profiled invocation takes longer than one without, by what would
have overlapped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, fx

from hush.mpc.compiler.probe import Place, named
from hush.mpc.copies import Copies
from hush.mpc.errors import AbortReason
from hush.mpc.session import Ledger
from hush.mpc.step import Received, Round, Spec, Step
from hush.mpc.transport import Neighbour, Transport
from hush.parties.profile import MOST_SPANS, Kind
from hush.proto import party_pb2 as pb

T = TypeVar("T")
_WAIT: dict[Neighbour, Kind] = {"next": Kind.WAIT_NEXT, "prev": Kind.WAIT_PREV}


def waiting(device: torch.device) -> Callable[[], None] | None:
    """How to wait until a device has done what it was asked; None of main memory, where that is done at once."""
    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else None


class Recorder:
    """A `hush.mpc.compiler.Probe` with a clock. `before`: what counts until the first op is named. `settle`: called
    wherever time is cut, before the clock is read (`waiting`)."""

    def __init__(self, ledger: Ledger, before: str, settle: Callable[[], None] | None = None) -> None:
        self._ledger, self._settle = ledger, settle
        self._made = pb.Profile(begin=time.time_ns() // 1000)
        self._places: dict[Place, int] = {}
        self._pairs: dict[tuple[str, str], int] = {}
        self._spans: list[tuple[int, Kind, int]] = []
        self._parts: list[tuple[int, int]] = []  # (op, payload) of the round that comes next
        self._at, self._since = (self._number(before), Kind.COMPUTE), time.perf_counter_ns()

    # ------------------------------------------------------------------ what the program tells
    def enter(self, place: Place) -> None:
        """An op starts or goes on."""
        self._turn(self._number(place), Kind.COMPUTE)

    def exchange(self, nodes: Sequence[fx.Node], parts: Sequence[Any]) -> None:
        """The ops that share the round that comes."""
        self._parts = [(self._number(node), _payload(part)) for node, part in zip(nodes, parts, strict=True)]

    # ------------------------------------------------------------------ what the run tells
    def follow(self, step: Step[T]) -> Step[T]:
        """The step itself, its rounds written down."""
        answer: Received | None = None
        while True:
            try:
                wanted: Round = step.send(answer)
            except StopIteration as stop:
                value: T = stop.value
                return value
            parts, self._parts = self._parts or [(self._at[0], _payload(wanted))], []
            earliest = parts[0][0]
            self._turn(earliest, Kind.SEND)
            first = len(self._spans)
            answer = yield wanted
            self._turn(earliest, Kind.COMPUTE)
            self._note(first, parts)

    def over(self, transport: Transport) -> Transport:
        """The transport itself, waits written down."""
        return _Listening(transport, self)

    def beside(self, copies: Copies | None) -> Copies | None:
        """The copies themselves, written down; None of a party in main memory, which has none."""
        return None if copies is None else _Copying(copies, self)

    def wait(self, source: Neighbour) -> None:
        """A wait for this neighbour begins."""
        self._turn(self._at[0], _WAIT[source])

    def copy(self) -> None:
        """Messages are copied from now on."""
        self._turn(self._at[0], Kind.COPY)

    def resume(self) -> None:
        """That is over."""
        self._turn(self._at[0], Kind.SEND)

    def finish(self) -> pb.Profile:
        """The profile, as it travels."""
        self._cut()
        made, columns = self._made, list(zip(*self._spans, strict=True))
        made.span_ops.extend(columns[0])
        made.span_kinds.extend(columns[1])
        made.span_ns.extend(columns[2])
        return made

    # ------------------------------------------------------------------ writing down
    def _turn(self, op: int, kind: Kind) -> None:
        if self._at != (op, kind):
            self._cut()
            self._at = (op, kind)

    def _cut(self) -> None:
        if self._settle is not None:
            self._settle()
        now = time.perf_counter_ns()
        if len(self._spans) < MOST_SPANS:
            self._spans.append((*self._at, now - self._since))
        else:
            self._made.left_out += 1
        self._since = now

    def _note(self, first: int, parts: Sequence[tuple[int, int]]) -> None:
        if not self._made.left_out:
            ops, sent = zip(*parts, strict=True)
            spans = len(self._spans) - first
            self._made.rounds.add(first=first, spans=spans, ops=ops, bytes_sent=sent, depth=self._ledger.depth)

    def _number(self, place: Place) -> int:
        """Ops of one name in one layer have one number."""
        found = self._places.get(place)
        if found is None:
            pair = named(place)
            if pair not in self._pairs:
                self._pairs[pair] = len(self._pairs)
                self._made.ops.add(name=pair[0], layer=pair[1])
            found = self._places[place] = self._pairs[pair]
        return found


class _Listening:
    """A transport whose waits a recorder hears of."""

    def __init__(self, inner: Transport, recorder: Recorder) -> None:
        self.party, self.send, self._inner, self._recorder = inner.party, inner.send, inner, recorder

    def receive(self, source: Neighbour, nbytes: int) -> memoryview:
        """The inner transport's."""
        self._recorder.wait(source)
        frame = self._inner.receive(source, nbytes)
        self._recorder.resume()
        return frame

    def close(self, reason: AbortReason = AbortReason.CLOSED) -> None:
        """The inner transport's."""
        self._inner.close(reason)


class _Copying(Copies):
    """Copies that a recorder hears of. They keep the buffers that they have."""

    def __init__(self, inner: Copies, recorder: Recorder) -> None:
        self._inner, self._recorder = inner, recorder

    @property
    def pinned(self) -> int:
        """The inner copies'."""
        return self._inner.pinned

    def outgoing(self, messages: Sequence[Sequence[Tensor]]) -> list[list[memoryview]]:
        """The inner copies'."""
        self._recorder.copy()
        made = self._inner.outgoing(messages)
        self._recorder.resume()
        return made

    def incoming(self, payload: memoryview, specs: Sequence[Spec]) -> tuple[Tensor, ...]:
        """The inner copies'."""
        self._recorder.copy()
        made = self._inner.incoming(payload, specs)
        self._recorder.resume()
        return made


def _payload(part: Round) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*part.to_next, *part.to_prev))
