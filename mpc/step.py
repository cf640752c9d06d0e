"""Protocol steps as generators, so that independent operations share their rounds.

An interactive operation is a generator (`Step[T]`): it yields one `Exchange` a round and is sent what arrived.
`together` runs several steps in lockstep and merges their rounds: k independent multiplications take the rounds
of one. A driver (`hush.mpc.session`) carries the exchanges out.

Law: in one operation every party yields the same number of exchanges, empty ones included. Otherwise merged rounds
of two parties would not be the same rounds.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar, overload

import torch
from torch import Tensor

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


class Exchange(Protocol):
    """What a step yields: something whose independent instances merge into one, and whose answer splits again."""

    @classmethod
    def merge(cls, parts: Sequence[Any]) -> Self: ...

    @classmethod
    def split(cls, parts: Sequence[Any], answer: Any) -> list[Any]: ...


Step = Generator[Any, Any, T]


@dataclass(frozen=True, slots=True)
class Spec:
    """Shape and dtype of a tensor to be received. Public: a size never depends on a secret."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes on the wire."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Received:
    """Tensors that arrived in a round, from the next party (i+1) and the previous one (i-1)."""

    from_next: tuple[Tensor, ...] = ()
    from_prev: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Round:
    """One party's round: tensors to send to, and specs of tensors awaited from, each neighbour."""

    to_next: tuple[Tensor, ...] = ()
    to_prev: tuple[Tensor, ...] = ()
    from_next: tuple[Spec, ...] = ()
    from_prev: tuple[Spec, ...] = ()

    @classmethod
    def merge(cls, parts: Sequence[Round]) -> Round:
        """One round that carries the messages of all, in order."""
        return cls(
            tuple(t for p in parts for t in p.to_next),
            tuple(t for p in parts for t in p.to_prev),
            tuple(s for p in parts for s in p.from_next),
            tuple(s for p in parts for s in p.from_prev),
        )

    @classmethod
    def split(cls, parts: Sequence[Round], answer: Received) -> list[Received]:
        """The answer to a merged round, cut back into the answers of its parts."""
        answers, n, p = [], 0, 0
        for part in parts:
            n_end, p_end = n + len(part.from_next), p + len(part.from_prev)
            answers.append(Received(answer.from_next[n:n_end], answer.from_prev[p:p_end]))
            n, p = n_end, p_end
        return answers


def done(value: T) -> Step[T]:
    """A step that needs no exchange."""
    return value
    yield  # makes this function a generator


@overload
def together(a: Step[A], b: Step[B], /) -> Step[tuple[A, B]]: ...
@overload
def together(a: Step[A], b: Step[B], c: Step[C], /) -> Step[tuple[A, B, C]]: ...
@overload
def together(*steps: Step[T]) -> Step[tuple[T, ...]]: ...
def together(*steps: Step[Any]) -> Step[tuple[Any, ...]]:
    """Run independent steps side by side: round n of the result carries round n of each of them.

    Local work and draws of randomness run in argument order, the same at every party.
    """
    results: list[Any] = [None] * len(steps)
    waiting: dict[int, Any] = {}

    def advance(index: int, answer: Any) -> None:
        try:
            waiting[index] = steps[index].send(answer)
        except StopIteration as stop:
            waiting.pop(index, None)
            results[index] = stop.value

    for index in range(len(steps)):
        advance(index, None)
    while waiting:
        order = sorted(waiting)
        parts = [waiting[i] for i in order]
        kind = type(parts[0])
        answer = yield kind.merge(parts)
        for index, own in zip(order, kind.split(parts, answer), strict=True):
            advance(index, own)
    return tuple(results)
