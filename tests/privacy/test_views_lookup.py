"""Lookups by keys: a party's view of the step is the same for every place and table, whatever its own keys are.

Keys are pseudorandom, which nothing can enumerate. What can be: with *ideal* keys, uniform vectors u and v with
u + v = e, everything else about the step is exact. For some assignments of the watched party's two vectors, all else is
enumerated at ring width 2: all shares of several tables of two rows, and all draws. The distribution of its view must
be the same for each table, each place, and several values of the vectors that the party lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from hush.mpc.points import Points
from hush.mpc.ring import Ring
from hush.mpc.secret import Shared, stack
from hush.mpc.step import Step
from hush.protocols.replicated import dpf, lookup
from hush.protocols.replicated.party import Party
from tests.privacy.views import Arithmetic, Experiment, Leak, Program, Run, assert_private

RING = Ring(2)
SIZE = 1 << RING.bits
OWN = [((0, 0), (0, 0)), ((1, 2), (3, 1)), ((3, 3), (2, 0))]  # (u_i, v_{i+1})
HIDDEN = [(0, 0), (2, 3)]  # one side of the pair that the party has no key of
TABLES = [(0, 0), (1, 0), (0, 3), (2, 1)]
PARTIES = pytest.mark.parametrize("party", range(3))
Vector = tuple[int, int]


@pytest.fixture(autouse=True)
def ideal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is its expansion."""
    monkeypatch.setattr(dpf, "expand", lambda keys, classes, side: keys)


def _dealt(party: int, place: int, own: tuple[Vector, Vector], hidden: Vector) -> list[tuple[Vector, Vector]]:
    """(u_c, v_c) for each component c, as seen from a party: it holds u of its own pair and v of the next one."""
    unit = (int(place == 0), int(place == 1))

    def rest(known: Vector) -> Vector:
        return (unit[0] - known[0]) % SIZE, (unit[1] - known[1]) % SIZE

    mine, following = (own[0], rest(own[0])), (rest(own[1]), own[1])
    seen = (mine, following, (hidden, rest(hidden)))
    return [seen[(c - party) % 3] for c in range(3)]


def _points(pairs: list[tuple[Vector, Vector]], index: int) -> Points:
    return Points((torch.tensor([pairs[index][0]]), torch.tensor([pairs[(index + 1) % 3][1]])), 2)


def _secret(pairs: list[tuple[Vector, Vector]]) -> Program:
    def program(party: Party, first: Shared, second: Shared) -> Step[Shared]:
        rows = yield from lookup.secret_table(party, _points(pairs, party.index), stack([first, second]))
        return rows[0]

    return program


def _public(pairs: list[tuple[Vector, Vector]], table: Vector) -> Program:
    def program(party: Party, like: Shared) -> Step[Shared]:
        rows = RING.reduce(torch.tensor(table)).reshape(2, 1).expand(2, like.numel)
        return (yield from lookup.public_table(party, _points(pairs, party.index), rows, 0, RING))[0]

    return program


def _gives(element: Callable[[Run], int]) -> Callable[[Run], None]:
    def check(run: Run) -> None:
        assert bool((run.elements() == element(run)).all())

    return check


def _row(place: int) -> Callable[[Run], int]:
    return lambda run: run.secrets[place]


# ---------------------------------------------------------------------- a secret table
def _experiment(party: int, place: int, own: Any, hidden: Vector, **broken: Any) -> Experiment:
    program = _secret(_dealt(party, place, own, hidden))
    check = (lambda run: None) if broken else _gives(_row(place))
    return Experiment(program, (Arithmetic(RING), Arithmetic(RING)), check, party, **broken)


@PARTIES
@pytest.mark.parametrize("own", OWN)
def test_a_party_sees_the_same_for_every_place_and_table(own: Any, party: int) -> None:
    first = _experiment(party, 0, own, HIDDEN[0]).distribution(TABLES[0])[party]
    for place, hidden in product(range(2), HIDDEN):
        experiment = _experiment(party, place, own, hidden)
        assert torch.equal(experiment.distribution(TABLES[0])[party], first)
        assert_private(experiment, TABLES)


@PARTIES
def test_without_its_mask_the_sum_shows(party: int) -> None:
    """The draw that the receiver lacks is left out: the method shows the leak."""
    unmasked = {((party + 1) % 3, 0): None}
    with pytest.raises(Leak):
        assert_private(_experiment(party, 1, OWN[1], HIDDEN[1], forced=unmasked), TABLES)


# ---------------------------------------------------------------------- a public table
def _with_public(party: int, place: int, own: Any, hidden: Vector, table: Vector, **broken: Any) -> Tensor:
    program = _public(_dealt(party, place, own, hidden), table)
    check = (lambda run: None) if broken else _gives(lambda run: table[place])
    return Experiment(program, (Arithmetic(RING),), check, party, **broken).distribution((0,))[party]


@PARTIES
@pytest.mark.parametrize("own", OWN)
def test_so_it_does_where_the_table_is_public(own: Any, party: int) -> None:
    """The table is given: views of one table are the same for both places."""
    for table in TABLES:
        first = _with_public(party, 0, own, HIDDEN[0], table)
        for place, hidden in product(range(2), HIDDEN):
            assert torch.equal(_with_public(party, place, own, hidden, table), first)


@pytest.mark.parametrize("party", [0, 2])
def test_without_its_mask_a_summand_shows(party: int) -> None:
    """Party 0 lacks the key of parties 1 and 2, party 2 that of 0 and 1; party 1 is sent nothing."""
    unmasked = {((party + 1) % 3, 0): None}
    found = [_with_public(party, p, OWN[1], HIDDEN[0], TABLES[3], forced=unmasked) for p in range(2)]
    assert not torch.equal(*found)


# ---------------------------------------------------------------------- who gets which key
def test_only_the_two_sides_of_one_pair_make_a_unit_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    """No party can put a unit vector together of what it holds, and two of different pairs make none."""
    monkeypatch.undo()
    places, classes = torch.tensor([3, 0, 8]), 9
    held = lookup.deal(places, classes)
    unit = torch.nn.functional.one_hot(places, classes)
    zeros = [dpf.expand(keys[0], classes, 0) for keys in held]
    ones = [dpf.expand(keys[1], classes, 1) for keys in held]
    for i, j in product(range(3), repeat=2):
        whole = (zeros[i] + ones[j] == unit).all(-1)
        assert bool(whole.all()) if i == (j + 1) % 3 else not bool(whole.any())
    keys = torch.stack([key for pair in held for key in pair])
    assert len({bytes(key.numpy()) for key in keys.flatten(0, 1)}) == 18
    assert not bool((keys[:, :, :16] == keys.flip(0)[:, :, :16]).all(-1).any()), "seeds are drawn for each key"
