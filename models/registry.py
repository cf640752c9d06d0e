"""The registry of networks: one `Entry` each, known to `hush models`, `run`, `bench` and to one parametrised test."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hush.models.sketch import Sketch
from hush.mpc.errors import ModelError

LANGUAGE = ("minilm", "bert", "roberta", "gpt2", "llama")
COLLECTION = (
    "ltsf_linear",
    "informer",
    "itransformer",
    "flowformer",
    "gateformer",
    "entrope",
    "time2vec",
    "ifactformer",
    "mossformer2",
    "simplespeech2",
    "periodwave",
    "lmuformer",
    "sctn",
    "flowtransformer",
)
MODULES = LANGUAGE + COLLECTION  # files of this package that register networks

Call = tuple[Tensor, ...]

_entries: dict[str, Entry] = {}


@dataclass(frozen=True, slots=True)
class Size:
    """One configuration of a network: how to make the bare architecture, its default and its longest sequence; it may
    take its default only."""

    architecture: Callable[[], nn.Module]
    seq: int
    longest: int | None = None
    fixed: bool = False

    def parameters(self) -> int:
        """Number of parameters, counted on the meta device."""
        with torch.device("meta"):
            return sum(p.numel() for p in self.architecture().parameters())


@dataclass(frozen=True, slots=True)
class Entry:
    """A network of the collection.

    `build(size, source)` gives the module in eval mode: with its published initialisation (seed 0) or its checkpoint,
    `source` being a checkpoint's folder or hub id. `example(size, seq, batch, seed)` gives its positional arguments,
    others for another seed. `calibration(size, seq, batch)` gives further public calls that its ranges are taken from.
    `from_text(text, length, source)` gives the arguments for a text, padded to `length` (default: the text's bucket).
    `err_bound` bounds |secure - plain| over all float outputs. `generator(module)`: its prompt's and its step's module,
    over the same parameters, for those that generate (`hush.mpc.compiler.generator`); the context is `Size.longest`.
    `for_text(size, seq, batch)`: calls as `from_text` gives them, the first without padding, where those have a mask
    that `example` does not have. `sketch(call, output)`: what of an answer a person looks at.
    `adapt(source)`: the entry of a checkpoint of this kind, whatever its sizes; without a bound.
    """

    id: str
    title: str
    paper: str
    task: str
    sizes: Mapping[str, Size]
    build: Callable[[str, str | None], nn.Module]
    example: Callable[[str, int, int, int], Call]
    err_bound: float | None
    calibration: Callable[[str, int, int], Sequence[Call]] = lambda size, seq, batch: ()
    from_text: Callable[[str, int | None, str | None], Call] | None = None
    generator: Callable[[nn.Module], tuple[nn.Module, nn.Module]] | None = None
    for_text: Callable[[str, int, int], Sequence[Call]] | None = None
    adapt: Callable[[str], Entry] | None = None
    sketch: Callable[[Call, Any], Sketch] | None = None

    @property
    def default_size(self) -> str:
        """`tiny` if there is one."""
        return "tiny" if "tiny" in self.sizes else next(iter(self.sizes))

    def calls(self, size: str, seq: int, batch: int, *, text: bool = False) -> list[Call]:
        """What a program is compiled on, the example first: with masks for a `text`."""
        if text and self.for_text is not None:
            return list(self.for_text(size, seq, batch))
        return [self.example(size, seq, batch, 0), *self.calibration(size, seq, batch)]

    def size(self, name: str | None) -> tuple[str, Size]:
        """A size by name, the default for None."""
        chosen = name or self.default_size
        if chosen not in self.sizes:
            raise ModelError(f"{self.id} has no size {chosen!r}: choose from {', '.join(self.sizes)}")
        return chosen, self.sizes[chosen]

    def length(self, size: str, seq: int | None) -> int:
        """A sequence length that the size can take, its default for None."""
        found = self.sizes[size]
        chosen = found.seq if seq is None else seq
        if found.fixed and chosen != found.seq:
            raise ModelError(f"{self.id} at size {size} takes {found.seq} positions, not {chosen}")
        if chosen < 1 or (found.longest is not None and chosen > found.longest):
            raise ModelError(f"{self.id} takes 1 to {found.longest or 'any number of'} positions, not {chosen}")
        return chosen


def register(entry: Entry) -> None:
    """Add a network; its id must be new."""
    if entry.id in _entries:
        raise ValueError(f"model {entry.id} is registered twice")
    _entries[entry.id] = entry


def entries() -> list[Entry]:
    """All networks, in the order of `MODULES` and then of registration."""
    for module in MODULES:
        importlib.import_module(f"hush.models.{module}")
    return sorted(_entries.values(), key=_place)


def collection() -> list[Entry]:
    """The networks of the paper collection."""
    return [entry for entry in entries() if _file(entry) in COLLECTION]


def _place(entry: Entry) -> int:
    """Files import each other: where an entry comes is decided by whose network it is."""
    file = _file(entry)
    return MODULES.index(file) if file in MODULES else len(MODULES)


def _file(entry: Entry) -> str:
    made: Any = next(iter(entry.sizes.values())).architecture
    return str(getattr(made, "func", made).__module__).rpartition(".")[2]


def known(model: str) -> Entry | None:
    """A network by id; None for what is not one."""
    return {entry.id: entry for entry in entries()}.get(model)


def get(model: str, source: str | None = None) -> Entry:
    """A network by id, for a checkpoint of its kind if `source` names one."""
    entry = known(model)
    if entry is None:
        raise ModelError(f"no model {model!r}: choose from {', '.join(e.id for e in entries())}, or give hf:PATH")
    return entry.adapt(source) if source is not None and entry.adapt is not None else entry
