"""One party's computation in one session, whatever transport its neighbours are reached by."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from hush.mpc.compiler import Probe, Program, execute, turn
from hush.mpc.compiler.generate import length
from hush.mpc.copies import copies_for
from hush.mpc.errors import AbortReason, PartyError
from hush.mpc.points import Points
from hush.mpc.prg import Stream
from hush.mpc.ring import backends
from hush.mpc.secret import Shared
from hush.mpc.session import Ledger, run
from hush.mpc.step import Step
from hush.mpc.transport import Transport
from hush.parties import memory, shares
from hush.parties.device_memory import Room
from hush.parties.placement import Placed, guarded, in_main_memory
from hush.parties.recorder import Recorder, waiting
from hush.parties.request import ALONE, Request
from hush.proto.party_pb2 import Layer, Report
from hush.protocols.replicated.encoded import Encoded
from hush.protocols.replicated.invocation import invocation
from hush.protocols.replicated.party import Party
from hush.protocols.replicated.protocol import Replicated

Receive = Callable[[int], memoryview]
Watch = Callable[[str], None]
CHECKS = "(checks)"  # the layer that an invocation's own two rounds count to


@dataclass(frozen=True, slots=True, repr=False)
class Outcome:
    """A party's copies of the outputs, and what the run cost it."""

    outputs: list[Shared]
    report: Report


class Engine:
    """Runs a program's invocations for one party. Its randomness goes on from one to the next and never back.

    `encoded`: the ring elements of public weights, shared by the sessions of one model. `room`: on the GPU that it
    computes on, with the weights that are there for all of the model's sessions; given back by `close`.
    """

    def __init__(
        self,
        index: int,
        with_next: Stream,
        with_prev: Stream,
        transport: Transport,
        program: Program,
        backend: str | None = None,
        encoded: Encoded | None = None,
        room: Room | None = None,
    ) -> None:
        self._index, self._program, self._transport, self._room = index, program, transport, room
        kernels = backends.get(backend)
        self._device = kernels.device
        self.placed = Placed(kernels) if room is None else room.placed
        with self._guarded():
            self._copies = copies_for(kernels.device)
        for stream in (with_next, with_prev):
            stream.made_by(kernels.keystream)
        self._party = Party(index, with_next, with_prev, kernels)
        self._protocol = Replicated(self._party, program.ring, program.frac, program.schedule, encoded)
        self._ledger = Ledger()
        self._state: dict[str, Shared] | None = None

    def receive_inputs(self, receive: Receive, request: Request = ALONE) -> list[Shared | Points]:
        """This party's shares of the inputs, from frames whose sizes the program decides; none where a turn goes on."""
        ring = self._program.ring
        self._check(request)
        taken = request.inputs(self._program)
        dealt = [] if taken is None else [spec for spec in taken.inputs if spec.dealt]
        frames = [(spec, receive(shares.input_size(self._index, spec, ring))) for spec in dealt]
        return [shares.read_input(self._index, spec, ring, frame) for spec, frame in frames]

    def infer(
        self,
        inputs: Sequence[Shared | Points],
        weights: Mapping[str, Shared | Tensor],
        watch: Watch | None = None,
        request: Request = ALONE,
    ) -> Outcome:
        """One invocation; PartyError if a neighbour fails. `watch` is told the name of each layer as it begins.

        Of a program that generates, one turn: the first, or with `request.continues` the one after the last. What it
        leaves stays here, in place of what was here before.
        """
        self._check(request)
        self._ledger = Ledger(sequence=self._ledger.sequence)
        layers = Layers(self._ledger, watch)
        recorder = Recorder(self._ledger, CHECKS, waiting(self._device)) if request.profile else None

        def program() -> Step[list[Shared]]:
            found = yield from self._steps(inputs, weights, request, layers.enter, recorder)
            layers.enter(CHECKS)
            if recorder is not None:
                recorder.enter(CHECKS)
            return found

        begin = time.perf_counter()
        with self._guarded():
            inputs, weights = self.placed.inputs(list(inputs)), self.placed.weights(weights)
        whole, transport = invocation(self._party, inputs, program, request.digest()), self._transport
        copies = self._copies
        if recorder is not None:
            whole, transport, copies = recorder.follow(whole), recorder.over(transport), recorder.beside(copies)
        with self._guarded():
            outputs = [in_main_memory(x) for x in run(whole, transport, self._ledger, self._device, copies)]
            profile = None if recorder is None else recorder.finish()
        report = self._report(time.perf_counter() - begin)
        report.layers.extend(layers.finish())
        if profile is not None:
            report.profile.CopyFrom(profile)
        return Outcome(outputs, report)

    def _steps(
        self,
        inputs: Sequence[Shared | Points],
        weights: Mapping[str, Shared | Tensor],
        request: Request,
        observer: Watch,
        probe: Probe | None,
    ) -> Step[list[Shared]]:
        if self._program.generation is None:
            return (yield from execute(self._program, self._protocol, weights, inputs, observer, probe))
        state, self._state = (self._state if request.continues else None), None
        program, choice, first = self._program, request.choice, request.first
        made = yield from turn(program, self._protocol, weights, inputs, state, choice, observer, first, probe)
        self._state = made.state
        return made.shown

    def take(self, name: str, value: Shared | Tensor) -> None:
        """Place one weight."""
        with self._guarded():
            self.placed.take(name, value)

    def close(self) -> None:
        """Let go of all that is on the device: an error's traceback may keep this object for long."""
        self._state, self._copies, self.placed = None, None, Placed(self._party.kernels)
        if self._room is not None:
            self._room.close()

    def _guarded(self) -> AbstractContextManager[None]:
        return guarded(self._index, self._device) if self._room is None else self._room.guarded(self._index)

    def _check(self, request: Request) -> None:
        check(self._index, self._program, self._state, request)

    def _report(self, seconds: float) -> Report:
        sent, messages, depth = self._ledger.snapshot()
        peak = memory.peak_resident()
        return Report(bytes_sent=sent, messages=messages, depth=depth, seconds=seconds, peak_rss=peak)


