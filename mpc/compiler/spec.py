"""What goes in and comes out of a program: encoding, checks and nesting of arguments and results."""

from __future__ import annotations

import sys
from collections import namedtuple
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hush.mpc import fixed_point
from hush.mpc.compiler.types import VOCABULARY, Kind, dtype_name, dtype_named
from hush.mpc.errors import RangeError, ShapeError
from hush.mpc.ring import Ring

Structure = Any  # JSON: {"leaf": i} or {"tuple" | "list" | "dict" | "named": ...}


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One secret input. `path` leads to it in the call: the parameter's name, then indices and keys.

    Ring elements made of it have `shape`, and one more dimension of `bound` for a one-hot. With `state`, the parties
    feed what they kept under that name, and of dimension `grows` the length is known when the program runs.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    dtype: str
    bound: float
    frac: int
    path: tuple[str | int, ...]
    state: str = ""
    grows: int | None = None

    @property
    def dealt(self) -> bool:
        """Whether the client shares it."""
        return not self.state and self.kind is not Kind.PLACE

    @property
    def shared_shape(self) -> tuple[int, ...]:
        """Shape of the tensor that is shared."""
        return (*self.shape, int(self.bound)) if self.kind is Kind.ONEHOT else self.shape

    def shape_at(self, length: int) -> tuple[int, ...]:
        """Shape of the tensor that is shared where the dimension that grows has this length."""
        shape = self.shared_shape
        return shape if self.grows is None else (*shape[: self.grows], length, *shape[self.grows + 1 :])

    def encode(self, value: Any, ring: Ring) -> Tensor:
        """Ring elements of a client's value (of a POINT the integers); ShapeError or RangeError if it is not as
        declared."""
        self._check_shape(value)
        tensor: Tensor = value.detach().cpu()
        if self.kind is Kind.REAL:
            return self._encode_real(tensor, ring)
        low, high = self.limits
        if tensor.numel() and (int(tensor.min()) < low or int(tensor.max()) > high):
            raise RangeError(
                f"input {self.name!r}: values {int(tensor.min())}..{int(tensor.max())} outside the declared "
                f"{low}..{high}; {self._way_out()}"
            )
        if self.kind is Kind.POINT:
            return tensor.long()
        if self.kind is Kind.ONEHOT:
            return ring.reduce(torch.nn.functional.one_hot(tensor.long(), int(self.bound)))
        return ring.reduce(tensor.long())

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer that the input may hold."""
        if self.kind in VOCABULARY:
            return 0, int(self.bound) - 1
        return (0 if self.kind is Kind.BOOL else -int(self.bound)), int(self.bound)

    def _encode_real(self, tensor: Tensor, ring: Ring) -> Tensor:
        if not torch.isfinite(tensor).all():
            raise RangeError(f"input {self.name!r} holds NaN or infinity: replace them before inference")
        largest = float(tensor.abs().max()) if tensor.numel() else 0.0
        if largest > self.bound:
            raise RangeError(
                f"input {self.name!r}: |value| up to {largest:g} exceeds the compiled range {self.bound:g}; "
                f"{self._way_out()}"
            )
        return fixed_point.encode(tensor, ring, self.frac)

    def _way_out(self) -> str:
        if self.kind in VOCABULARY:
            return "ids must come from the vocabulary the model was compiled with"
        return f"compile with ranges={{{self.name!r}: <largest magnitude>}} or with examples that cover it"

    def _check_shape(self, value: Any) -> None:
        if not isinstance(value, Tensor):
            raise ShapeError(f"input {self.name!r}: a tensor is due, not {type(value).__name__}")
        if tuple(value.shape) != self.shape:
            raise ShapeError(
                f"input {self.name!r}: shape {tuple(value.shape)} where the program was compiled for {self.shape}; "
                "pad to it, or compile again with an example of this shape"
            )
        real = value.dtype.is_floating_point
        if value.dtype.is_complex or real != dtype_named(self.dtype).is_floating_point:
            raise ShapeError(f"input {self.name!r}: dtype {dtype_name(value.dtype)} where {self.dtype} is due")

    def fetch(self, call: Mapping[str, Any]) -> Any:
        """The value at this input's place in a call's arguments by name; ShapeError if there is none."""
        found: Any = call
        for step in self.path:
            try:
                found = found[step]
            except (KeyError, IndexError, TypeError):
                raise ShapeError(f"input {self.name!r} is missing from the call") from None
        return found


@dataclass(frozen=True, slots=True)
class WeightSpec:
    """One weight tensor that the program needs: shared by the provider, or handed out in clear if public."""

    name: str
    shape: tuple[int, ...]
    frac: int


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One leaf of the result. `literal` leaves are known at compile time (public tensors, None, numbers).

    With `keep` the parties keep it under that name, and the client does not see it.
    """

    kind: Kind | None
    shape: tuple[int, ...]
    dtype: str
    frac: int
    literal: Any = None
    keep: str = ""

    def decode(self, element: Tensor, ring: Ring) -> Tensor:
        """The value in the module's dtype from ring elements."""
        dtype = dtype_named(self.dtype)
        if self.kind is Kind.REAL:
            return fixed_point.decode(element, ring, self.frac).to(dtype)
        return ring.signed(element).to(dtype)


