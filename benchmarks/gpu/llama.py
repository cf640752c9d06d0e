"""LLaMA-7B's shape, 8 tokens and one more: one and two blocks with both ends, and all 32 where they fit the card.

Weights are pieces of one table of normal numbers, so that no model lies in memory but the table; each weight is made
and dealt when its turn comes. The context is 64 positions: what is kept between turns is small beside the weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import hush
from gpu.card import Memory
from gpu.networks import measured
from gpu.timing import Data, Findings, Job, failure, note
from hush.models import llama
from hush.models.initial import DEVIATION, bare
from hush.mpc.compiler.program import Program
from hush.parties.remote import Inference, Progress
from hush.parties.request import ALONE, Request
from hush.parties.threads import ThreadTrio

BLOCKS, PROMPT, NEW, CONTEXT = 32, 8, 2, 64
_SPARE, _STRIDE = 1 << 20, 7919


@dataclass(frozen=True, slots=True)
class Made:
    """A network and what `hush.parties.cli` takes of a source."""

    module: nn.Module
    generator: tuple[nn.Module, nn.Module]
    call: tuple[Tensor]
    parameters: int


def network(blocks: int, *, quick: bool) -> Made:
    """A LLaMA of 7B's widths, or toy ones, and so many blocks."""
    toy: Data = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    config = llama.LlamaConfig(num_hidden_layers=blocks, max_position_embeddings=CONTEXT, **(toy if quick else {}))
    net = bare(lambda: llama.Llama(config))
    shapes = {name: parameter.shape for name, parameter in net.named_parameters()}
    table = torch.empty(max(map(torch.Size.numel, shapes.values())) + _SPARE)
    table.normal_(0.0, DEVIATION, generator=torch.Generator().manual_seed(0))
    for index, (name, shape) in enumerate(shapes.items()):
        owner, _, attribute = name.rpartition(".")
        start = index * _STRIDE % _SPARE
        value = torch.ones(shape) if len(shape) == 1 else table[start : start + shape.numel()].view(shape)
        setattr(net.get_submodule(owner), attribute, nn.Parameter(value, requires_grad=False))
    ids = torch.randint(config.vocab_size, (1, PROMPT), generator=torch.Generator().manual_seed(0))
    return Made(net, llama.generator(net), (ids,), sum(map(torch.Size.numel, shapes.values())))


def compiled(made: Made) -> Program:
    """The program that generates. Its weights are made when they are asked for: bound at once, they would be 27 GB."""
    with mock.patch.object(Program, "bind", Program.bind_lazily):
        return hush.compile_generator(*made.generator, [made.call], context=CONTEXT, reveals="logits")


def on_trio(name: str, blocks: int, backend: str, job: Job, repeat: int, seeds: bool | None = None) -> Findings:
    """Three parties in this process, which deal themselves a network and run it: told again whenever more is known, so
    that what takes too long leaves what it had. `seeds`: whether weights that may stay seeds do."""
    found: Data = {"blocks": blocks}
    try:
        for more in _stages(blocks, backend, job, repeat, seeds):
            found |= more
            yield name, dict(found)
    except Exception as error:  # told, and the rest goes on
        yield name, found | failure(error)


def _stages(blocks: int, backend: str, job: Job, repeat: int, seeds: bool | None) -> Iterator[Data]:
    begin = time.perf_counter()
    made = network(blocks, quick=job.quick)
    program = compiled(made)
    yield {"parameters": made.parameters, "compile_s": time.perf_counter() - begin}
    note(f"  {blocks} block(s), {made.parameters:,} parameters: compiled in {time.perf_counter() - begin:.1f} s")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    where = "cpu" if job.quick else backend  # Triton's interpreter would take minutes
    with Memory() as memory, ThreadTrio(program, backend=where, seeds=seeds) as trio:
        yield {"deal_s": time.perf_counter() - begin}
        note(f"  dealt in {time.perf_counter() - begin:.1f} s")
        turns = [trio.infer(made.call).report, trio.infer([], None, None, Request(True)).report]
        cold = [{"secure_s": turn.seconds, "rounds": turn.cost.rounds} for turn in turns]
        yield cold[0] | {"tokens": cold[1:], "cold": True} | _memory(memory)
        note(f"  for the first time: {turns[0].seconds:.2f} s, then {turns[1].seconds:.2f} s")

        def infer(args: Sequence[Any], progress: Progress | None = None, request: Request = ALONE) -> Inference:
            return trio.infer(args, None, progress, request)

        yield measured(made, program, infer, NEW, repeat) | {"cold": False} | _memory(memory)


def _memory(memory: Memory) -> Data:
    if not torch.cuda.is_available():
        return {}
    return {"memory_gib": memory.gib, "allocated_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)}


def blocks(backend: str) -> Callable[[Job], Findings]:
    """The part that measures one and two blocks, and predicts 32 from their difference.

    On a GPU with weights that stay seeds, as 32 blocks for three parties fit no card otherwise; one block with its
    weights expanded too, for what that costs.
    """

    def part(job: Job) -> Findings:
        rows: list[Data] = []
        seeds = True if backend == "cuda" else None
        for count in (1, 2):
            note(f"llama-7b, {count} block(s): {backend}")
            named = f"{count} block{'s' * (count > 1)} and both ends" + ", weights as seeds" * bool(seeds)
            row: Data = {}
            for name, row in on_trio(named, count, backend, job, min(3, job.repeat), seeds):
                yield name, row
            rows.append(row)
        if seeds:
            yield from on_trio("1 block and both ends, weights expanded", 1, backend, job, min(3, job.repeat), False)
        if not any("failed" in row for row in rows):
            yield f"{BLOCKS} blocks, predicted", predicted(*rows)

    return part


def predicted(one: Data, two: Data) -> Data:
    """All blocks: the ends and one of them, and 31 times what another one adds."""

    def all_of(a: float, b: float) -> float:
        return a + (BLOCKS - 1) * (b - a)

    tokens = [
        {name: all_of(a[name], b[name]) for name in ("secure_s", "rounds")}
        for a, b in zip(one["tokens"], two["tokens"], strict=True)
    ]
    made = {name: all_of(one[name], two[name]) for name in ("secure_s", "rounds", "deal_s", "parameters")}
    return made | {"tokens": tokens, "predicted": f"one block, and {BLOCKS - 1} times what a second one adds"}


def whole(job: Job) -> Findings:
    """All blocks, where the card has room for what parties 1 and 2 hold of the weights."""
    count = 2 if job.quick else BLOCKS
    if torch.cuda.is_available():
        parameters = network(1, quick=job.quick).parameters
        parameters += (count - 1) * (network(2, quick=job.quick).parameters - parameters)
        free, need = torch.cuda.mem_get_info()[0], 2 * 8 * parameters
        if need > free:
            yield "skipped", f"weights take {need / 2**30:.0f} GiB of which {free / 2**30:.0f} GiB are free"
            return
    note(f"llama-7b, {count} blocks: cuda")
    yield from on_trio(f"{count} blocks", count, "cuda", job, 1)
