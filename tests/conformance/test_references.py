"""The two one-process references: what `plain` leaves out, and what `fixed` notices."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hush.mpc import fixed_point
from hush.mpc.errors import RangeError
from hush.mpc.protocol import ConvShape
from hush.mpc.ring import RING32, RING64
from hush.mpc.secret import concat, stack
from hush.protocols.fixed import Fixed, Violation
from hush.protocols.plain import Plain
from hush.protocols.plain.single import SingleProcess
from tests.conformance.harness import last

BOTH = pytest.mark.parametrize("kind", [Plain, Fixed], ids=["plain", "fixed"])


def _third() -> torch.Tensor:
    return torch.tensor([1 / 3, -2 / 3], dtype=torch.float64)


# ---------------------------------------------------------------------- both
@BOTH
@given(frac=st.integers(10, 25), value=st.floats(-30, 30))
def test_with_frac_multiplies_by_a_power_of_two(kind: type[SingleProcess], frac: int, value: float) -> None:
    """The seam that functions use for free scaling means the same in floats and in the ring."""
    p = kind(RING64, 18)
    x = p.enter(value)
    assert float(p.value_of(x.with_frac(frac))) == float(p.value_of(x)) * 2.0 ** (18 - frac)


@BOTH
def test_handles_add_and_join_as_in_the_ring(kind: type[SingleProcess]) -> None:
    p = kind(RING64, 18)
    x = p.enter(torch.tensor([[0.5, 1.25], [-2.0, 4.0]]))
    assert p.value_of(x.sum(1)).tolist() == [1.75, 2.0]
    assert float(p.value_of(concat([x, x], 0).sum((0, 1)))) == 7.5
    assert p.value_of(stack([x, x])[1, :, 0]).tolist() == [0.5, -2.0]


@BOTH
def test_a_reference_refuses_what_the_parties_refuse(kind: type[SingleProcess]) -> None:
    p = kind(RING64, 18)
    x, other = p.enter(1.0), p.enter(1.0, ring=RING32)
    with pytest.raises(ValueError, match="rings"):
        p.add(x, other)
    with pytest.raises(ValueError, match="rings"):
        last(p.mul(x, other))
    with pytest.raises(ValueError, match="scales"):
        p.add(x, p.rescale(x, 20))
    with pytest.raises(ValueError, match="rescale"):
        last(p.truncate(x, 20))
    with pytest.raises(ValueError, match="truncate"):
        p.rescale(x, 3)


@BOTH
def test_shuffle_keeps_rows_whole_and_does_shuffle(kind: type[SingleProcess]) -> None:
    p = kind(RING64, 18)
    x = p.enter(torch.arange(200.0).reshape(100, 2))
    mixed = p.value_of(last(p.shuffle(x)))
    assert not torch.equal(mixed, p.value_of(x))
    assert mixed.sort(0).values.tolist() == p.value_of(x).tolist()
    assert torch.equal(mixed[:, 1], mixed[:, 0] + 1)


@BOTH
def test_results_go_by_the_ring_they_stand_for(kind: type[SingleProcess]) -> None:
    p = kind(RING64, 12)
    narrow = last(p.mul(p.enter(3.0), p.enter(2.0), ring=RING32))
    assert narrow.ring == RING32
    assert RING32 == narrow.ring  # noqa: SIM300
    assert narrow.ring != RING64
    assert float(p.value_of(narrow)) == 6.0


# ---------------------------------------------------------------------- plain
def test_plain_does_not_round() -> None:
    p, x = Plain(), _third()
    assert torch.equal(p.value_of(p.enter(x)), x)
    assert torch.equal(p.value_of(last(p.mul(p.enter(x), p.enter(x)))), x * x)
    assert torch.equal(p.value_of(last(p.mul_public(p.enter(x), 1 / 7))), x * (1 / 7))
    assert torch.equal(p.value_of(last(p.truncate(p.enter(x), 2))), x)


def test_plain_takes_the_floor_where_the_floor_is_asked_for() -> None:
    p = Plain()
    x = p.enter(torch.tensor([2.75, -2.75]))
    assert p.value_of(last(p.truncate(x, 0, exact=True))).tolist() == [2.0, -3.0]
    bits = p.bits_of(last(p.to_bits(x.with_frac(18), planes=20)))
    assert bits[18:].tolist() == [[0, 1], [1, 0]]  # the integer part of 2.75, and of -3 mod 4


def test_plain_saturates_public_values_and_nothing_else() -> None:
    p, top = Plain(), fixed_point.limit(RING64, 18)
    assert p.value_of(p.constant(torch.tensor([math.inf, -math.inf, math.nan]))).tolist() == [top, -top, 0.0]
    big = p.enter(top)
    assert float(p.value_of(last(p.mul(last(p.mul(big, big)), big)))) == top**3


def test_plain_has_no_ring_elements_to_shift() -> None:
    with pytest.raises(TypeError, match="truncate"):
        Plain().ring.shift_right(torch.ones(2), 1)


# ---------------------------------------------------------------------- fixed
def _one(p: Fixed) -> Violation:
    assert len(p.violations) == 1
    return p.violations[0]


def test_a_product_that_cannot_be_truncated_is_recorded() -> None:
    p = Fixed(RING64, 18)
    p.place = "layer 3"
    x = p.enter(2.0**13)
    last(p.mul(x, p.enter(2.0**13 - 1)))
    assert p.violations == []  # just below 2^26
    last(p.mul(x, x))
    found = _one(p)
    assert (found.primitive, found.magnitude, found.limit, found.place) == ("mul", 2.0**26, 2.0**26, "layer 3")
    assert "layer 3" in str(found)


@pytest.mark.parametrize("reals", [2.0**20, 2.0**25])
def test_a_product_that_wrapped_is_recorded_with_its_true_size(reals: float) -> None:
    """2^40 and 2^50: modulo the ring nothing would show."""
    p = Fixed(RING64, 18)
    x = p.enter(torch.full((3, 4), reals))
    last(p.matmul(x, p.enter(torch.full((4, 2), reals))))
    assert _one(p).primitive == "matmul"
    assert p.violations[0].magnitude == 4 * reals**2


def test_terms_that_cancel_are_no_violation() -> None:
    """The cheap bound says maybe; the sum itself is small."""
    p = Fixed(RING64, 18)
    x = p.enter(torch.tensor([[2.0**13, 2.0**13]]))
    y = p.enter(torch.tensor([[2.0**12 + 1], [-(2.0**12)]]))
    assert p.value_of(last(p.matmul(x, y))).tolist() == [[2.0**13]]
    geometry = ConvShape((1,), (0,), (1,))
    last(p.conv(x.reshape(1, 1, 2), y.reshape(1, 1, 2), geometry))
    last(p.combine([x, x], [4096.0, -4096.0], 1.0))
    assert p.violations == []
    last(p.combine([x, x], [4096.0, 4096.0], 1.0))
    assert _one(p).primitive == "combine"


def test_a_quotient_too_large_for_its_ring_is_recorded() -> None:
    p = Fixed(RING64, 18)
    x = p.enter(100.0)
    last(p.mul(x, x, ring=RING32))
    found = _one(p)
    assert (found.primitive, found.magnitude, found.limit) == ("mul", 1e4, 2.0**13)


def test_comparisons_beyond_their_bound_are_recorded() -> None:
    p = Fixed(RING64, 18)
    x = p.enter(torch.tensor([1.0, -4.0]))
    last(p.negative(x, bound=4.0))
    last(p.is_zero(x, bound=4.0))
    assert p.violations == []
    last(p.negative(x, bound=3.9))
    last(p.is_zero(x, bound=1.0))
    assert [v.primitive for v in p.violations] == ["negative", "is_zero"]
    assert [v.magnitude for v in p.violations] == [4.0, 4.0]


@pytest.mark.parametrize("value", [1e9, -math.inf, math.nan])
def test_public_values_that_saturate_are_recorded(value: float) -> None:
    p = Fixed(RING64, 18)
    p.constant(value)
    p.add_public(p.enter(0.0), value)
    assert [v.primitive for v in p.violations] == ["constant", "add_public"]


def test_strict_raises_at_the_first() -> None:
    p = Fixed(RING64, 18, strict=True)
    with pytest.raises(RangeError, match="widen"):
        p.enter(1e9)
    assert len(p.violations) == 1


def test_unchecked_computes_the_same_and_leaves_the_record_alone() -> None:
    p = Fixed(RING64, 18, strict=True)
    quiet = p.unchecked()
    x = quiet.enter(2.0**20)
    last(quiet.mul(x, x))
    assert p.violations == []
    assert quiet.enter(1.5).parts[0].tolist() == p.enter(1.5).parts[0].tolist()


def test_empty_tensors_violate_nothing() -> None:
    p = Fixed(RING64, 18, strict=True)
    x = p.enter(torch.empty(0, 3))
    assert last(p.matmul(x, p.enter(torch.ones(3, 2)))).shape == (0, 2)
    assert last(p.negative(x, bound=1.0)).shape == (0, 3)