def by_name(parameters: Sequence[str], args: Sequence[Any]) -> dict[str, Any]:
    """Positional arguments by parameter name; a last name marked * takes the rest. ShapeError if too many."""
    names = list(parameters)
    if names and names[-1].startswith("*"):
        fixed = names[:-1]
        rest = {names[-1][1:]: tuple(args[len(fixed) :])} if len(args) > len(fixed) else {}
        return dict(zip(fixed, args, strict=False)) | rest
    if len(args) > len(names):
        raise ShapeError(f"{len(args)} positional arguments where the module takes {len(names)} ({', '.join(names)})")
    return dict(zip(names, args, strict=False))


def describe(value: Any, counter: Iterator[int]) -> Structure:
    """The nesting of a result whose leaves were replaced by anything: JSON, leaves numbered in order."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        fields = {k: describe(v, counter) for k, v in zip(value._fields, value, strict=True)}
        return {"named": type(value).__name__, "fields": list(fields.items())}
    if isinstance(value, tuple | list):
        return {"tuple" if isinstance(value, tuple) else "list": [describe(v, counter) for v in value]}
    if isinstance(value, Mapping):
        items = [[k, describe(v, counter)] for k, v in value.items()]
        kind = type(value)
        return {"dict": items, "class": f"{kind.__module__}:{kind.__qualname__}"}
    return {"leaf": next(counter)}


def rebuild(structure: Structure, leaves: list[Any]) -> Any:
    """A result of the described nesting."""
    if "leaf" in structure:
        return leaves[structure["leaf"]]
    if "tuple" in structure:
        return tuple(rebuild(s, leaves) for s in structure["tuple"])
    if "list" in structure:
        return [rebuild(s, leaves) for s in structure["list"]]
    if "named" in structure:
        names = [k for k, _ in structure["fields"]]
        return namedtuple(structure["named"], names)(*(rebuild(s, leaves) for _, s in structure["fields"]))
    return _mapping_class(structure["class"])({k: rebuild(s, leaves) for k, s in structure["dict"]})


def _mapping_class(name: str) -> Any:
    """A model output class of transformers, if that package is loaded already; a dict otherwise.

    A program is data from someone else: it never makes anything be imported.
    """
    module_name, _, qualname = name.partition(":")
    generic = sys.modules.get("transformers.utils.generic")
    module = sys.modules.get(module_name) if module_name.startswith("transformers.") else None
    found = getattr(module, qualname, None)
    if generic is not None and isinstance(found, type) and issubclass(found, generic.ModelOutput):
        return found
    return dict
