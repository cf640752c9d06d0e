"""Where each byte goes: a program's traffic by operator, and inside an operator by the protocol's primitive."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from torch import fx

from hush.mpc.compiler.execute import execute
from hush.mpc.compiler.predict import blank_inputs, blank_weights
from hush.mpc.compiler.probe import Place, named
from hush.mpc.compiler.program import Program
from hush.mpc.cost import PARTIES, Traffic
from hush.mpc.protocol import Protocol
from hush.mpc.step import Step


@dataclass(slots=True)
class Item:
    """Payload bytes of each party and exchanges of one primitive in all operators of one name.

    Frame headers are left out: a message may carry what several operators send. Exchanges of operators that run side by
    side are one round of the program, so their sum is more than its rounds.
    """

    op: str
    primitive: str
    bytes_sent: list[int] = field(default_factory=lambda: [0] * PARTIES)
    exchanges: int = 0


def itemise(program: Program, model: Protocol) -> list[Item]:
    """The items of an inference (of a program that generates: of its first turn, the choice of a token left out), most
    bytes first. Their bytes are those of `program.cost` without the headers."""
    book = _Book()
    first = program.firsts[0]
    metered = cast(Protocol, _Metered(model, book))
    inputs, weights = blank_inputs(first, model), blank_weights(first, model)
    for _ in cast(Iterator[Any], execute(first, metered, weights, inputs, probe=book)):
        pass
    return sorted(book.items.values(), key=lambda item: -sum(item.bytes_sent))


class _Book:
    """Adds up what the primitives of the operator under way send."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Item] = {}
        self._op = ""

    def enter(self, place: Place) -> None:
        """What follows belongs to this operator."""
        self._op, _ = named(place)

    def exchange(self, nodes: Sequence[fx.Node], parts: Sequence[Any]) -> None:
        """Each primitive's own rounds are counted where they are made."""

    def follow(self, primitive: str, step: Step[Any]) -> Step[Any]:
        """The step itself, written down."""
        answer: Any = None
        while True:
            try:
                traffic: Traffic = step.send(answer)
            except StopIteration as stop:
                return stop.value
            item = self.items.setdefault((self._op, primitive), Item(self._op, primitive))
            item.exchanges += 1
            for party, pair in enumerate(traffic.sent):
                item.bytes_sent[party] += sum(pair)
            answer = yield traffic


class _Metered:
    """A cost model whose interactive primitives are written down."""

    def __init__(self, model: Protocol, book: _Book) -> None:
        self._model, self._book = model, book

    def unchecked(self) -> _Metered:
        """A cost model checks nothing."""
        return self

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._model, name)
        return self._wrapped(name, found) if callable(found) else found

    def _wrapped(self, name: str, primitive: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            made = primitive(*args, **kwargs)
            return self._book.follow(name, made) if isinstance(made, Generator) else made

        return call


def by_operator(items: list[Item]) -> dict[str, list[Item]]:
    """The items of each operator, operators with the most bytes first."""
    grouped: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        grouped[item.op].append(item)
    return dict(sorted(grouped.items(), key=lambda pair: -sum(sum(i.bytes_sent) for i in pair[1])))
