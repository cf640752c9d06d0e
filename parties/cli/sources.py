"""What a command computes on: a model of the registry, a local HF checkpoint, or a module from a Python file."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hush import api
from hush.models import registry
from hush.mpc.compiler import Program
from hush.mpc.errors import UserError
from hush.parties.cli import hugging_face
from hush.parties.cli.hugging_face import HF
from hush.parties.cli.inputs import read_call


@dataclass(frozen=True, slots=True)
class Source:
    """A module with an example call to compile it on, further calls for its ranges, and the call to run.

    Compilation sees public examples only: what it learns of them, rounded, becomes part of a public program.
    """

    name: str
    module: nn.Module
    example: tuple[Any, ...]
    call: tuple[Any, ...]
    size: str | None = None
    seq: int | None = None
    batch: int = 1
    calls: Sequence[tuple[Any, ...]] = field(default=())
    err_bound: float | None = None
    generator: tuple[nn.Module, nn.Module] | None = None
    context: int | None = None

    @property
    def short(self) -> str:
        """The name without the folders that it may be in."""
        return Path(self.name.removeprefix(HF)).name

    def compile(
        self, weights: str = "secret", approx: str = "default", lookup: str = "auto", schedule: str = "lan"
    ) -> Program:
        """The program, with its predicted cost."""
        return api.compile(
            self.module,
            self.example,
            weights=str(weights),
            approx=str(approx),
            ranges=self.calls or None,
            lookup=str(lookup),
            schedule=schedule,
        )

    def compile_generator(
        self,
        weights: str = "secret",
        approx: str = "default",
        lookup: str = "auto",
        schedule: str = "lan",
        *,
        padded: bool = False,
        reveals: str = "token",
    ) -> Program:
        """The program that generates, for prompts as long as the example; with `padded`, for shorter ones too."""
        if self.generator is None or self.context is None:
            raise UserError(f"{self.name} cannot generate: it has no step after its prompt")
        calls = [(call[0],) for call in (self.example, *self.calls)]
        return api.compile_generator(
            *self.generator,
            _padded(calls) if padded else calls,
            context=self.context,
            reveals=reveals,
            weights=str(weights),
            approx=str(approx),
            lookup=str(lookup),
            schedule=schedule,
        )


def _padded(calls: Sequence[tuple[torch.Tensor]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The prompts whole, and again cut to a few lengths: with their masks, padded on the left."""
    rows, length = [ids for ids, *_ in calls], calls[0][0].shape[-1]
    lengths = [length] * len(rows) + sorted({1, 2, length // 2 or 1, length - 1 or 1})
    places = torch.arange(length)
    return [
        (rows[i % len(rows)], (places >= length - own).expand(rows[0].shape).contiguous())
        for i, own in enumerate(lengths)
    ]


def resolve(
    spec: str,
    *,
    size: str | None = None,
    seq: int | None = None,
    batch: int = 1,
    text: str | None = None,
    file: Path | None = None,
    checkpoint: str | None = None,
    masked: bool = False,
) -> Source:
    """A model's id, `hf:FOLDER`, or `FILE.py[:FUNCTION]`, with its input from `text`, a `file`, or an example.

    `masked`: compile a registered model for inputs with a mask, if it takes one, as texts are padded.
    """
    if text is not None and file is not None:
        raise UserError("give --text or --input, not both")
    if spec.startswith(HF):
        return _hugging_face(spec, seq, text, file)
    path, _, function = spec.partition(":")
    if path.endswith(".py"):
        return _python(Path(path), function or "build", file)
    return _registered(spec, size, seq, batch, text, file, checkpoint, masked)


def _registered(
    model: str,
    size: str | None,
    seq: int | None,
    batch: int,
    text: str | None,
    file: Path | None,
    source: str | None,
    masked: bool,
) -> Source:
    entry = registry.get(model, source)
    chosen, _ = entry.size(None if size is None else str(size))
    length = entry.length(chosen, seq)
    call: tuple[Any, ...] | None = None
    if text is not None:
        if entry.from_text is None:
            raise UserError(f"{model} takes no text: give its arguments in a file (--input)")
        call = entry.from_text(text, seq, source)
        batch, length = call[0].shape[0], call[0].shape[1]
    module = entry.build(chosen, source)
    if file is not None:
        call = read_call(file, module)
        batch, length = _extents(call, batch, length)
    masked = masked or (call is not None and len(call) > 1)
    example, *calls = entry.calls(chosen, length, batch, text=masked)
    if call is None:
        call = example if masked else entry.example(chosen, length, batch, 1)
    return Source(
        name=model,
        module=module,
        example=example,
        call=call,
        size=chosen,
        seq=length,
        batch=batch,
        calls=calls,
        err_bound=entry.err_bound,
        generator=None if entry.generator is None else entry.generator(module),
        context=entry.sizes[chosen].longest,
    )


def _extents(call: Sequence[Any], batch: int, length: int) -> tuple[int, int]:
    """[batch, sequence] of a call's first tensor, if it has both."""
    first = next((a for a in call if isinstance(a, torch.Tensor)), None)
    return (first.shape[0], first.shape[1]) if first is not None and first.ndim >= 2 else (batch, length)


def _hugging_face(spec: str, seq: int | None, text: str | None, file: Path | None) -> Source:
    made = hugging_face.load(spec, seq, text, file)
    batch, length = _extents(made.call, 1, 1)
    return Source(spec, made.module, made.example, made.call, batch=batch, seq=length, calls=made.calls)


def _python(path: Path, function: str, file: Path | None) -> Source:
    """FILE.py[:FUNCTION]: the function returns a module and the arguments of an example call."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    made = runpy.run_path(str(path)).get(function)
    if not callable(made):
        raise UserError(f"{path} defines no function {function!r} that returns (module, arguments)")
    pair = made()
    if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], nn.Module)):
        raise UserError(f"{path}:{function} returns {type(pair).__name__}, and (module, arguments) is due")
    module, args = pair[0].eval(), tuple(pair[1])
    call = args if file is None else read_call(file, module)
    return Source(path.stem, module, args, call)
