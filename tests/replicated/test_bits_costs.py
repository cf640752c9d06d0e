"""Traffic of boolean steps: what the formulas foresee is what is sent, and it is as little as the design asks for."""

from __future__ import annotations

from math import ceil, log2
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hush.mpc.cost import Traffic
from hush.mpc.ring import RING32, RING64, Ring
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.step import Step, together
from hush.protocols.replicated import adder, costs_bits
from hush.protocols.replicated.protocol import Replicated
from tests.support.trio import Program, Trio

RINGS = st.sampled_from([Ring(4), Ring(8), RING32, RING64])
SHAPES = st.sampled_from(
    [(), (0,), (1,), (63,), (64,), (65,), (3, 0, 2), (5, 7, 11), (6143,), (6144,), (10, 700), (9999,)]
)
BIG = 64 * 3 * 4096  # no padding: a whole number of words in each of the three slices


def assert_foreseen(trio: Trio, program: Program, *args: Any) -> None:
    """Predicted = measured, round by round and party by party."""
    trio.run(program, *args)
    assert trio.predict(program, *args) == trio.traffic


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, ring=RINGS, data=st.data())
def test_traffic_is_foreseen(shape: tuple[int, ...], ring: Ring, data: st.DataObject) -> None:
    k, trio = ring.bits, Trio(ring, 0)
    bound = float(data.draw(st.sampled_from([0, 1, 3, (1 << k - 2) - 1])))
    drop = data.draw(st.integers(0, 1))
    count = data.draw(st.integers(1, k))
    out = data.draw(RINGS)
    x = trio.share_elements(torch.zeros(shape, dtype=torch.int64), ring=ring)
    bit = trio.share_bits(torch.zeros(1, *shape, dtype=torch.int64))
    many = trio.share_bits(torch.zeros(count, *shape, dtype=torch.int64))
    assert_foreseen(trio, lambda p, x: p.negative(x, bound=bound, drop=drop), x)
    assert_foreseen(trio, lambda p, x: p.is_zero(x, bound=bound), x)
    assert_foreseen(trio, lambda p, x: p.to_bits(x, planes=count), x)
    assert_foreseen(trio, lambda p, a: p.from_bits(a, ring=out), many)
    assert_foreseen(trio, lambda p, a, b: p.both(a, b), many, bit)
    assert_foreseen(trio, lambda p, a, b: p.xor(p.invert(a), b), many, bit)
    assert_foreseen(trio, lambda p, b, x: p.select(b, x), bit, x)


def test_independent_steps_share_their_rounds() -> None:
    """Two comparisons of different depth side by side take the rounds of the deeper one."""
    trio = Trio()
    x, y = trio.share(torch.zeros(70)), trio.share(torch.zeros(9000))

    def program(p: Replicated, x: Shared, y: Shared) -> Step[tuple[SharedBits, SharedBits]]:
        return together(p.negative(x, bound=3.0), p.is_zero(y, bound=2.0**40))

    assert_foreseen(trio, program, x, y)
    assert len(trio.traffic) == len(trio.predict(lambda p, y: p.is_zero(y, bound=2.0**40), y))


# ---------------------------------------------------------------------- the figures that the docstrings give
def bits_and_rounds(rounds: list[Traffic], numel: int) -> tuple[float, int]:
    """Bits an element of all three parties, and rounds."""
    return sum(sum(map(sum, t.sent)) for t in rounds) * 8 / numel, len(rounds)


def published(b: int) -> tuple[int, int]:
    """PROTOCOLS.md 2: a sign on b bits, single bits all the way."""
    return b + 2 * (b - 1) + 3 * (2 * (b - 2) - ceil(log2(b - 1))), ceil(log2(b - 1)) + 2


@pytest.mark.parametrize(("b", "bits", "rounds"), [(16, 69, 5), (20, 94, 5), (24, 116, 5), (32, 159, 6), (64, 335, 7)])
def test_a_sign_costs_less_than_with_single_bits(b: int, bits: int, rounds: int) -> None:
    ring, bound = RING64, float((1 << b - 1) - 1) if b < 60 else 2.0**63
    found = bits_and_rounds(costs_bits.below(BIG, ring, 0, bound, 0), BIG)
    assert found == (bits, rounds)
    assert (published(20), published(64)) == ((151, 7), (544, 8))
    assert found[0] < published(b)[0]
    assert found[1] < published(b)[1]


