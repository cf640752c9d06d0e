"""A module in plaintext beside the same module on shares."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hush.mpc.compiler import Program, compile_module
from hush.mpc.cost import Cost
from hush.mpc.errors import UserError
from hush.parties.client import connect, deploy
from hush.parties.cost import predicted
from hush.parties.crypten import CrypTenPair
from hush.parties.local import LocalTrio
from hush.parties.remote import Inference
from hush.parties.report import RunReport
from hush.parties.threads import ThreadTrio
from hush.protocols.crypten import library


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came out of both, and what the secure run cost beside its prediction (none where CrypTen ran it)."""

    plain: Any
    secure: Any
    max_abs_err: float
    mean_abs_err: float
    seconds: float
    plain_seconds: float
    predicted: Cost | None
    report: RunReport

    @property
    def bytes_sent(self) -> tuple[int, ...]:
        """By each party, to the others."""
        return self.report.cost.bytes_sent

    @property
    def rounds(self) -> int:
        """Longest chain of dependent messages."""
        return self.report.cost.rounds


def compare(
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    public: Sequence[str] = (),
    weights: str = "secret",
    approx: str = "default",
    ranges: Any = None,
    link: str = "memory",
    protocol: str = "replicated",
    device: str = "cpu",
    lookup: str = "auto",
) -> Comparison:
    """Run a module in plaintext and, with local parties, on shares. Errors are over all float outputs.

    `link`: "memory" (three threads) or "grpc" (three processes over mutual TLS). `protocol`: "replicated", or
    "crypten", a baseline of two processes with a link of its own (`docs/crypten.md`). UserError for an unknown choice,
    and whatever compilation or inference raises.
    """
    if protocol not in ("replicated", "crypten"):
        raise UserError(f"protocol={protocol!r} is unknown: say 'replicated' or 'crypten'")
    if protocol == "crypten":
        library.require()
    backend = None if device == "cpu" else device
    program = compile_module(
        module, args, kwargs, public=public, weights=weights, approx=approx, ranges=ranges, lookup=lookup
    )
    forecast = predicted(program) if protocol == "replicated" else None
    plain, plain_seconds = _plain(module, args, kwargs or {})
    if protocol == "crypten":
        done = _crypten(program, args, kwargs)
    elif link == "memory":
        done = _threads(program, args, kwargs, backend)
    elif link == "grpc":
        done = _processes(program, args, kwargs, backend)
    else:
        raise UserError(f"link={link!r} is unknown: say 'memory' or 'grpc'")
    largest, mean = errors(plain, done.output)
    return Comparison(plain, done.output, largest, mean, done.report.seconds, plain_seconds, forecast, done.report)


def _plain(module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, float]:
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            begin = time.perf_counter()
            output = module(*args, **kwargs)
            return output, time.perf_counter() - begin
    finally:
        module.train(training)


def _threads(program: Program, args: Sequence[Any], kwargs: Mapping[str, Any] | None, backend: str | None) -> Inference:
    with ThreadTrio(program, backend=backend) as trio:
        return trio.infer(args, kwargs)


def _processes(
    program: Program, args: Sequence[Any], kwargs: Mapping[str, Any] | None, backend: str | None
) -> Inference:
    with LocalTrio(backend=backend) as trio:
        deploy(program, trio.provider_config, "compared")
        with connect(trio.config) as client:
            return client.run("compared", args, kwargs)


def _crypten(program: Program, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> Inference:
    with CrypTenPair(program) as pair:
        return pair.infer(args, kwargs)


def errors(plain: Any, secure: Any) -> tuple[float, float]:
    """(largest, mean) absolute difference over all float leaves of two results of one nesting."""
    pairs = list(zip(tensors(plain), tensors(secure), strict=True))
    gaps = [(a.double() - b.double()).abs().reshape(-1) for a, b in pairs if a.is_floating_point()]
    every = torch.cat(gaps) if gaps else torch.zeros(1, dtype=torch.float64)
    return (float(every.max()), float(every.mean())) if every.numel() else (0.0, 0.0)


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a nested result, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors(item)
