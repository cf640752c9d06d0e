"""Primitives and functions of the protocol alone: seconds and payload a second of three parties in one process."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gpu.timing import Data, Findings, Job, guarded, note, wait
from hush.mpc import fixed_point
from hush.mpc.copies import copies_for
from hush.mpc.cost import FRAME_HEADER
from hush.mpc.functions import norms, softmax
from hush.mpc.functions.sets import default
from hush.mpc.prg import KEY_BYTES, Stream
from hush.mpc.ring import RING64, backends
from hush.mpc.ring.kernels import Kernels
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.session import Ledger, run
from hush.mpc.transport import memory_trio
from hush.parties.placement import guarded as on_device
from hush.protocols.replicated.party import Party
from hush.protocols.replicated.protocol import Replicated
from hush.protocols.replicated.sharing import deal, expand

FRAC = 18
NUMEL = {"cuda": 1 << 22, "cpu": 1 << 18}
TOY = 256
BITS, WIDTH, ROW = 20, 768, 128
Secret = list[Shared] | list[SharedBits]


@dataclass(frozen=True)
class Ran:
    """What the parties have then, how long it took, payload of all three."""

    results: list[Any]
    seconds: float
    payload: int


class Trio:
    """Three parties as threads over memory, on kernels' device."""

    def __init__(self, kernels: Kernels) -> None:
        keys, self.device = [os.urandom(KEY_BYTES) for _ in range(3)], kernels.device
        streams = [[Stream(keys[i]), Stream(keys[i - 1])] for i in range(3)]
        for pair in streams:
            for stream in pair:
                stream.made_by(kernels.keystream)
        self._protocols = [Replicated(Party(i, streams[i][0], streams[i][1], kernels), RING64, FRAC) for i in range(3)]
        self._links = memory_trio(120.0)
        self._copies = [copies_for(kernels.device) for _ in range(3)]
        self._pool = ThreadPoolExecutor(3)

    def share(self, value: Tensor) -> list[Shared]:
        """A sharing of real values, on the device."""
        handles = [expand(d) for d in deal(fixed_point.encode(value, RING64, FRAC), FRAC, RING64)]
        return [Shared((h.parts[0].to(self.device), h.parts[1].to(self.device)), h.frac, h.ring) for h in handles]

    def run(self, program: Callable[..., Any], *secrets: Secret) -> Ran:
        """program(protocol, *handles) at all three, from when the last is ready until the device has done it all."""
        ledgers, ready, begin = [Ledger() for _ in range(3)], threading.Barrier(3, wait, 60.0), list[float]()

        def party(i: int) -> Any:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // 3))
            try:
                with on_device(i, self.device):
                    ready.wait()
                    begin.append(time.perf_counter())
                    step = program(self._protocols[i], *(secret[i] for secret in secrets))
                    return run(step, self._links[i], ledgers[i], self.device, self._copies[i])
            except BaseException:
                self._links[i].close()
                raise

        jobs = [self._pool.submit(party, i) for i in range(3)]
        results = [job.result() for job in jobs]
        wait()
        payload = sum(ledger.bytes_sent - FRAME_HEADER * ledger.messages for ledger in ledgers)
        return Ran(results, time.perf_counter() - min(begin), payload)

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown()


def protocols(job: Job) -> Findings:
    """Each primitive on the GPU, and on the CPU at a smaller size."""
    for backend in ("cuda", "cpu"):
        kernels, numel = backends.get(backend), TOY if job.quick else NUMEL[backend]
        for name in CASES:
            note(f"{backend}: {name}, {numel:,} elements")
            yield f"{backend}: {name}", guarded(partial(_measure, name, kernels, numel, job.repeat))


def _measure(name: str, kernels: Kernels, numel: int, repeat: int) -> Data:
    trio = Trio(kernels)
    try:
        operands, program = CASES[name](trio, numel)
        runs = [trio.run(program, *operands) for _ in range(min(4, repeat))]
        runs = runs[1:] or runs  # the first one warms up
        took = statistics.median(made.seconds for made in runs)
        rates = {"GB_s": runs[0].payload / took / 1e9, "elements_s": operands[-1][0].numel / took}
        return {"seconds": took, "payload": runs[0].payload, "elements": operands[-1][0].numel} | rates
    finally:
        trio.close()


# ---------------------------------------------------------------------- what is run
Case = tuple[tuple[Secret, ...], Callable[..., Any]]


def _values(trio: Trio, *shape: int) -> list[Shared]:
    return trio.share(torch.linspace(-6.0, 6.0, torch.Size(shape).numel()).reshape(shape))


def _plain(program: Callable[..., Any], operands: int = 1) -> Callable[[Trio, int], Case]:
    """Of one-dimensional operands."""
    return lambda trio, numel: (tuple(_values(trio, numel) for _ in range(operands)), program)


def _rows(program: Callable[..., Any], width: int) -> Callable[[Trio, int], Case]:
    """Of rows, shorter ones where there are few elements."""

    def made(trio: Trio, numel: int) -> Case:
        own = min(width, max(1, numel // 8))
        return (_values(trio, numel // own, own),), program

    return made


def _of_bits(planes: int, program: Callable[..., Any], operands: int = 0) -> Callable[[Trio, int], Case]:
    """Of bits, and of numbers after them."""

    def made(trio: Trio, numel: int) -> Case:
        x = _values(trio, numel)
        bits = trio.run(lambda p, s: p.to_bits(s, planes=planes), x).results
        return (bits, *(x for _ in range(operands))), program

    return made


def _matmul(trio: Trio, numel: int) -> Case:
    own = min(WIDTH, max(1, numel // 8))
    return (_values(trio, own, own), _values(trio, numel // own, own)), lambda p, w, x: p.matmul(x, w)


CASES: dict[str, Callable[[Trio, int], Case]] = {
    "mul, truncated": _plain(lambda p, x, y: p.mul(x, y), 2),
    "truncate": _plain(lambda p, x: p.truncate(x, 9)),
    f"matmul, {WIDTH} wide": _matmul,
    "negative": _plain(lambda p, x: p.negative(x, bound=8.0)),
    f"to_bits, {BITS} planes": _plain(lambda p, x: p.to_bits(x, planes=BITS)),
    f"from_bits, {BITS} planes": _of_bits(BITS, lambda p, b: p.from_bits(b)),
    "select": _of_bits(1, lambda p, b, x: p.select(b, x), 1),
    "exp": _plain(lambda p, x: default.exp(p, x, bound=8.0)),
    "gelu": _plain(lambda p, x: default.gelu(p, x, bound=8.0)),
    f"softmax, rows of {ROW}": _rows(lambda p, x: softmax.softmax(p, x, bound=8.0), ROW),
    f"layer_norm, rows of {WIDTH}": _rows(lambda p, x: norms.layer_norm(p, x, bound=8.0), WIDTH),
}
