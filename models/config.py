"""Reading a `config.json`: the fields that a network has, with the types that it gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from hush.mpc.errors import ModelError

C = TypeVar("C")
_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}


def read_config(cls: type[C], config: Mapping[str, Any], names: Mapping[str, str] | None = None) -> C:
    """An instance of a dataclass from what `config` says; its defaults hold for what is absent or null.

    `names` gives the key of fields that the file calls otherwise. ModelError for a value of another type.
    """
    found: dict[str, Any] = {}
    for field in fields(cls):  # type: ignore[arg-type]
        key = (names or {}).get(field.name, field.name)
        value = config.get(key)
        if value is None:
            continue
        types = _TYPES.get(str(field.type).removesuffix(" | None"), (object,))
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types and object not in types):
            raise ModelError(f"config.json: {key} is {value!r}, and {field.type} is due")
        found[field.name] = value
    return cls(**found)


def require(holds: bool, what: str) -> None:
    """ModelError unless a configuration `holds` to what the network can do."""
    if not holds:
        raise ModelError(f"config.json: {what}")


def check_length(length: int, longest: int) -> None:
    """ModelError if more positions are asked for than a network has."""
    if length > longest:
        raise ModelError(f"{length} positions are asked for, and the network has {longest}: shorten or split the text")