def check(index: int, program: Program, state: Mapping[str, Shared] | None, request: Request) -> None:
    """Refuse to go on with nothing, or beyond the context; what a client asks for is public. PartyError of `index`."""
    generation = program.generation
    if request.first >= len(program.firsts):
        raise PartyError(index, AbortReason.INPUT, "there is no such first turn")
    if not request.continues:
        return
    if generation is None or state is None:
        raise PartyError(index, AbortReason.INPUT, "there is no turn to go on from")
    if length(generation.then, state) >= generation.context:
        raise PartyError(index, AbortReason.LIMIT, f"the context of {generation.context} positions is full")


class Counted(Protocol):
    """What counts a party's traffic."""

    def snapshot(self) -> tuple[int, int, int]:
        """(bytes sent, messages, depth) so far."""


class Layers:
    """Cuts a run where the layer changes that rounds count to: the same pieces, in the same order, at every party."""

    def __init__(self, ledger: Counted, watch: Watch | None, before: str = CHECKS) -> None:
        self._ledger, self._watch = ledger, watch
        self._pieces: list[Layer] = []
        self._name, self._from, self._since = before, ledger.snapshot(), time.perf_counter()

    def enter(self, name: str) -> None:
        """The next round counts to this layer."""
        if name == self._name:
            return
        self._cut()
        self._name = name
        if self._watch is not None:
            self._watch(name)

    def finish(self) -> list[Layer]:
        """The pieces; a layer that was left and entered again has several."""
        self._cut()
        return self._pieces

    def _cut(self) -> None:
        now, clock = self._ledger.snapshot(), time.perf_counter()
        sent, messages = now[0] - self._from[0], now[1] - self._from[1]
        piece = Layer(name=self._name, bytes_sent=sent, messages=messages, depth=now[2], seconds=clock - self._since)
        self._pieces.append(piece)
        self._from, self._since = now, clock
