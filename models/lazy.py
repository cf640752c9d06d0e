"""A checkpoint's weights by the names that a program knows them by, each read from disk when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hush.models.checkpoint import Checkpoint
from hush.models.initial import bare
from hush.models.language import FAMILIES, Family
from hush.mpc.errors import ModelError


class LazyTensors(Mapping[str, Tensor]):
    """Float32 tensors by name: `names` leads from each to the checkpoint's own. None is kept in memory.

    ModelError for a weight that is no floating-point number, or a file that cannot be read.
    """

    def __init__(self, checkpoint: Checkpoint, names: Mapping[str, str]) -> None:
        self._checkpoint, self._names = checkpoint, dict(names)
        self._files = checkpoint.files()
        stored = checkpoint.shapes()
        self.shapes = {name: stored[own] for name, own in self._names.items()}

    def __getitem__(self, name: str) -> Tensor:
        stored = self._names[name]
        path = self._files[stored]
        try:
            with safe_open(path, framework="pt") as file:
                tensor: Tensor = file.get_tensor(stored)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path} cannot be read as safetensors: {error}") from None
        if not tensor.is_floating_point():
            folder = self._checkpoint.folder
            raise ModelError(f"{folder}: weight {stored} is {tensor.dtype}: quantised weights cannot be loaded")
        return tensor.to(torch.float32, copy=True)  # aligned: sums come out alike whenever it is read, wherever it lies

    def __contains__(self, name: object) -> bool:
        return name in self._names  # the mapping's own would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"LazyTensors({self._checkpoint.folder}, {len(self)})"


def lazy_tensors(checkpoint: Checkpoint, wanted: Iterable[str]) -> LazyTensors:
    """The tensors that a program asks for (`wanted`), from a checkpoint whose network need not be in memory.

    Of a family of ours the checkpoint must fit its network, name by name and shape by shape (ModelError as
    `Checkpoint.load_into`); of another its names are taken as they are. A program's names may begin with those of the
    modules that were wrapped around the network, and a checkpoint's with the network's own: both are found. What is
    missing then is for the program to complain about, as it does for a module.
    """
    names = _family_names(checkpoint)
    if names is None:
        names = {name: name for name in checkpoint.shapes()}
    return LazyTensors(checkpoint, _wrapped(names, list(wanted)))


def _family_names(checkpoint: Checkpoint) -> dict[str, str] | None:
    """The network's name of each weight of a family's checkpoint, and the checkpoint's."""
    kind = checkpoint.config.get("model_type")
    if kind not in FAMILIES:
        return None
    family: Family = importlib.import_module(f"hush.models.{kind}").FAMILY
    config = family.read(checkpoint)
    places = checkpoint.places(bare(partial(family.network, config)), family.names(config))
    return {own: name for name, own in places.items()}


def _wrapped(names: Mapping[str, str], wanted: list[str]) -> dict[str, str]:
    """The names as the program has them: with what it puts before them all, or without what all of them begin with."""
    known = set(names)
    best = dict(names)
    for place in wanted[:1]:
        parts = place.split(".")
        for depth in range(len(parts)):
            prefix = "".join(part + "." for part in parts[:depth])
            if place.removeprefix(prefix) in known:
                return {prefix + name: own for name, own in names.items()}
        for name in names:
            if name.endswith("." + place):
                prefix = name.removesuffix(place)
                return {n.removeprefix(prefix): own for n, own in names.items()}
    return best
