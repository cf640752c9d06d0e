"""`hush run`: one secure inference with local parties, compared with plaintext."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table
from torch import Tensor

from hush.parties.cli import console, measure
from hush.parties.cli.network import layer_table
from hush.parties.cli.options import Approx, Checkpoint, Input, Json, Link, Net, Seq, Size, Text, Weights
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
    link: Annotated[Link, typer.Option(help="Three processes over mutual TLS, or three threads.")] = Link.grpc,
    net: Annotated[Net, typer.Option(help="A modelled network between the parties.")] = Net.none,
    weights: Annotated[Weights, typer.Option(help="Whether the parties may see the weights.")] = Weights.secret,
    approx: Annotated[Approx, typer.Option(help="The approximation set.")] = Approx.default,
    checkpoint: Checkpoint = None,
    as_json: Json = False,
) -> None:
    """One secure inference with local parties, compared with plaintext. Without an input, an example is run."""
    with console.stages(3 + measure.LOCAL_STAGES) as stage:
        stage(f"loading {model}")
        source = resolve(model, size=size, seq=seq, text=text, file=file, checkpoint=checkpoint)
        stage("compiling it")
        program = source.compile(weights, approx)
        with measure.local(program, link, net, stage) as infer:
            report = stage("running it")
            done = measure.measure(source.module, source.call, program, infer, 1, report)
    if as_json:
        console.emit(describe(source, done))
    else:
        _print(source, done)


def describe(source: Source, done: measure.Measured) -> dict[str, Any]:
    """One run as JSON, with its output tensors nested as lists."""
    head = {"model": source.name, "size": source.size, "seq": source.seq, "batch": source.batch}
    found = [t.tolist() for t in tensors(done.secure)]
    return head | done.figures() | {"err_bound": source.err_bound, "output": found, "versions": measure.versions()}


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
