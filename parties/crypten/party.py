"""One of CrypTen's parties: `python -m hush.parties.crypten.party --rank 0 --rendezvous FILE`, started by `pair`.

It meets the other party, reads a program and its share of the weights from standard input, and answers invocations on
standard output until its input ends.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from hush.mpc.compiler import InputSpec, Program, WeightSpec, execute, parse, turn
from hush.mpc.compiler import Kind as InputKind
from hush.mpc.errors import AbortReason, PartyError, UserError
from hush.mpc.points import Points
from hush.mpc.ring import RING64
from hush.mpc.secret import Shared
from hush.mpc.step import Step
from hush.parties import memory
from hush.parties.crypten.pipe import Pipe, PipeClosedError, Tag
from hush.parties.engine import Layers, check
from hush.parties.request import Request
from hush.parties.shares import PUBLIC_DTYPES, raw, tensor_of
from hush.parties.status import abort_of
from hush.proto import party_pb2 as pb
from hush.protocols.crypten import world
from hush.protocols.crypten.beat import run
from hush.protocols.crypten.protocol import CrypTen

Weights = Mapping[str, Shared | Tensor]
START = "(start)"  # the layer that counts what comes before the first one: nothing


class CrypTenParty:
    """A party that has met the other one, with a program and its share of the weights."""

    def __init__(self, rank: int, pipe: Pipe, program: Program, weights: Weights, division: bool) -> None:
        self._rank, self._pipe, self._program, self._weights = rank, pipe, program, weights
        self._protocol = CrypTen(rank, program.ring, program.frac, division=division)
        self._counter = world.Counter()
        self._state: dict[str, Shared] | None = None

    def answer(self, request: Request) -> None:
        """Read the inputs of one invocation, compute, and send the report and the shares of what is shown."""
        check(self._rank, self._program, self._state, request)
        taken = request.inputs(self._program)
        dealt = [] if taken is None else [spec for spec in taken.inputs if spec.dealt]
        inputs = [_input(spec, self._pipe.take(Tag.TENSOR)) for spec in dealt]
        self._counter.reset()
        layers = Layers(self._counter, self._watch if self._rank == 0 else None, START)
        begin = time.perf_counter()
        shown = run(self._steps(inputs, request, layers))
        sent, messages, rounds = self._counter.snapshot()
        report = pb.Report(bytes_sent=sent, messages=messages, depth=rounds, seconds=time.perf_counter() - begin)
        report.peak_rss = memory.peak_resident()
        report.layers.extend(layers.finish())
        self._pipe.send(Tag.ANSWER, [pb.Answer(report=report).SerializeToString()])
        for value in shown:
            self._pipe.send(Tag.TENSOR, [raw(value.parts[0])])

    def _steps(self, inputs: list[Shared | Points], request: Request, layers: Layers) -> Step[list[Shared]]:
        program, protocol = self._program, self._protocol
        if program.generation is None:
            return (yield from execute(program, protocol, self._weights, inputs, layers.enter))
        state, self._state = (self._state if request.continues else None), None
        made = yield from turn(
            program, protocol, self._weights, inputs, state, request.choice, layers.enter, request.first
        )
        self._state = made.state
        return made.shown

    def _watch(self, layer: str) -> None:
        self._pipe.send(Tag.PROGRESS, [pb.Progress(layer=layer).SerializeToString()])


def _input(spec: InputSpec, frame: bytearray) -> Shared | Points:
    """This party's share of an input: of one-hot rows, where the client looks rows of a table up."""
    if spec.kind is InputKind.POINT:
        return Points((tensor_of(frame, (*spec.shape, int(spec.bound)), torch.int64),), int(spec.bound))
    return Shared((tensor_of(frame, spec.shared_shape, torch.int64),), spec.frac, RING64)


def _weight(spec: WeightSpec, dtype: str | None, frame: bytearray) -> Shared | Tensor:
    if dtype is not None:
        return tensor_of(frame, spec.shape, PUBLIC_DTYPES[dtype])
    return Shared((tensor_of(frame, spec.shape, torch.int64),), spec.frac, RING64)


def _deployed(pipe: Pipe) -> tuple[Program, Weights]:
    """The program and its weights, as the other end sends them."""
    dtypes = list(pb.Deploy.FromString(bytes(pipe.take(Tag.DEPLOY))).dtypes)
    program = parse(bytes(pipe.take(Tag.PROGRAM)))
    each = dtypes if program.weights_mode == "public" else [None] * len(program.weight_specs)
    pairs = zip(program.weight_specs, each, strict=True)
    return program, {spec.name: _weight(spec, dtype, pipe.take(Tag.TENSOR)) for spec, dtype in pairs}


def serve(rank: int, rendezvous: Path, pipe: Pipe, *, division: bool = False) -> None:
    """Be a party until the other end of the pipe is closed; say why if it ends earlier."""
    met = False
    try:
        world.join(rank, rendezvous)
        pipe.send(Tag.READY)
        met = True
        party = CrypTenParty(rank, pipe, *_deployed(pipe), division)
        while True:
            party.answer(Request.parse(pb.Invoke.FromString(bytes(pipe.take(Tag.INVOKE)))))
    except PipeClosedError:
        return
    except Exception as error:
        pipe.send(Tag.FAILED, [abort_of(_told(rank, error)).SerializeToString()])
        if met:  # from here on it held shares: its log gets no foreign words either
            raise SystemExit(1) from None
        raise


def _told(rank: int, error: Exception) -> PartyError:
    """An error as the other end learns of it: in our own words, or by its class where it is not ours, since nobody can
    vouch for what a foreign message quotes."""
    if isinstance(error, PartyError):
        return error
    return PartyError(rank, AbortReason.INTERNAL, str(error) if isinstance(error, UserError) else type(error).__name__)


def _own_output() -> BinaryIO:
    """Standard output for messages alone: whatever prints from here on goes to standard error."""
    kept = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return os.fdopen(kept, "wb")


def main() -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(prog="hush.parties.crypten.party", description="One of CrypTen's two parties.")
    parser.add_argument("--rank", type=int, choices=range(world.PARTIES), required=True)
    parser.add_argument(
        "--rendezvous", type=Path, required=True, help="a file in a folder that only the user may enter"
    )
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--division", action="store_true", help="truncate as CrypTen does: free, and at times wrong")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    memory.retain()
    serve(options.rank, options.rendezvous, Pipe(sys.stdin.buffer, _own_output()), division=options.division)


if __name__ == "__main__":
    main()
