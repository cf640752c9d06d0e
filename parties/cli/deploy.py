"""`hush deploy`: compile a model, or take a program file, and share its weights with three running parties."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from hush.models.checkpoint import from_source
from hush.models.lazy import lazy_tensors
from hush.mpc import compiler
from hush.mpc.compiler import Program
from hush.mpc.errors import PartyError, UserError
from hush.parties import client
from hush.parties.cli import console, measure
from hush.parties.cli.options import Approx, Checkpoint, Embedding, Lookup, Net, ScheduleFor, Seq, Size, Weights
from hush.parties.cli.sources import Source, resolve


def command(
    model: Annotated[
        str, typer.Argument(help="A model's id, hf:FOLDER, FILE.py[:FUNCTION], or a program file with --checkpoint.")
    ],
    config: Annotated[Path, typer.Option(help="The provider's TOML file.")],
    name: Annotated[str | None, typer.Option(help="What clients ask for; default: the model's.")] = None,
    size: Size = None,
    seq: Seq = None,
    weights: Annotated[Weights, typer.Option(help="Whether the parties may see the weights.")] = Weights.secret,
    approx: Annotated[Approx, typer.Option(help="The approximation set.")] = Approx.default,
    embedding: Lookup = Embedding.auto,
    schedule: ScheduleFor = None,
    checkpoint: Checkpoint = None,
    forward: Annotated[
        bool, typer.Option("--forward", help="Of a model that generates, the plain network: no tokens.")
    ] = False,
) -> None:
    """Compile a model and share its weights with three running parties; an older one of its name is replaced.

    A model that generates is compiled for prompts of up to --seq tokens. A program file (`hush compile`) takes its
    weights from --checkpoint, one by one: no more of the model is in memory than its largest weight. An interrupted
    deployment goes on when the same command is given again.
    """
    with console.stages(3) as stage:
        stage(f"loading {model}")
        if is_program(model):
            called, program = _from_file(Path(model), checkpoint, size, seq, forward)
            stage("reading it")
        else:
            source = resolve(model, size=size, seq=seq, checkpoint=checkpoint, masked=True)
            called = source.short
            stage("compiling it")
            wanted, generate = Net.none.schedule(schedule), source.generator is not None and not forward
            program = compiled(source, weights, approx, embedding, wanted, generate=generate)
        report = stage("sharing the weights")
        called = name or called
        ticket = ticket_path(config, called)
        progress = measure.sent_megabytes(program, report)
        try:
            digest = client.deploy(program, config, called, progress=progress, resume=ticket)
        except PartyError:
            if ticket.exists():
                console.complain("note", "the same command goes on from what the parties have kept")
            raise
    console.out().print(f"{called} is deployed: program {digest}", soft_wrap=True)


def compiled(
    source: Source, weights: str, approx: str, lookup: str, schedule: str = "lan", *, generate: bool
) -> Program:
    """The program of a source: one that generates, for prompts of its length and shorter, or of the plain network."""
    if generate:
        return source.compile_generator(weights, approx, lookup, schedule, padded=True)
    return source.compile(weights, approx, lookup, schedule)


def is_program(model: str) -> bool:
    """Whether this names a program file."""
    return not model.partition(":")[0].endswith(".py") and Path(model).is_file()


def ticket_path(config: Path, name: str) -> Path:
    """Where a deployment's ticket lies: beside the provider's file, one for each model."""
    return config.with_name(f"{config.stem}-{hashlib.sha256(name.encode()).hexdigest()[:12]}.deploying")


def _from_file(
    path: Path, checkpoint: str | None, size: str | None, seq: int | None, forward: bool
) -> tuple[str, Program]:
    """A program file bound to a checkpoint, whose tensors are read one by one."""
    if checkpoint is None:
        raise UserError(f"{path} is a program, which holds no weights: name a folder or a hub id (--checkpoint)")
    if size is not None or seq is not None or forward:
        raise UserError(f"{path} is compiled already: --size, --seq and --forward are for `hush compile`")
    program = compiler.load(path)
    wanted = [str(n.target) for n in program.recipe.graph.nodes if n.op == "placeholder"]
    tensors = lazy_tensors(from_source(checkpoint), wanted)
    return path.stem, program.bind_lazily(tensors, tensors.shapes)
