"""One program on shares beside its module in plaintext: local parties, a warm-up, repeated runs, figures."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import nn

from hush.mpc.compiler import Program
from hush.mpc.cost import Cost
from hush.mpc.ring import backends
from hush.parties.cli.console import Report, Stage, megabytes
from hush.parties.client import connect, deploy
from hush.parties.compare import errors
from hush.parties.cost import predicted
from hush.parties.crypten import CrypTenPair
from hush.parties.local import LocalTrio
from hush.parties.remote import Inference, Progress
from hush.parties.report import RunReport
from hush.parties.request import ALONE, Request
from hush.parties.threads import ThreadTrio
from hush.protocols.crypten.world import PARTIES

LOCAL_STAGES = 2
_PACKAGES = ("hush", "torch", "grpcio", "protobuf", "cryptography")


class Infer(Protocol):
    """How local parties are asked."""

    def __call__(
        self, args: Sequence[Any], progress: Progress | None = None, request: Request = ALONE
    ) -> Inference: ...


@dataclass(frozen=True, slots=True)
class Measured:
    """Runs of one program on one call. `report` is that of the run with the median time. Nobody predicts CrypTen's."""

    secure: Any
    plain: Any
    secure_s: float
    plain_s: float
    max_abs_err: float
    mean_abs_err: float
    predicted: Cost | None
    report: RunReport

    def figures(self) -> dict[str, Any]:
        """The part of the JSON contract that is measured."""
        cost = self.report.cost
        return {
            "secure_s": round(self.secure_s, 6),
            "plain_s": round(self.plain_s, 6),
            "bytes_sent": list(cost.bytes_sent),
            "messages": list(cost.messages),
            "rounds": cost.rounds,
            "client_bytes": self.report.client_bytes,
            "max_abs_err": self.max_abs_err,
            "mean_abs_err": self.mean_abs_err,
            "predicted": None if self.predicted is None else cost_json(self.predicted),
            "peak_rss": list(self.report.peak_rss),
        }


def cost_json(cost: Cost) -> dict[str, Any]:
    """A cost as the contract has it."""
    return {"rounds": cost.rounds, "bytes_sent": list(cost.bytes_sent), "messages": list(cost.messages)}


def measure(
    module: nn.Module,
    call: Sequence[Any],
    program: Program,
    infer: Infer,
    repeat: int,
    report: Report,
    protocol: str = "replicated",
) -> Measured:
    """Plaintext and secure, each after one warm-up, `repeat` times. Seconds are medians, errors the largest."""
    forecast = predicted(program)  # which also weighs the layers, for the progress that is shown
    plain, plain_s = plaintext(module, call, repeat)
    report("warm-up", 0.0)
    infer(call, None)
    runs, gaps = list[Inference](), list[tuple[float, float]]()
    for index in range(repeat):
        follow = layers(program, lambda what, part, i=index: report(what, (i + part) / repeat))  # type: ignore[misc]
        runs.append(infer(call, follow))
        gaps.append(errors(plain, runs[-1].output))
    order = sorted(range(repeat), key=lambda i: runs[i].report.seconds)
    middle = order[(repeat - 1) // 2]
    return Measured(
        secure=runs[middle].output,
        plain=plain,
        secure_s=statistics.median(r.report.seconds for r in runs),
        plain_s=plain_s,
        max_abs_err=max(g[0] for g in gaps),
        mean_abs_err=max(g[1] for g in gaps),
        predicted=forecast if protocol == "replicated" else None,
        report=runs[middle].report,
    )


def layers(program: Program, report: Report) -> Progress:
    """Progress of an inference from the layers it reaches, each weighed by its predicted rounds."""
    rounds = {name: cost.rounds for name, cost in program.layer_costs.items()}
    whole, before, seen = sum(rounds.values()) or 1, 0, set[str]()

    def progress(layer: str) -> None:
        nonlocal before
        report(layer, before / whole)
        if layer not in seen:
            seen.add(layer)
            before += rounds.get(layer, 0)

    return progress


def plaintext(module: Callable[..., Any], call: Sequence[Any], repeat: int = 1) -> tuple[Any, float]:
    """The module's own output and the median seconds it takes with all cores, after one warm-up."""
    with all_cores(), torch.inference_mode():
        output = module(*call)
        times = []
        for _ in range(repeat):
            begin = time.perf_counter()
            output = module(*call)
            times.append(time.perf_counter() - begin)
        return output, statistics.median(times)


@contextmanager
def all_cores() -> Iterator[None]:
    """Let torch use every core meanwhile."""
    threads = torch.get_num_threads()
    torch.set_num_threads(cores())
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def local(
    program: Program,
    link: str,
    net: str,
    stage: Stage,
    protocol: str = "replicated",
    profile: bool = False,
    device: str = "cpu",
) -> Iterator[Infer]:
    """Local parties that hold a program, and how to ask them. Two stages; all of it is gone afterwards. `profile`:
    whether they may be asked for profiles. `device`: where all three compute."""
    backend = None if device == "cpu" else str(device)
    if protocol == "crypten":
        stage("starting CrypTen's two party processes")
        shown: list[Callable[[int, int], None]] = []

        def sent(count: int, of: int) -> None:
            if not shown:
                shown.append(sent_megabytes(program, stage("sharing the weights"), PARTIES))
            shown[0](count, of)

        with CrypTenPair(program, sent=sent) as pair:

            def in_pair(args: Sequence[Any], progress: Progress | None = None, request: Request = ALONE) -> Inference:
                return pair.infer(args, None, progress, request)

            yield in_pair
        return
    if link == "memory":
        stage("starting three party threads")
        report = stage("sharing the weights")
        with ThreadTrio(program, net=net, backend=backend) as threads:

            def in_threads(
                args: Sequence[Any], progress: Progress | None = None, request: Request = ALONE
            ) -> Inference:
                return threads.infer(args, None, progress, request)

            yield in_threads
        return
    report = stage("starting three party processes")

    def started(text: str) -> None:
        report(text.partition(" at ")[0], 0.5)

    with LocalTrio(net=str(net), backend=backend, profile=profile, progress=started) as trio:
        report = stage("sharing the weights over mutual TLS")
        deploy(program, trio.provider_config, "local", progress=sent_megabytes(program, report))
        with connect(trio.config) as client:

            def in_processes(
                args: Sequence[Any], progress: Progress | None = None, request: Request = ALONE
            ) -> Inference:
                return client.session("local").infer(args, None, progress, request)

            yield in_processes


def sent_megabytes(program: Program, report: Report, parties: int = 3) -> Callable[[int, int], None]:
    """Progress of a deployment in MB: a secret number travels twice in 8 bytes, a public one to each party in 4."""
    each = 16 if program.weights_mode == "secret" else 4 * parties
    sizes = [each * torch.Size(spec.shape).numel() for spec in program.weight_specs]
    sums, whole = [0, *accumulate(sizes)], sum(sizes)

    def progress(count: int, of: int) -> None:
        sent = sums[count]
        report(f"{megabytes(sent)} of {megabytes(whole)} MB", sent / max(1, whole))

    return progress


def versions(*more: str) -> dict[str, str]:
    """What made the figures; `more`: further packages."""
    found = {"python": platform.python_version(), "kernels": backends.available()[backends.get().name]}
    for name in (*_PACKAGES, *more):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            import hush

            found[name] = hush.__version__ if name == "hush" else "missing"
    return found
