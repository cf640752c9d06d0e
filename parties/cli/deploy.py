"""`hush deploy`: compile a model and share its weights with three running parties."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hush.parties import client
from hush.parties.cli import console, measure
from hush.parties.cli.options import Approx, Checkpoint, Embedding, Lookup, Seq, Size, Weights
from hush.parties.cli.sources import resolve


def command(
    model: Annotated[str, typer.Argument(help="A model's id, hf:FOLDER, or FILE.py[:FUNCTION].")],
    config: Annotated[Path, typer.Option(help="The provider's TOML file.")],
    name: Annotated[str | None, typer.Option(help="What clients ask for; default: the model's.")] = None,
    size: Size = None,
    seq: Seq = None,
    weights: Annotated[Weights, typer.Option(help="Whether the parties may see the weights.")] = Weights.secret,
    approx: Annotated[Approx, typer.Option(help="The approximation set.")] = Approx.default,
    embedding: Lookup = Embedding.auto,
    checkpoint: Checkpoint = None,
) -> None:
    """Compile a model and share its weights with three running parties; an older one of its name is replaced."""
    with console.stages(3) as stage:
        stage(f"loading {model}")
        source = resolve(model, size=size, seq=seq, checkpoint=checkpoint, masked=True)
        stage("compiling it")
        program = source.compile(weights, approx, embedding)
        report = stage("sharing the weights")
        called = name or source.short
        digest = client.deploy(program, config, called, progress=measure.sent_megabytes(program, report))
    console.out().print(f"{called} is deployed: program {digest}", soft_wrap=True)
