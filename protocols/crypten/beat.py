"""Steps of this protocol: CrypTen carries their messages itself, so what they yield is only where one begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hush.mpc.step import Step

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Beat:
    """An exchange that carries nothing. Whoever drives the steps sees by it where a layer begins."""

    @classmethod
    def merge(cls, parts: Sequence[Any]) -> Beat:
        """Beats that fall together. The steps' messages do not: each step's own calls follow one after the other."""
        return cls()

    @classmethod
    def split(cls, parts: Sequence[Any], answer: None) -> list[None]:
        """Nothing, for each."""
        return [None] * len(parts)


def talk(work: Callable[[], T]) -> Step[T]:
    """A step that does its work, messages included, when its turn comes."""
    yield Beat()
    return work()


def run(step: Step[T]) -> T:
    """Run a step to its end. Both parties must run the same one."""
    try:
        while True:
            step.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
