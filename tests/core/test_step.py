"""`together` merges the rounds of independent steps and gives each its own answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hush.mpc.cost import Traffic
from hush.mpc.session import simulate
from hush.mpc.step import Received, Round, Spec, Step, done, together


@dataclass(frozen=True)
class Letter:
    """An exchange that shows what was merged with what: one (name, round) per step."""

    names: tuple[tuple[str, int], ...]

    @classmethod
    def merge(cls, parts: Sequence[Letter]) -> Letter:
        return cls(tuple(n for p in parts for n in p.names))

    @classmethod
    def split(cls, parts: Sequence[Letter], answer: list[str]) -> list[list[str]]:
        rest = list(answer)
        return [[rest.pop(0) for _ in p.names] for p in parts]


def _writer(name: str, rounds: int, heard: list[str] | None = None) -> Step[str]:
    """Writes one letter a round and checks that the answer is to its own."""
    for number in range(rounds):
        answer = yield Letter(((name, number),))
        assert answer == [f"re {name}{number}"]
        if heard is not None:
            heard.append(f"{name}{number}")
    return name.upper()


def _post(step: Step[Any]) -> tuple[Any, list[tuple[tuple[str, int], ...]]]:
    """Carry letters: the step's result and what each round carried."""
    sent: list[tuple[tuple[str, int], ...]] = []
    answer: Any = None
    while True:
        try:
            letter = step.send(answer)
        except StopIteration as stop:
            return stop.value, sent
        sent.append(letter.names)
        answer = [f"re {name}{number}" for name, number in letter.names]


def test_equal_lengths_share_every_round() -> None:
    result, sent = _post(together(_writer("a", 2), _writer("b", 2)))
    assert result == ("A", "B")
    assert sent == [(("a", 0), ("b", 0)), (("a", 1), ("b", 1))]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=6))
def test_uneven_lengths_take_the_rounds_of_the_longest(lengths: list[int]) -> None:
    names = "abcdef"
    result, sent = _post(together(*(_writer(names[i], n) for i, n in enumerate(lengths))))
    assert result == tuple(names[i].upper() for i in range(len(lengths)))
    assert sent == [
        tuple((names[i], number) for i, n in enumerate(lengths) if n > number)
        for number in range(max(lengths, default=0))
    ]


def test_nesting_merges_as_one_level_would() -> None:
    nested = together(_writer("a", 1), together(_writer("b", 2), together(_writer("c", 3), _writer("d", 1))))
    result, sent = _post(nested)
    assert result == ("A", ("B", ("C", "D")))
    assert sent == [(("a", 0), ("b", 0), ("c", 0), ("d", 0)), (("b", 1), ("c", 1)), (("c", 2),)]


def test_local_work_runs_in_argument_order() -> None:
    heard: list[str] = []
    _post(together(_writer("a", 2, heard), _writer("b", 1, heard), _writer("c", 2, heard)))
    assert heard == ["a0", "b0", "c0", "a1", "c1"]


def test_sequences_inside_together_keep_their_order() -> None:
    def chain() -> Step[str]:
        first = yield from _writer("a", 1)
        second = yield from _writer("b", 1)
        return first + second

    result, sent = _post(together(chain(), _writer("c", 2)))
    assert result == ("AB", "C")
    assert sent == [(("a", 0), ("c", 0)), (("b", 0), ("c", 1))]


def test_steps_without_rounds_end_at_once() -> None:
    assert _post(done(5)) == (5, [])
    assert _post(together(done(1), done(2))) == ((1, 2), [])
    assert _post(together()) == ((), [])


def test_an_error_inside_a_step_reaches_the_driver() -> None:
    def failing() -> Step[None]:
        yield Letter((("x", 0),))
        raise RuntimeError("here")

    with pytest.raises(RuntimeError, match="here"):
        _post(together(_writer("a", 3), failing()))


def test_merged_rounds_of_tensors_split_back_to_their_senders() -> None:
    """Three parties pass tensors of several shapes round; every step receives its own neighbours' and no other's."""

    def passing(party: int, tag: int, shape: tuple[int, ...], rounds: int) -> Step[list[int]]:
        seen = []
        for number in range(rounds):
            value = torch.full(shape, 1000 * tag + 10 * number + party)
            got: Received = yield Round(
                (value,), (value, value + 500), (Spec(shape, torch.int64),) * 2, (Spec(shape, torch.int64),)
            )
            seen += [int(t.reshape(-1)[0]) for t in (*got.from_next, *got.from_prev)]
        return seen

    def program(party: int) -> Step[tuple[Any, ...]]:
        inner = together(passing(party, 1, (2, 3), 1), passing(party, 2, (1,), 3))
        return together(passing(party, 0, (4,), 2), inner)

    results, traffic = simulate([program(i) for i in range(3)])
    for party, (flat, (short, long)) in enumerate(results):
        after, before = (party + 1) % 3, (party - 1) % 3

        def due(tag: int, rounds: int, after: int = after, before: int = before) -> list[int]:
            return [1000 * tag + 10 * n + who for n in range(rounds) for who in (after, after + 500, before)]

        assert (flat, short, long) == (due(0, 2), due(1, 1), due(2, 3))
    to_next = [8 * (4 + 6 + 1), 8 * (4 + 1), 8]
    assert traffic == [Traffic(((n, 2 * n),) * 3) for n in to_next]


def test_parties_that_disagree_on_the_number_of_rounds_are_noticed() -> None:
    def rounds(count: int) -> Step[None]:
        for _ in range(count):
            yield Round()

    with pytest.raises(AssertionError, match="number of rounds"):
        simulate([rounds(1), rounds(2), rounds(1)])


def test_parties_that_disagree_on_a_size_are_noticed() -> None:
    def party(index: int) -> Step[None]:
        sent = torch.zeros(2 if index else 3, dtype=torch.int64)
        yield Round(to_next=(sent,), from_prev=(Spec((2,), torch.int64),))

    with pytest.raises(AssertionError, match="awaited"):
        simulate([party(i) for i in range(3)])
