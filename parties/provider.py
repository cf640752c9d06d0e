"""The provider: weights are shared here and handed to the three parties, once a deployment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from hush.mpc.compiler import Program, compile_module
from hush.mpc.errors import PartyError, ProgramError
from hush.mpc.transport import Buffer
from hush.parties import shares
from hush.parties.conference import Conference, Parties
from hush.parties.config import Config, as_client
from hush.parties.keys import VERSION
from hush.parties.resume import DEPLOYMENT_BYTES, PASSING, Ticket, new, take
from hush.parties.wire import Tag, Wire, chunks
from hush.proto import party_pb2 as pb

_BACKLOG = 8  # chunks that may wait for a slow party while a model is dealt
Progress = Callable[[int, int], None]


def deploy(
    model: Program | torch.nn.Module,
    config: Config,
    name: str = "model",
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    resume: Path | None = None,
) -> str:
    """Give the three parties a compiled program with its weights, or a module with an example call; its digest.

    Weights are made, shared under fresh seeds and sent one by one (a program that is bound lazily never lies in memory
    as a whole). The model serves once all holders of each share have compared it, in the place of an older one of its
    name. `progress` is told (weights sent, weights in all). `resume`: a file, kept until the model serves, by which the
    same call goes on where an interrupted one stopped, at parties that keep models on disk. PartyError names who
    refused.
    """
    program = model if isinstance(model, Program) else _compiled(model, args, kwargs)
    if program.weights is None:
        raise ProgramError("the program holds no weights: bind it to the model first (program.bind(module))")
    settings = as_client(config)
    parties = Parties(settings, settings.identity("provider"))
    try:
        _Dealing(program, name, parties, settings.answer_s, progress or (lambda sent, of: None), resume).run()
    finally:
        parties.close()
    return program.digest


def remove(config: Config, name: str) -> bool:
    """Take a model out of service at all three parties; whether any had it."""
    settings = as_client(config)
    parties = Parties(settings, settings.identity("provider"))
    try:
        return any(pb.Removed.FromString(r).found for r in parties.unary("Remove", pb.Remove(model=name)))
    finally:
        parties.close()


@dataclass(frozen=True, slots=True)
class _Dealing:
    """One deployment, from its ticket to its end."""

    program: Program
    name: str
    parties: Parties
    answer: float
    progress: Progress
    resume: Path | None

    def run(self) -> None:
        """Deal all weights; go on from what the parties hold, if that is of the same weights."""
        if self.resume is None:
            self._attempt(None)
            return
        what = {"model": self.name, "program": self.program.digest, "roster": self.parties.roster.hex()}
        ticket = take(self.resume, what)
        if (ticket.again and self._served(ticket)) or not self._attempt_or_give_up(ticket):
            self._discard(ticket)
            ticket = new(self.resume, what)
            self._attempt_or_give_up(ticket)
        ticket.path.unlink(missing_ok=True)

    def _served(self, ticket: Ticket) -> bool:
        """Whether a party serves this deployment already, as the last word of a call before was lost. All must be dealt
        anew then: the weights may have changed since, and of what serves no party tells hashes to compare with."""
        return any(m.deployment == ticket.deployment for info in self.parties.info() for m in info.models)

    def _attempt_or_give_up(self, ticket: Ticket) -> bool:
        try:
            return self._attempt(ticket)
        except PartyError as error:
            if error.reason not in PASSING:
                self._discard(ticket)
                ticket.path.unlink(missing_ok=True)
            raise

    def _discard(self, ticket: Ticket) -> None:
        """Have the parties remove what they kept; whoever cannot be reached does so in time."""
        for party in range(3):
            with suppress(PartyError):
                self.parties.one(party, "Discard", pb.Discard(deployment=ticket.deployment))

    # ------------------------------------------------------------------ one conversation
    def _attempt(self, ticket: Ticket | None) -> bool:
        """Hand the weights over; False if what the parties hold of this deployment is of other weights."""
        header, wait = self._header(ticket), self.answer
        conference = self.parties.confer("Deploy")
        try:
            conference.post(Tag.DEPLOY, header)
            for wire in conference.wires:
                wire.send([self.program.data])
            held = conference.gather(lambda wire: wire.take(Tag.HELD, pb.Held, wait))
            if ticket is not None and not self._unchanged(ticket, header, held):
                return False
            self._send(conference, ticket, [h.weights for h in held])
            conference.post(Tag.SENT, pb.Sent())
            conference.gather(lambda wire: wire.take(Tag.VERIFIED, pb.Verified, wait))
            conference.post(Tag.COMMIT, pb.Commit())
            conference.gather(lambda wire: wire.take(Tag.DEPLOYED, pb.Deployed))
        finally:
            conference.close()
        return True

    def _header(self, ticket: Ticket | None) -> pb.Deploy:
        deployment = os.urandom(DEPLOYMENT_BYTES) if ticket is None else ticket.deployment
        header = pb.Deploy(version=VERSION, model=self.name, deployment=deployment, resumable=ticket is not None)
        header.program, header.program_size = bytes.fromhex(self.program.digest), len(self.program.data)
        header.dtypes.extend(shares.public_dtypes(self.program))
        return header

    def _unchanged(self, ticket: Ticket, header: pb.Deploy, held: Sequence[pb.Held]) -> bool:
        """Whether the weights that each party holds are those that it would be given now."""
        most = max(h.weights for h in held)
        if not most:
            return True
        for count, dealt in enumerate(shares.dealt_prefix(self.program, header, ticket.seeds)):
            for party, told in enumerate(held):
                if told.weights == count and not shares.matches(told.copies, party, dealt):
                    return False
            if count == most:
                return True
        return False

    def _send(self, conference: Conference, ticket: Ticket | None, held: Sequence[int]) -> None:
        """The weights that a party lacks, in order."""
        start, total = min(held), len(self.program.weight_specs)
        if start:
            self.progress(start, total)
        try:
            dealt = shares.weight_frames(self.program, None if ticket is None else ticket.seeds, start)
            for index in range(start, total):
                frames = next(dealt)
                for party in range(3):
                    if index < held[party]:
                        frames[party] = []
                _send_together(conference.wires, frames)
                del frames  # before the next are made
                self.progress(index + 1, total)
        except PartyError:
            conference.gather(lambda wire: wire.take(Tag.VERIFIED, pb.Verified, 0.0))
            raise


def _send_together(wires: Sequence[Wire], frames: Sequence[Sequence[Buffer]]) -> None:
    """One frame to each party, chunk by chunk, so that a weight never waits as a whole for a slow party."""
    for messages in zip_longest(*(chunks(frame) for frame in frames)):
        for wire, message in zip(wires, messages, strict=True):
            if message is not None:
                while wire.backlog > _BACKLOG and wire.failure is None:
                    time.sleep(0.002)
                wire.put(message)


def _compiled(module: torch.nn.Module, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> Program:
    if args is None and kwargs is None:
        raise ProgramError("a module needs an example call to be compiled: deploy(module, config, name, args=(...,))")
    return compile_module(module, args or (), kwargs)
