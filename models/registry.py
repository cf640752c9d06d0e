"""The registry of networks: one `Entry` each, known to `hush models`, `run`, `bench` and to one parametrised test."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hush.mpc.errors import ModelError

MODULES = ("minilm",)  # files of this package that register networks

_entries: dict[str, Entry] = {}


@dataclass(frozen=True, slots=True)
class Size:
    """One configuration of a network: how to make the bare architecture, and its default sequence length."""

    architecture: Callable[[], nn.Module]
    seq: int

    def parameters(self) -> int:
        """Number of parameters, counted on the meta device."""
        with torch.device("meta"):
            return sum(p.numel() for p in self.architecture().parameters())


@dataclass(frozen=True, slots=True)
class Entry:
    """A network of the collection.

    `build(size)` gives the module in eval mode, with its published initialisation (seed 0) or its checkpoint;
    `example(size, seq, batch)` its positional arguments; `err_bound` bounds |secure - plain| over all float outputs.
    """

    id: str
    title: str
    paper: str
    task: str
    sizes: Mapping[str, Size]
    build: Callable[[str], nn.Module]
    example: Callable[[str, int, int], tuple[Tensor, ...]]
    err_bound: float

    @property
    def default_size(self) -> str:
        """`tiny` if there is one."""
        return "tiny" if "tiny" in self.sizes else "paper"

    def size(self, name: str | None) -> tuple[str, Size]:
        """A size by name, the default for None."""
        chosen = name or self.default_size
        if chosen not in self.sizes:
            raise ModelError(f"{self.id} has no size {chosen!r}: choose from {', '.join(self.sizes)}")
        return chosen, self.sizes[chosen]


def register(entry: Entry) -> None:
    """Add a network; its id must be new."""
    if entry.id in _entries:
        raise ValueError(f"model {entry.id} is registered twice")
    _entries[entry.id] = entry


def entries() -> list[Entry]:
    """All networks, in the order of registration."""
    for module in MODULES:
        importlib.import_module(f"hush.models.{module}")
    return list(_entries.values())


def get(model: str) -> Entry:
    """A network by id."""
    known = {entry.id: entry for entry in entries()}
    if model not in known:
        raise ModelError(f"no model {model!r}: choose from {', '.join(known)}, or give hf:PATH")
    return known[model]
