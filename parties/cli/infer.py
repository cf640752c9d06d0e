"""`hush infer`: private inference on three running parties."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from torch import Tensor

from hush.models import registry
from hush.models.checkpoint import Checkpoint
from hush.mpc.compiler import Program
from hush.mpc.errors import UserError
from hush.parties import client
from hush.parties.cli import console, measure
from hush.parties.cli.hf_inputs import text_call
from hush.parties.cli.hugging_face import HF
from hush.parties.cli.inputs import arrange, read
from hush.parties.cli.network import layer_table
from hush.parties.cli.options import Checkpoint as Weights
from hush.parties.cli.options import Input, Json, Text
from hush.parties.compare import tensors
from hush.parties.cost import predicted
from hush.parties.remote import Inference


def command(
    model: Annotated[str, typer.Argument(help="The name that it was deployed under.")],
    config: Annotated[Path, typer.Option(help="The client's TOML file.")],
    text: Text = None,
    file: Input = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Model (or hf:FOLDER) whose tokenizer --text needs; default: MODEL.", show_default=False),
    ] = None,
    checkpoint: Weights = None,
    as_json: Json = False,
) -> None:
    """Share an input with three running parties and put their answer together; neither leaves this machine in clear."""
    if (text is None) == (file is None):
        raise UserError("give the input: either --text or --input FILE")
    with console.stages(2) as stage, client.connect(config) as parties:
        stage("asking for the program")
        program = parties.program(model)
        predicted(program)
        call = (
            _text_call(tokenizer or model, text, program, checkpoint) if text is not None else _file_call(file, program)
        )
        report = stage("inference on shares")
        done = parties.run(model, call, progress=measure.layers(program, report))
    if as_json:
        console.emit(describe(model, program, done))
    else:
        _print(done)


def _text_call(model: str, text: str, program: Program, checkpoint: str | None) -> tuple[Any, ...]:
    length = program.inputs[0].shape[-1]
    if model.startswith(HF):
        return text_call(Checkpoint(Path(model.removeprefix(HF))), list(program.parameters), text, length)
    entry = registry.get(model)
    if entry.from_text is None:
        raise UserError(f"{model} takes no text: give its arguments in a file (--input)")
    return entry.from_text(text, length, checkpoint)


def _file_call(file: Path | None, program: Program) -> tuple[Any, ...]:
    assert file is not None
    return arrange(read(file), list(program.parameters), file)


def describe(model: str, program: Program, done: Inference) -> dict[str, Any]:
    """One inference as JSON, its output tensors nested as lists."""
    report = done.report
    figures = {"secure_s": round(report.seconds, 6), "client_bytes": report.client_bytes}
    figures |= measure.cost_json(report.cost) | {"predicted": measure.cost_json(predicted(program))}
    return {"model": model, "output": [t.tolist() for t in tensors(done.output)]} | figures


def _print(done: Inference) -> None:
    out = console.out()
    for tensor in tensors(done.output):
        out.print(_shown(tensor), markup=False, soft_wrap=True)
    out.print(layer_table(done.report))


def _shown(tensor: Tensor) -> str:
    values = [f"{v:.4f}" if isinstance(v, float) else str(v) for v in tensor.reshape(-1)[:8].tolist()]
    more = ", ..." if tensor.numel() > len(values) else ""
    return f"[{'x'.join(map(str, tensor.shape))}] {', '.join(values)}{more}"
