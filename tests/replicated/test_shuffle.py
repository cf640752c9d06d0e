"""Shuffling: rows stay whole, every order is as likely, and no party learns which it was or what is in the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import permutations, product
from math import factorial
from typing import Any

import pytest
import torch
from torch import Tensor

from hush.mpc.errors import ShapeError
from hush.mpc.prg import Stream
from hush.mpc.ring import RING32, RING64, Ring, backends
from hush.mpc.secret import Shared
from hush.mpc.session import simulate
from hush.mpc.step import Step, together
from hush.protocols.replicated import costs_bits, shuffle
from hush.protocols.replicated.party import Party
from tests.support.trio import Trio

ROWS = 2
ORDERS = [torch.tensor([0, 1]), torch.tensor([1, 0])]


@pytest.mark.parametrize("ring", [Ring(8), RING32, RING64], ids=lambda ring: f"k{ring.bits}")
@pytest.mark.parametrize("shape", [(1,), (100,), (65, 3), (9, 0, 2), (0, 4), (40, 5, 7)])
def test_rows_stay_whole_and_none_is_lost(ring: Ring, shape: tuple[int, ...]) -> None:
    trio, x = Trio(ring, 5), torch.arange(torch.Size(shape).numel()).reshape(shape) % 251
    secret = trio.share_elements(x, frac=5, ring=ring)
    mixed = trio.run(lambda p, a: p.shuffle(a), secret)
    assert trio.traffic == trio.predict(lambda p, a: p.shuffle(a), secret)
    got = trio.elements(mixed).long()
    assert (mixed[0].frac, got.shape) == (5, x.shape)
    assert sorted(got.tolist()) == sorted(x.tolist())


def test_expanded_rows_can_be_shuffled() -> None:
    trio = Trio(frac=0)
    secret = [s.expand(4, 3) for s in trio.share_elements(torch.tensor([[5], [6], [7], [8]]))]
    got = trio.elements(trio.run(lambda p, a: p.shuffle(a), secret))
    assert sorted(got.tolist()) == [[v] * 3 for v in (5, 6, 7, 8)]


def test_a_number_has_no_rows() -> None:
    trio = Trio()
    with pytest.raises(ShapeError, match="dimension 0"):
        trio.run(lambda p, a: p.shuffle(a), trio.share(1.0))


def test_every_order_is_as_likely() -> None:
    """1,500 shuffles of four rows: chi-square over the 24 orders below its 1 - 10^-6 quantile (23 degrees)."""
    trio, runs = Trio(RING32, 0, seed=11), 50
    secret = [trio.share_elements(torch.arange(4)) for _ in range(30)]

    def program(p: Any, *many: Shared) -> Step[Any]:
        return together(*(p.shuffle(x) for x in many))

    seen: Counter[tuple[int, ...]] = Counter()
    for _ in range(runs):
        for mixed in trio.run(program, *secret):
            seen[tuple(trio.elements(mixed).tolist())] += 1
    due = 30 * runs / factorial(4)
    assert set(seen) == set(permutations(range(4)))
    assert sum((count - due) ** 2 / due for count in seen.values()) < 71


def test_drawn_orders_break_ties_by_index() -> None:
    class Constant(Stream):
        def elements(self, shape: tuple[int, ...], ring: Ring) -> Tensor:
            return torch.zeros(shape, dtype=ring.dtype)

    assert shuffle.draw_order(Constant(bytes(32)), 5).tolist() == [0, 1, 2, 3, 4]


# ---------------------------------------------------------------------- a permutation that is itself secret
@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
@pytest.mark.parametrize("rows", [0, 1, 7, 70])
def test_permute_puts_each_row_in_its_place(rows: int, shape: tuple[int, ...]) -> None:
    trio, generator = Trio(RING32, 4), torch.Generator().manual_seed(rows)
    x = torch.randint(-9999, 9999, (rows, *shape), generator=generator)
    places = torch.randperm(rows, generator=generator)
    want = torch.empty_like(x)
    want[places] = x
    secret, spots = trio.share_elements(x, frac=4), trio.share_elements(places)
    got = trio.run(lambda p, a, b: shuffle.permute(p.party, a, b), secret, spots)
    assert torch.equal(trio.elements(got).long(), want)
    assert trio.traffic == costs_bits.permute(x.numel(), rows, RING32)


def test_permute_wants_one_place_a_row() -> None:
    trio = Trio()
    x = trio.share_elements(torch.zeros(4, 2))
    for places in (trio.share_elements(torch.zeros(3)), trio.share_elements(torch.zeros(4), ring=RING32)):
        with pytest.raises(ShapeError, match="one place a row"):
            trio.run(lambda p, a, b: shuffle.permute(p.party, a, b), x, places)


# ---------------------------------------------------------------------- views
class Key:
    """What two parties draw alike: one order of two rows, and digits of the state number."""

    def __init__(self, order: Tensor, digits: Iterator[Tensor], states: int) -> None:
        self.order, self.digits, self.states = order, digits, states
        self.masks: list[Tensor] = []

    def holder(self) -> Holder:
        return Holder(self)


class Holder:
    """One party's end of a key."""

    def __init__(self, key: Key) -> None:
        self.key, self.drawn = key, 0

    def elements(self, shape: tuple[int, ...], ring: Ring) -> Tensor:
        if ring == RING64:
            assert shape == (ROWS,)
            return torch.argsort(self.key.order)
        assert shape == (ROWS * self.key.states,)
        self.drawn += 1
        if self.drawn > len(self.key.masks):
            self.key.masks.append(torch.cat([next(self.key.digits) for _ in range(ROWS)]))
        return ring.reduce(self.key.masks[self.drawn - 1])

    def planes(self, planes: int, words: int) -> Tensor:
        raise AssertionError("a shuffle draws no planes")


