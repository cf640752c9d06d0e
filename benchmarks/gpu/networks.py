"""BERT base and GPT-2 end to end: what `hush bench --profile` measures, with shares of the time and memory.

In Triton's interpreter (`--quick`) a toy network alone computes by the GPU's kernels. The tiny BERT and GPT-2 would
take minutes there, and do with the CPU's: what is tried then is this script.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import hush
from gpu.card import Memory
from gpu.categories import categories, longest
from gpu.timing import Data, Findings, Job, guarded, note
from hush.mpc.compiler import Program
from hush.parties.cli import generating, measure, profiling
from hush.parties.cli.console import Report
from hush.parties.cli.sources import resolve

LINKS = {"cuda": ("grpc", "memory"), "cpu": ("grpc",)}
"""Three processes over mutual TLS, or three threads of one process, which share one context of the GPU."""


@dataclass(frozen=True, slots=True)
class Network:
    """A model of the registry, its input and the tokens to generate."""

    model: str
    seq: int
    new: int | None = None


NETWORKS = {"bert": Network("bert-base", 128), "gpt2": Network("gpt2-base", 32, 2)}


class Toy(nn.Module):
    """Two layers and a function between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, width] -> the same."""
        made: Tensor = x + self.down(nn.functional.gelu(self.up(x)))
        return made


@dataclass(frozen=True, slots=True)
class Given:
    """What is measured, as `Source` has it."""

    module: nn.Module
    call: tuple[Tensor, ...]


def toy(job: Job) -> Findings:
    """Two layers on the GPU: whether parties compute there at all, and rightly."""
    rows, width = (2, 4) if job.quick else (128, 768)
    given = Given(Toy(width).eval(), (torch.randn(rows, width, generator=torch.Generator().manual_seed(0)),))
    program = hush.compile(given.module, given.call)
    yield "memory", guarded(partial(_measure, given, program, None, "cuda", "memory", job.repeat))


def network(name: str, device: str) -> Callable[[Job], Findings]:
    """The part that measures a network on a device."""

    def part(job: Job) -> Findings:
        net = NETWORKS[name]
        seq, size, links = (4, "tiny", ("memory",)) if job.quick else (net.seq, "paper", LINKS[device])
        where = "cpu" if job.quick else device
        note(f"{net.model}, {size}: compiling")
        source = resolve(net.model, size=size, seq=seq)
        program = source.compile() if net.new is None else source.compile_generator(reveals="logits")
        for link in links:
            note(f"{net.model}, {size}, {seq}: {device}, {link}")
            yield link, guarded(partial(_measure, source, program, net.new, where, link, min(3, job.repeat)))

    return part


def _measure(source: Any, program: Program, new: int | None, device: str, link: str, repeat: int) -> Data:
    with Memory() as memory, measure.local(program, link, "none", stage, "replicated", True, device) as infer:
        return measured(source, program, infer, new, repeat) | {"memory_gib": memory.gib}


def measured(source: Any, program: Program, infer: measure.Infer, new: int | None, repeat: int) -> Data:
    """Seconds, cost and error of a program on its call; then once more, profiled."""
    silent = stage("")
    if new is None:
        once = measure.measure(source.module, source.call, program, infer, repeat, silent)
        return row(once.figures()) | profiled(profiling.inference(infer, source.call))
    call = source.call[:1]
    made = generating.measure(source.generator, call, program, infer, new, repeat, silent)
    return row(made.figures()) | profiled(profiling.generation(infer, call, new))


def stage(name: str) -> Report:
    """What is told of progress inside."""
    if name:
        note(f"  {name}")
    return lambda what, fraction: None


def row(figures: Data) -> Data:
    """What is kept of the JSON contract; whether rounds, bytes and messages were the predicted ones."""
    turns = [figures, *figures.get("decode", ())]
    kept = ("secure_s", "plain_s", "rounds", "bytes_sent", "max_abs_err")
    made = {name: figures[name] for name in kept}
    made["as_predicted"] = all(turn["predicted"][key] == turn[key] for turn in turns for key in turn["predicted"])
    return made | ({"tokens": [{name: turn[name] for name in kept} for turn in turns[1:]]} if turns[1:] else {})


def profiled(turns: list[profiling.Turn]) -> Data:
    """Where the time of each profiled turn went."""
    found = {}
    for turn in turns:
        profiles = turn.report.profiles
        found[turn.name] = {
            "seconds": turn.report.seconds,
            "shares": categories(profiles),
            "operators": longest(profiles),
            "left_out": sum(profile.left_out for profile in profiles),
        }
    return {"profile": found}
