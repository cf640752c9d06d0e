"""The compiler as the package's face offers it: programs that know what they will cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hush.mpc import compiler
from hush.mpc.compiler import Program
from hush.parties.cost import predicted

__all__ = ["compile", "compile_generator", "load"]


def compile(
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    public: Sequence[str] = (),
    weights: str = "secret",
    approx: str = "default",
    ranges: Any = None,
    lookup: str = "auto",
    schedule: str = "lan",
) -> Program:
    """Compile a module for secure inference on calls shaped like the example.

    Every tensor argument is secret unless named in `public`; other arguments are constants. `weights`: "secret", or
    "public". `approx`: "default" or "puma". `ranges`: further example calls that widen the calibration, or bounds by
    name. `lookup`: how token ids travel, "onehot" rows, "dpf" keys, as they are for "equality" tests, or "auto".
    `schedule`: "lan", or "wan" for parties that are far from each other: fewer rounds, more bytes. The program's `cost`
    is what one inference will measure, the two rounds of its checks included. Raises UnsupportedOp for an op without a
    rule, UserError for a wrong argument.
    """
    program = compiler.compile_module(
        module, args, kwargs, public=public, weights=weights, approx=approx, ranges=ranges, lookup=lookup
    )
    program = compiler.scheduled(program, schedule)
    predicted(program)
    return program


def compile_generator(
    prefill: torch.nn.Module,
    step: torch.nn.Module,
    calls: Sequence[Sequence[Any]],
    *,
    context: int,
    longer: Sequence[Sequence[Sequence[Any]]] = (),
    reveals: str = "token",
    weights: str = "secret",
    approx: str = "default",
    lookup: str = "auto",
    schedule: str = "lan",
) -> Program:
    """Compile a network that generates, for `client.generate`: the modules of its prompt and of each token after it.

    What the two take and give is written in `hush.mpc.compiler.generator`. `calls`: calls of `prefill`, the first one
    the example, the others for the ranges. `longer`: the same for each further length of prompts, in order; a prompt
    takes the shortest that holds it. `context`: positions that prompt and answer may take. `reveals`: the client is
    shown the "token" chosen, or "logits" beside it. The rest, and errors, as `compile`. The program's `cost` is that of
    the first turn, from the prompt to the first token.
    """
    program = compiler.compile_generator(
        prefill,
        step,
        calls[0],
        calls=calls[1:],
        context=context,
        longer=longer,
        reveals=reveals,
        weights=weights,
        approx=approx,
        lookup=lookup,
    )
    program = compiler.scheduled(program, schedule)
    predicted(program)
    return program


def load(path: str | Path) -> Program:
    """A program that `Program.save` wrote, with its predicted cost and without weights (`Program.bind` fills them in).

    ProgramError if the file holds none, or one of another format.
    """
    program = compiler.load(path)
    predicted(program)
    return program
