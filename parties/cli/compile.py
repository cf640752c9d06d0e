"""`hush compile`: a model becomes a program file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hush.parties.cli import console
from hush.parties.cli.deploy import compiled
from hush.parties.cli.options import Approx, Batch, Checkpoint, Embedding, Lookup, Net, ScheduleFor, Seq, Size, Weights
from hush.parties.cli.sources import resolve


def command(
    model: Annotated[str, typer.Argument(help="A model's id, hf:FOLDER, or FILE.py[:FUNCTION].")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: MODEL.hush.", show_default=False)
    ] = None,
    size: Size = None,
    seq: Seq = None,
    batch: Batch = 1,
    weights: Annotated[Weights, typer.Option(help="Whether the parties may see the weights.")] = Weights.secret,
    approx: Annotated[Approx, typer.Option(help="The approximation set.")] = Approx.default,
    embedding: Lookup = Embedding.auto,
    schedule: ScheduleFor = None,
    checkpoint: Checkpoint = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Token after token, for prompts of up to --seq tokens.")
    ] = False,
) -> None:
    """Compile a model to a program file, without its weights, and show what it will cost.

    FILE.py[:FUNCTION] is code of your own: the function (default `build`) returns a module and the arguments of an
    example call, whose tensors are secret inputs.
    """
    with console.stages(2) as stage:
        stage(f"loading {model}")
        source = resolve(model, size=size, seq=seq, batch=batch, checkpoint=checkpoint)
        stage("compiling it")
        program = compiled(source, weights, approx, embedding, Net.none.schedule(schedule), generate=generate)
    path = output or Path(f"{source.short}.hush")
    program.save(path)
    out = console.out()
    out.print(str(program), markup=False, soft_wrap=True)
    out.print(f"{path}: {path.stat().st_size:,} bytes", soft_wrap=True)
