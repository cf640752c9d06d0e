"""The two parties as child processes, and how to ask them: the shape of `LocalTrio` and `ThreadTrio`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

import hush
from hush.mpc.compiler import InputSpec, Program
from hush.mpc.compiler import Kind as InputKind
from hush.mpc.errors import AbortReason, PartyError, ProgramError
from hush.mpc.ring import RING64
from hush.mpc.transport import Buffer
from hush.parties import shares
from hush.parties.crypten.pipe import Pipe, PipeClosedError, Tag
from hush.parties.remote import Inference, Progress, decoded
from hush.parties.report import combine
from hush.parties.request import ALONE, Request
from hush.parties.status import error_of
from hush.proto import party_pb2 as pb
from hush.protocols.crypten.library import require
from hush.protocols.crypten.sharing import deal, reconstruct
from hush.protocols.crypten.world import PARTIES

R = TypeVar("R")
_STOP = 5.0


class CrypTenPair:
    """Two processes that hold a program and its weights; gone after `close`. UserError if CrypTen is not installed.

    `threads` per party: default half of the cores. `sent(count, of)`: told as weights are handed out. `division`: as
    `hush.protocols.crypten.protocol.CrypTen`. Nothing is hidden from this machine's owner, nor from party 0.
    """

    def __init__(
        self,
        program: Program,
        *,
        threads: int | None = None,
        sent: Callable[[int, int], None] | None = None,
        division: bool = False,
    ) -> None:
        require()
        if program.ring != RING64:
            raise ProgramError(f"CrypTen has one ring, 2^64, and the program is for 2^{program.ring.bits}")
        self._program = program
        self._division, self._met = division, False
        self._threads = threads or max(1, (os.cpu_count() or 1) // PARTIES)
        self._directory = Path(tempfile.mkdtemp(prefix="hush-crypten-"))  # only its owner may enter it
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pool = ThreadPoolExecutor(PARTIES, thread_name_prefix="hush-crypten")
        try:
            self._pipes = [self._launch(rank) for rank in range(PARTIES)]
            self._both(lambda rank: self._take(rank, Tag.READY))
            self._met = True
            self._deploy(sent or (lambda count, of: None))
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------ life
    def _launch(self, rank: int) -> Pipe:
        command = [sys.executable, "-W", "ignore", "-m", "hush.parties.crypten.party", f"--rank={rank}"]
        command += [f"--rendezvous={self._directory / 'rendezvous'}", f"--threads={self._threads}"]
        command += ["--division"] if self._division else []
        with (self._directory / f"party{rank}.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=self._environment()
            )
        self._processes.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        return Pipe(process.stdout, process.stdin)

    def _environment(self) -> dict[str, str]:
        source = str(Path(hush.__file__).parents[1])
        paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        pools = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(self._threads))
        pools["OMP_WAIT_POLICY"] = "PASSIVE"
        return {**os.environ, **pools, "PYTHONPATH": os.pathsep.join(paths)}

    def _deploy(self, sent: Callable[[int, int], None]) -> None:
        """Hand out the program and each weight's shares, made one by one."""
        program = self._program
        header = pb.Deploy(dtypes=shares.public_dtypes(program)).SerializeToString()

        def hand(rank: int, tag: Tag, data: Buffer) -> None:
            self._reach(rank, lambda: self._pipes[rank].send(tag, [data]))

        for rank in range(PARTIES):
            hand(rank, Tag.DEPLOY, header)
            hand(rank, Tag.PROGRAM, program.data)
        for count, frames in enumerate(self._weights(), 1):
            for rank, frame in enumerate(frames):
                hand(rank, Tag.TENSOR, frame)
            sent(count, len(program.weight_specs))

    def _weights(self) -> Iterator[list[memoryview]]:
        for index in range(len(self._program.weight_specs)):
            clear = shares.clear_weight(self._program, index)
            if self._program.weights_mode == "public":
                yield [shares.raw(clear)] * PARTIES
            else:
                yield [shares.raw(share) for share in deal(clear)]

    def log(self, rank: int) -> str:
        """What a party's process has complained of so far."""
        return (self._directory / f"party{rank}.log").read_text()

    def close(self) -> None:
        """End the processes and remove the folder. Safe to call twice."""
        for process in self._processes:
            if process.stdin is not None and not process.stdin.closed:
                with suppress(BrokenPipeError):
                    process.stdin.close()
        for process in self._processes:
            try:
                process.wait(_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._pool.shutdown()
        for process in self._processes:
            if process.stdout is not None:
                process.stdout.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ inference
    def infer(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        request: Request = ALONE,
    ) -> Inference:
        """One inference, as `hush.parties.remote.Session.infer`. The report's cost is what CrypTen counts, for two
        parties (`docs/crypten.md`)."""
        program = self._program
        taken = request.inputs(program)
        encoded = [] if taken is None else taken.encode_inputs(args, kwargs)
        begin = time.perf_counter()
        dealt = [] if taken is None else [spec for spec in taken.inputs if spec.dealt]
        parts = [deal(_entered(spec, elements)) for spec, elements in zip(dealt, encoded, strict=True)]
        frames = [[shares.raw(pair[rank]) for pair in parts] for rank in range(PARTIES)]
        answers = self._both(lambda rank: self._ask(rank, frames[rank], request, progress if rank == 0 else None))
        elements = [reconstruct(pair) for pair in zip(*(outputs for _, outputs in answers), strict=True)]
        output = decoded(program, elements)
        traffic = sum(len(frame) for own in frames for frame in own)
        traffic += sum(8 * share.numel() for _, outputs in answers for share in outputs)
        return Inference(output, combine([report for report, _ in answers], time.perf_counter() - begin, traffic))

    def _ask(
        self, rank: int, frames: Sequence[memoryview], request: Request, progress: Progress | None
    ) -> tuple[pb.Report, list[Tensor]]:
        pipe = self._pipes[rank]
        pipe.send(Tag.INVOKE, [request.message().SerializeToString()])
        for frame in frames:
            pipe.send(Tag.TENSOR, [frame])
        report = pb.Answer.FromString(bytes(self._take(rank, Tag.ANSWER, progress))).report
        kinds = shares.output_kinds(self._program)
        return report, [shares.tensor_of(self._take(rank, Tag.TENSOR), shape, torch.int64) for shape, _ in kinds]

    def _take(self, rank: int, due: Tag, progress: Progress | None = None) -> bytearray:
        """The next message of a tag, past those that tell of progress. PartyError if the party says that it failed."""
        while True:
            tag, body = self._pipes[rank].receive()
            if tag is due:
                return body
            if tag is Tag.FAILED:
                raise error_of(pb.Abort.FromString(bytes(body)), rank)
            if tag is Tag.PROGRESS and progress is not None:
                progress(pb.Progress.FromString(bytes(body)).layer)

    # ------------------------------------------------------------------ both at once
    def _both(self, job: Callable[[int], R]) -> list[R]:
        """A job for each party, side by side. If one fails the other's process is ended, which waits for it in vain;
        PartyError names the one that failed first."""
        first: list[BaseException] = []

        def work(rank: int) -> R:
            try:
                return self._reach(rank, lambda: job(rank))
            except BaseException as error:
                first.append(error)
                self._processes[1 - rank].kill()
                raise

        futures: list[Future[R]] = [self._pool.submit(work, rank) for rank in range(PARTIES)]
        failures = [error for error in (future.exception() for future in futures) if error is not None]
        if failures:
            raise first[0]
        return [future.result() for future in futures]

    def _reach(self, rank: int, job: Callable[[], R]) -> R:
        """A job at a party's pipe. PartyError if its process has ended: with its last complaint, if it held nothing."""
        try:
            return job()
        except PipeClosedError:
            last = "" if self._met else " / ".join(self.log(rank).splitlines()[-1:])
            raise PartyError(rank, AbortReason.DISCONNECTED, last) from None


def _entered(spec: InputSpec, elements: Tensor) -> Tensor:
    """What is shared of an input: its ring elements, or one-hot rows of places in a table."""
    if spec.kind is InputKind.POINT:
        return torch.nn.functional.one_hot(elements, int(spec.bound))
    return elements
