"""The compiler as the package's face offers it: programs that know what they will cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hush.mpc import compiler
from hush.mpc.compiler import Program
from hush.parties.cost import predicted

__all__ = ["compile", "load"]


def compile(
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    public: Sequence[str] = (),
    weights: str = "secret",
    approx: str = "default",
    ranges: Any = None,
) -> Program:
    """Compile a module for secure inference on calls shaped like the example.

    Every tensor argument is secret unless named in `public`; other arguments are constants. `weights`: "secret", or
    "public". `approx`: "default" or "puma". `ranges`: further example calls that widen the calibration, or bounds by
    name. The program's `cost` is what one inference will measure, the two rounds of its checks included. Raises
    UnsupportedOp for an op without a rule, UserError for a wrong argument.
    """
    program = compiler.compile_module(
        module, args, kwargs, public=public, weights=weights, approx=approx, ranges=ranges
    )
    predicted(program)
    return program


def load(path: str | Path) -> Program:
    """A program that `Program.save` wrote, with its predicted cost and without weights (`Program.bind` fills them in).

    ProgramError if the file holds none, or one of another format.
    """
    program = compiler.load(path)
    predicted(program)
    return program
