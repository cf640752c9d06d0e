"""What a party deals by itself: enumerated at width 4, the others' views are the same whatever it dealt."""

from __future__ import annotations

import pytest
import torch

from hush.mpc.ring import Ring
from hush.mpc.secret import Shared
from hush.mpc.step import Step
from hush.protocols.replicated.contribute import contribute
from hush.protocols.replicated.linear import add
from hush.protocols.replicated.party import Party
from tests.privacy.views import Arithmetic, Experiment, Program

RING4 = Ring(4)
VALUES = range(-4, 5)  # what encodes at this width


def _dealt(dealer: int, value: int) -> Program:
    def program(party: Party, x: Shared) -> Step[Shared]:
        def make() -> torch.Tensor:
            assert party.index == dealer, "another party was asked for the value"
            return torch.full(x.shape, float(value), dtype=torch.float64)

        return add(x, (yield from contribute(party, make, tuple(x.shape), dealer, 0, RING4)))

    return program


def _experiment(dealer: int, value: int, forced: dict[tuple[int, int], int | None] | None = None) -> Experiment:
    def check(run: object) -> None:
        assert bool((run.elements() == (3 + value) % 16).all())  # type: ignore[attr-defined]

    return Experiment(_dealt(dealer, value), (Arithmetic(RING4),), check, forced=forced or {})


@pytest.mark.parametrize("dealer", range(3))
def test_the_others_see_the_same_whatever_was_dealt(dealer: int) -> None:
    first = _experiment(dealer, VALUES[0]).distribution((3,))
    for value in VALUES[1:]:
        for party, counts in _experiment(dealer, value).distribution((3,)).items():
            assert party == dealer or torch.equal(counts, first[party])


@pytest.mark.parametrize("dealer", range(3))
def test_without_its_mask_the_next_party_sees_it(dealer: int) -> None:
    """The draw of the dealer and the party before it is left out: then the method shows the leak."""
    unmasked: dict[tuple[int, int], int | None] = {((dealer - 1) % 3, 0): None}
    first, second = (_experiment(dealer, v, unmasked).distribution((3,)) for v in (0, 1))
    assert not torch.equal(first[(dealer + 1) % 3], second[(dealer + 1) % 3])