def test_the_chosen_cut_is_the_cheapest() -> None:
    """By the docstring's formula, over all numbers of digits; at this size hardly more than bytes count."""
    for b in range(6, 65):
        prices = []
        for n in range(ceil((b - 1) / 6), (b - 1) // 2 + 1):
            digits = [(b - 1 + i) // n for i in range(n)]
            ands = 2 * (n - 1) - ceil(log2(n))
            prices.append(1 + sum(2**c - 1 for c in digits) + 2 * (2 * n - 1) + 3 * ands)
        cut = adder.layout(b - 1, 1 << 24)
        assert min(prices) <= cut.dealt + 2 * cut.rows + 3 * sum(adder.tree_levels(cut.count)) <= min(prices) + 2


def test_single_bits_would_cost_what_is_published() -> None:
    """The formula's own check: with one digit a bit, what this code would send is the published figure."""
    for b in range(4, 64):
        m, top = b - 1, 1
        ands = sum(adder.tree_levels(m))
        assert m + top + 2 * m + 3 * ands == published(b)[0]  # a digit of one bit passes linearly: no exchange for it
        assert 2 + len(adder.tree_levels(m)) == published(b)[1]


@pytest.mark.parametrize(("b", "rounds"), [(15, 5), (20, 6), (64, 7)])
def test_equality_costs(b: int, rounds: int) -> None:
    found = bits_and_rounds(costs_bits.is_zero(BIG, RING64, 0, float((1 << b) - 1) if b < 60 else 2.0**63), BIG)
    assert found == (4 * b - 3, rounds)


@pytest.mark.parametrize("ring", [RING32, RING64])
def test_conversion_costs(ring: Ring) -> None:
    k = ring.bits
    assert bits_and_rounds(costs_bits.from_bits(BIG, 1, ring), BIG) == (3 * k, 2)
    assert bits_and_rounds(costs_bits.select(BIG, ring), BIG) == (4 * k, 2)
    assert bits_and_rounds(costs_bits.both(BIG, 1), BIG) == (3, 1)
    assert bits_and_rounds(costs_bits.shuffle(BIG, ring), BIG) == (4 * k, 3)
    bits, rounds = bits_and_rounds(costs_bits.to_bits(BIG, k), BIG)
    assert bits <= {32: 342, 64: 713}[k]
    assert rounds <= {32: 7, 64: 8}[k]


def test_one_code_serves_several_thresholds_and_one_exchange_several_terms() -> None:
    alone, _ = bits_and_rounds(costs_bits.below(BIG, RING64, 0, 2.0**14, 0), BIG)
    both, rounds = bits_and_rounds(costs_bits.below(BIG, RING64, 0, 2.0**14, 0, 2), BIG)
    cut = adder.layout(15, BIG, sums=2)
    assert both == cut.dealt + 2 * (2 * cut.rows + 3 * sum(adder.tree_levels(cut.count)))
    assert both < 1.6 * alone
    assert rounds == 2 + len(adder.tree_levels(cut.count))
    assert [bits_and_rounds(costs_bits.select(BIG, RING32, m), BIG)[0] for m in (1, 2, 3)] == [128, 192, 256]


def test_large_tensors_burden_the_parties_alike() -> None:
    for rounds in (costs_bits.below(BIG, RING64, 0, 2.0**19, 0), costs_bits.select(BIG, RING64)):
        sent = [sum(sum(t.sent[i]) for t in rounds) for i in range(3)]
        assert max(sent) == min(sent)


def test_small_tensors_save_rounds() -> None:
    """A short query's comparison takes wider digits: fewer rounds for bytes that do not matter."""
    small = costs_bits.below(500, RING64, 0, 2.0**19, 0)
    large = costs_bits.below(BIG, RING64, 0, 2.0**19, 0)
    assert len(small) < len(large)
