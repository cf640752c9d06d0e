"""Arguments from files. Formats that hold numbers and nothing else: .npy, .npz, .safetensors, .json."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from hush.mpc.errors import UserError

FORMATS = ".npy, .npz, .safetensors or .json"


def read(path: Path) -> dict[str | int, Tensor]:
    """Tensors of a file by name, or by place if the file gives no names."""
    readers = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors, ".json": _json}
    if path.suffix not in readers:
        raise UserError(f"{path}: an input file is {FORMATS}")
    try:
        return readers[path.suffix](path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, TypeError, EOFError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as {path.suffix}: {error}") from None


def read_call(path: Path, module: nn.Module) -> tuple[Any, ...]:
    """A module's positional arguments from a file, real numbers as float32."""
    return arrange(read(path), parameters(module), path)


def parameters(module: nn.Module) -> list[str]:
    """Names of a module's positional parameters."""
    return [n for n, p in inspect.signature(module.forward).parameters.items() if p.kind in _POSITIONAL]


def arrange(values: Mapping[str | int, Tensor], names: list[str], path: Path) -> tuple[Any, ...]:
    """Named or numbered values in the order of the parameters; those after the last one given are left out."""
    unknown = [n for n in values if (n not in names if isinstance(n, str) else n >= len(names))]
    if unknown:
        raise UserError(f"{path}: no argument is called {unknown[0]!r}; the model takes {', '.join(names)}")
    placed = {names[n] if isinstance(n, int) else n: v for n, v in values.items()}
    given = [placed.get(n) for n in names]
    while given and given[-1] is None:
        given.pop()
    if not given:
        raise UserError(f"{path} holds no arguments; the model takes {', '.join(names)}")
    return tuple(v.float() if isinstance(v, Tensor) and v.dtype == torch.float64 else v for v in given)


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _npy(path: Path) -> dict[str | int, Tensor]:
    return {0: torch.from_numpy(np.load(path, allow_pickle=False))}


def _npz(path: Path) -> dict[str | int, Tensor]:
    with np.load(path, allow_pickle=False) as held:
        return {name: torch.from_numpy(held[name]) for name in held.files}


def _safetensors(path: Path) -> dict[str | int, Tensor]:
    return {name: tensor for name, tensor in load_safetensors(path.read_bytes()).items()}  # noqa: C416 - widens the keys' type


def _json(path: Path) -> dict[str | int, Tensor]:
    value = json.loads(path.read_text())
    if isinstance(value, dict):
        return {name: torch.tensor(v) for name, v in value.items()}
    return {0: torch.tensor(value)}
