"""`hush run`: one secure inference with local parties, compared with plaintext."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from torch import Tensor

from hush.models import registry
from hush.parties.cli import console, generating, measure, picture
from hush.parties.cli.network import layer_table
from hush.parties.cli.options import (
    Approx,
    Checkpoint,
    Embedding,
    Input,
    Json,
    Link,
    Lookup,
    Net,
    ScheduleFor,
    Seq,
    Size,
    Text,
    Weights,
)
from hush.parties.cli.sources import Source, resolve
from hush.parties.compare import tensors


def command(
    model: Annotated[
        str, typer.Argument(help="A model's id, hf:FOLDER (a local HF checkpoint), or FILE.py[:FUNCTION].")
    ],
    size: Size = None,
    text: Text = None,
    file: Input = None,
    seq: Seq = None,
    new: Annotated[int | None, typer.Option(min=1, help="Generate so many tokens.", show_default=False)] = None,
    link: Annotated[Link, typer.Option(help="Three processes over mutual TLS, or three threads.")] = Link.grpc,
    net: Annotated[Net, typer.Option(help="A modelled network between the parties.")] = Net.none,
    weights: Annotated[Weights, typer.Option(help="Whether the parties may see the weights.")] = Weights.secret,
    approx: Annotated[Approx, typer.Option(help="The approximation set.")] = Approx.default,
    embedding: Lookup = Embedding.auto,
    schedule: ScheduleFor = None,
    checkpoint: Checkpoint = None,
    picture_file: Annotated[
        Path | None,
        typer.Option("--picture", help="Draw the answer to a .png, .svg or .pdf.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """One secure inference with local parties, compared with plaintext. Without an input, an example is run."""
    entry = registry.known(model)
    if picture_file is not None:
        picture.check(None if new is not None else entry, model, picture_file)
    with console.stages(3 + measure.LOCAL_STAGES) as stage:
        stage(f"loading {model}")
        source = resolve(model, size=size, seq=seq, text=text, file=file, checkpoint=checkpoint)
        stage("compiling it")
        if new is not None:
            made = _generate(source, (link, net, weights, approx, embedding, net.schedule(schedule)), new, stage)
        else:
            program = source.compile(weights, approx, embedding, net.schedule(schedule))
            with measure.local(program, link, net, stage) as infer:
                report = stage("running it")
                done = measure.measure(source.module, source.call, program, infer, 1, report)
    if picture_file is not None:
        assert entry is not None
        picture.write(entry, source.call, done.secure, done.plain, picture_file)
    if new is not None:
        console.emit(_head(source) | made.figures()) if as_json else _print_tokens(source, made)
    elif as_json:
        console.emit(describe(source, done))
    else:
        _print(source, done)


def _generate(
    source: Source, choices: tuple[Link, Net, Weights, Approx, Embedding, str], new: int, stage: console.Stage
) -> generating.Generated:
    link, net, *modes = choices
    program = source.compile_generator(*modes, reveals="logits")
    generating.check_room(source.name, program, new)
    assert source.generator is not None
    with measure.local(program, link, net, stage) as infer:
        report = stage("running it")
        return generating.measure(source.generator, source.call[:1], program, infer, new, 1, report)


def describe(source: Source, done: measure.Measured) -> dict[str, Any]:
    """One run as JSON, with its output tensors nested as lists."""
    found = [t.tolist() for t in tensors(done.secure)]
    return (
        _head(source)
        | done.figures()
        | {"err_bound": source.err_bound, "output": found, "versions": measure.versions()}
    )


def _head(source: Source) -> dict[str, Any]:
    return {"model": source.name, "size": source.size, "seq": source.seq, "batch": source.batch}


def _print_tokens(source: Source, made: generating.Generated) -> None:
    out = console.out()
    for secure, plain in zip(made.tokens, made.plain_tokens, strict=True):
        out.print(f"on shares    {' '.join(map(str, secure))}", markup=False, soft_wrap=True)
        out.print(f"in plaintext {' '.join(map(str, plain))}", markup=False, soft_wrap=True)
    out.print(generating.table(source.name, made))


def _print(source: Source, done: measure.Measured) -> None:
    out = console.out()
    table = Table("output", "shape", "on shares", "in plaintext", "largest difference", title=source.name)
    for index, (secure, plain) in enumerate(zip(tensors(done.secure), tensors(done.plain), strict=True)):
        gap = float((secure.double() - plain.double()).abs().max()) if secure.numel() else 0.0
        table.add_row(str(index), "x".join(map(str, secure.shape)), _first(secure), _first(plain), f"{gap:.1e}")
    out.print(table)
    out.print(layer_table(done.report))
    agrees = "as predicted" if done.report.cost == done.predicted else "NOT AS PREDICTED"
    out.print(f"on shares {done.secure_s:.2f} s, in plaintext {done.plain_s * 1000:.1f} ms; traffic {agrees}")


def _first(tensor: Tensor) -> str:
    values = tensor.reshape(-1)[:4].tolist()
    return ", ".join(f"{v:.4f}" if isinstance(v, float) else str(v) for v in values)
