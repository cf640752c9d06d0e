"""What a run tells of itself as it goes, to whoever measures it. All of it is public: names, and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import fx

from hush.mpc.compiler.ops import op_name
from hush.mpc.compiler.types import layer_of

Place = fx.Node | str
"""A node of a program's graph, or the name of something that a run does beside it."""


class Probe(Protocol):
    """Somebody who is told. A run without one is not slowed down."""

    def enter(self, place: Place) -> None:
        """An op starts or goes on."""

    def exchange(self, nodes: Sequence[fx.Node], parts: Sequence[Any]) -> None:
        """A round follows: the ops under way, earliest first, and the part that each of them has in it."""


def named(place: Place) -> tuple[str, str]:
    """(op, layer) of a place: ("aten.gelu.default", "encoder.layer.0.intermediate")."""
    if isinstance(place, str):
        return place, ""
    return (op_name(place.target) if place.op == "call_function" else place.op), layer_of(place)