def digits_of(states: Tensor, bits: int) -> Iterator[Tensor]:
    """The digits of each state number, low first."""
    for position in range(64 // bits):
        yield (states >> position * bits) & ((1 << bits) - 1)


def listen(step: Step[Any], heard: list[Tensor]) -> Step[Any]:
    answer: Any = None
    while True:
        try:
            answer = yield step.send(answer)
        except StopIteration as stop:
            return stop.value
        heard += [*answer.from_next, *answer.from_prev]


def components(secret: Tensor, ring: Ring, digits: Iterator[Tensor], states: int, known_to: int | None) -> list[Tensor]:
    """Three components [ROWS, states]: all enumerated, or those of one party given and the third completing them."""
    lead = 0 if known_to is None else known_to
    given = torch.tensor([[1, 3], [2, 1]])
    found: dict[int, Tensor] = {}
    for c in range(2):
        rows = [next(digits) if known_to is None else given[c, row].expand(states) for row in range(ROWS)]
        found[(lead + c) % 3] = ring.reduce(torch.stack(rows))
    own = list(found.values())
    found[(lead + 2) % 3] = ring.reduce(secret[:, None] - own[0] - own[1])
    return [found[i] for i in range(3)]


def views(secret: list[int], ring: Ring, known_to: int | None = None) -> list[list[Tensor]]:
    """[party][composed order]: every view that occurs, sorted, as often as it occurs.

    A view is own components, own masks, own orders and the messages. All masks and orders are enumerated; components as
    `components` says.
    """
    k, value, kernels = ring.bits, torch.tensor(secret), backends.get()
    states = torch.arange(1 << (4 if known_to is not None else 6) * ROWS * k)
    seen: list[list[list[Tensor]]] = [[[], []] for _ in range(3)]
    for orders in product(range(2), repeat=3):
        digits, turned = digits_of(states, k), sum(orders) % 2
        parts = components(value, ring, digits, len(states), known_to)
        keys = [Key(ORDERS[o], digits, len(states)) for o in orders]
        heard: list[list[Tensor]] = [[], [], []]
        steps = []
        for i in range(3):
            party = Party(i, keys[i].holder(), keys[i - 1].holder(), kernels)
            steps.append(listen(shuffle.shuffle(party, Shared((parts[i], parts[(i + 1) % 3]), 0, ring)), heard[i]))
        results, _ = simulate(steps)
        total = ring.reduce(results[0].parts[0] + results[1].parts[0] + results[2].parts[0])
        assert torch.equal(total.long(), value[ORDERS[turned]][:, None].expand_as(total))
        for i in range(3):
            own = [parts[i], parts[(i + 1) % 3], *keys[i].masks, *keys[i - 1].masks]
            own += [kernels.from_planes(m, ROWS * len(states), ring) for m in heard[i]]
            assert len(own) * ROWS * k + 2 < 63
            code = torch.full((len(states),), 2 * orders[i] + orders[i - 1])
            for column in own:
                for row in column.long().reshape(ROWS, -1):
                    code = (code << k) | row
            seen[i][turned].append(code)
    return [[torch.cat(codes).sort().values for codes in of_party] for of_party in seen]


def test_views_in_all_states() -> None:
    """Two rows of one bit: all 2^12 states and 8 orders of all 4 secrets. The order is uniform given any view."""
    first = views([0, 0], Ring(1))
    for unturned, turned in first:
        assert torch.equal(unturned, turned)
    for secret in ([0, 1], [1, 0], [1, 1]):
        for mine, other in zip(first, views(secret, Ring(1)), strict=True):
            assert torch.equal(mine[0], other[0])
            assert torch.equal(mine[1], other[1])


@pytest.mark.parametrize("party", range(3))
def test_views_of_wider_rows(party: int) -> None:
    """Two rows of two bits: all 2^16 masks and 8 orders, for given components of the party; the third differs."""
    first = views([0, 1], Ring(2), party)[party]
    assert torch.equal(first[0], first[1])
    for secret in ([1, 0], [3, 3]):
        other = views(secret, Ring(2), party)[party]
        assert torch.equal(first[0], other[0])
        assert torch.equal(first[1], other[1])
