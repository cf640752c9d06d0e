"""The provider: weights are shared here and handed to the three parties, once a deployment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from hush.mpc.compiler import Program, compile_module
from hush.mpc.errors import PartyError, ProgramError
from hush.parties import shares
from hush.parties.conference import Parties
from hush.parties.config import Config, as_client
from hush.parties.keys import VERSION
from hush.parties.service import DEPLOYMENT_BYTES
from hush.parties.wire import Tag, Wire
from hush.proto import party_pb2 as pb

_BACKLOG = 16  # chunks that may wait for a slow party while a model is dealt


def deploy(
    model: Program | torch.nn.Module,
    config: Config,
    name: str = "model",
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Give the three parties a compiled program with its weights, or a module with an example call; its digest.

    Weights are shared here under fresh seeds. The model serves once all holders of each share have compared it, in the
    place of an older one of its name. `progress` is told (weights sent, weights in all). PartyError names who refused.
    """
    program = model if isinstance(model, Program) else _compiled(model, args, kwargs)
    settings = as_client(config)
    parties = Parties(settings, settings.identity("provider"))
    try:
        _deploy(program, name, parties, settings.answer_s, progress or (lambda sent, of: None))
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


def _deploy(program: Program, name: str, parties: Parties, answer: float, progress: Callable[[int, int], None]) -> None:
    header = pb.Deploy(version=VERSION, model=name, deployment=os.urandom(DEPLOYMENT_BYTES))
    header.program, header.program_size = bytes.fromhex(program.digest), len(program.data)
    header.dtypes.extend(shares.public_dtypes(program))
    conference = parties.confer("Deploy")
    conference.post(Tag.DEPLOY, header)
    try:
        for wire in conference.wires:
            wire.send([program.data])
        for count, frames in enumerate(shares.weight_frames(program), 1):
            for wire, frame in zip(conference.wires, frames, strict=True):
                _unhurried(wire, frame)
            progress(count, len(program.weight_specs))
    except PartyError:
        conference.gather(lambda wire: wire.take(Tag.VERIFIED, pb.Verified, 0.0))
    conference.gather(lambda wire: wire.take(Tag.VERIFIED, pb.Verified, answer))
    conference.post(Tag.COMMIT, pb.Commit())
    conference.gather(lambda wire: wire.take(Tag.DEPLOYED, pb.Deployed))
    conference.close()


def _unhurried(wire: Wire, frame: Sequence[Any]) -> None:
    """Send a frame once the ones before it have almost left, so that a model never waits in memory as a whole."""
    while wire.backlog > _BACKLOG and wire.failure is None:
        time.sleep(0.002)
    wire.send(frame)


def _compiled(module: torch.nn.Module, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> Program:
    if args is None and kwargs is None:
        raise ProgramError("a module needs an example call to be compiled: deploy(module, config, name, args=(...,))")
    return compile_module(module, args or (), kwargs)
