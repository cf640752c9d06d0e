"""What an approximation promises: domain, error, behaviour outside, reference. A sweep test holds it to that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor

from hush.mpc import protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step

F = TypeVar("F", bound=Callable[..., Any])


class Elementwise(Protocol):
    """A function of one secret tensor, elementwise; `bound` is a public real with |x| <= bound."""

    def __call__(self, p: protocol.Protocol, x: Shared, *, bound: float) -> Step[Shared]: ...


@dataclass(frozen=True, slots=True)
class Declared:
    """The promise of one approximation at k=64, f=18.

    For every x in `domain`: |result - reference(x)| <= error, times max(1, |reference(x)|) if `relative`. The domain is
    where the promise is tested; `outside` says what happens beyond it.
    """

    name: str
    domain: tuple[float, float]
    error: float
    relative: bool
    outside: str
    reference: Callable[[Tensor], Tensor]
    paper: str


def declare(
    name: str,
    *,
    domain: tuple[float, float],
    error: float,
    outside: str,
    reference: Callable[[Tensor], Tensor],
    relative: bool = False,
    paper: str = "",
) -> Callable[[F], F]:
    """Attach a promise to a function; `declared(function)` reads it back."""
    promise = Declared(name, domain, error, relative, outside, reference, paper)

    def attach(function: F) -> F:
        function.__declared__ = promise  # type: ignore[attr-defined]
        return function

    return attach


def declared(function: Callable[..., Any]) -> Declared:
    """The promise attached to a function; TypeError if it made none."""
    promise = getattr(function, "__declared__", None)
    if not isinstance(promise, Declared):
        raise TypeError(f"{function!r} declares no domain and error")
    return promise
