"""A client's open session with the three parties: shares out, answers in, copies checked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from hush.mpc.compiler import Program
from hush.mpc.errors import PartyError
from hush.parties import shares
from hush.parties.conference import Parties
from hush.parties.keys import SESSION_BYTES, VERSION
from hush.parties.report import RunReport, combine
from hush.parties.request import ALONE, Request
from hush.parties.wire import Tag, Wire
from hush.proto import party_pb2 as pb
from hush.protocols.replicated.sharing import reconstruct

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Inference:
    """An answer, nested as the module returns it, and what it cost."""

    output: Any
    report: RunReport


class Session:
    """An open session with the three parties for one program. Not for several threads at once."""

    def __init__(self, parties: Parties, model: str, program: Program, answer: float) -> None:
        self._program, self._answer = program, answer
        opening = pb.Open(version=VERSION, session=os.urandom(SESSION_BYTES), model=model, roster=parties.roster)
        opening.program = bytes.fromhex(program.digest)
        self._conference = parties.confer("Session")
        self._conference.post(Tag.OPEN, opening)
        patience = parties.deadline + 2  # the parties wait for each other that long, and know more about it
        self._conference.gather(lambda wire: wire.take(Tag.OPENED, pb.Opened, patience))

    @property
    def broken(self) -> bool:
        """Whether it has failed, or a party has closed it: then only a new session helps."""
        return any(wire.failure is not None for wire in self._conference.wires)

    def infer(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        request: Request = ALONE,
    ) -> Inference:
        """One inference, `progress` told each layer as party 0 reaches it.

        Of a program that generates: one turn, whose output is what it shows (`Program.decode_turn`); where the request
        continues, there are no arguments. UserError for inputs that are not as declared (nothing has left this machine
        then); PartyError, after which the session is closed; ProtocolError if copies of the answer differ.
        """
        program = self._program
        taken = request.inputs(program)
        encoded = [] if taken is None else taken.encode_inputs(args, kwargs)
        begin = time.perf_counter()
        sent = self._send(encoded, request)
        answers = self._conference.gather(lambda wire: self._read(wire, progress if wire.peer == 0 else None))
        copies = [shares.read_outputs(program, iter(a.frames)) for a in answers]
        elements = [reconstruct(triple) for triple in zip(*copies, strict=True)]
        output = decoded(program, elements)
        seconds = time.perf_counter() - begin
        traffic = sent + 3 * sum(shares.output_sizes(program))
        return Inference(output, combine([a.report for a in answers], seconds, traffic))

    def _send(self, encoded: Sequence[torch.Tensor], request: Request) -> int:
        self._conference.post(Tag.INVOKE, request.message())
        sent = 0
        taken = request.inputs(self._program)
        dealt = [] if taken is None else [spec for spec in taken.inputs if spec.dealt]
        for elements, spec in zip(encoded, dealt, strict=True):
            frames = shares.deal_input(spec, elements, self._program.ring)
            for wire, frame in zip(self._conference.wires, frames, strict=True):
                sent += sum(len(part) for part in frame)
                with suppress(PartyError):  # it is told where the answers are gathered
                    wire.send(frame)
        return sent

    def _read(self, wire: Wire, progress: Progress | None) -> _Answer:
        while True:
            tag, body = wire.take_any((Tag.PROGRESS, Tag.ANSWER), self._answer)
            if tag is Tag.ANSWER:
                break
            if progress is not None:
                progress(pb.Progress.FromString(body).layer)
        report = pb.Answer.FromString(body).report
        return _Answer(report, [wire.receive(n) for n in shares.output_sizes(self._program)])

    def close(self) -> None:
        """End it in good order; the parties forget its keys."""
        self._conference.close()


def decoded(program: Program, elements: Sequence[torch.Tensor]) -> Any:
    """What the client sees of an invocation."""
    return program.decode_outputs(elements) if program.generation is None else program.decode_turn(elements)


@dataclass(frozen=True, slots=True, repr=False)
class _Answer:
    report: pb.Report
    frames: list[memoryview]
