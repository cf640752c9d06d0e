"""What the compiler knows of every value of a graph: `node.meta["hush"]`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import torch
from torch import fx

META = "hush"
LAYER = "hush_layer"


class Visibility(IntEnum):
    """Who knows a value. The visibility of a result is the largest of its operands'."""

    PUBLIC = 0  # everyone: part of the program
    WEIGHT = 1  # the model's provider
    SECRET = 2  # derived from the client's input


class Kind(StrEnum):
    """How a secret value is represented."""

    REAL = "real"  # fixed point
    INT = "int"  # an integer, no fraction bits
    ONEHOT = "onehot"  # an integer in 0..bound-1 as a row of `bound` bits, a last dimension more than its shape
    POINT = "point"  # an integer in 0..bound-1 known by its keys, that tables can be looked up at (`hush.mpc.points`)
    ID = "id"  # an integer in 0..bound-1, shared as it is
    BOOL = "bool"  # an integer 0 or 1
    PLACE = "place"  # a public integer that is known when the program runs: the slot of the token that comes next


VOCABULARY = frozenset((Kind.ONEHOT, Kind.POINT, Kind.ID))
"""Kinds of integers in 0..bound-1, which a client is held to."""


@dataclass(frozen=True, slots=True)
class Type:
    """Type of a value: |value| <= bound (ONEHOT: value < bound). `proven`: it follows from the op, or is infinite.

    `floor` is a calibrated lower bound of |value|, for the operands of roots, logarithms and divisions.
    """

    visibility: Visibility
    kind: Kind
    shape: tuple[int, ...]
    dtype: str
    bound: float
    frac: int
    ring: int
    proven: bool = False
    floor: float = 0.0

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        text = f"{self.visibility.name.lower()} {self.kind} {shape}"
        if self.visibility is Visibility.PUBLIC:
            return text
        limit = "" if self.bound == math.inf else f"|x|<={self.bound:g}{'' if self.proven else '*'} "
        return f"{text} {limit}2^{self.ring} f={self.frac}"


def type_of(node: fx.Node) -> Type:
    """The type that the typing pass gave to a node."""
    typed: Type = node.meta[META]
    return typed


def layer_of(node: fx.Node) -> str:
    """Module path of the layer a node belongs to, "" at the top."""
    return str(node.meta.get(LAYER, ""))


def kind_of(dtype: torch.dtype) -> Kind:
    """The kind of a secret tensor of a dtype."""
    if dtype == torch.bool:
        return Kind.BOOL
    return Kind.REAL if dtype.is_floating_point else Kind.INT


def dtype_name(dtype: torch.dtype) -> str:
    """ "float32" of torch.float32."""
    return str(dtype).removeprefix("torch.")


def dtype_named(name: str) -> torch.dtype:
    """The dtype of a name; ValueError if there is none."""
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"no dtype is called {name!r}")
    return found
