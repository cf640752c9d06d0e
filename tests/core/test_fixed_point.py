"""Encoding saturates and never wraps; decoding is its inverse within half a unit."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hush.mpc.fixed_point import decode, encode, limit
from hush.mpc.ring import RING32, RING64, Ring

RINGS = [(RING64, 18), (RING64, 12), (RING64, 0), (RING64, 36), (RING32, 12), (RING32, 0), (RING32, 24), (Ring(4), 1)]


@pytest.mark.parametrize(("ring", "frac"), RINGS)
def test_values_beyond_the_range_saturate(ring: Ring, frac: int) -> None:
    top = limit(ring, frac)
    wild = torch.tensor([math.inf, -math.inf, 1e300, -1e300, top * 1.5, -top * 1.5, torch.finfo(torch.float32).min])
    wild = torch.cat([wild.double(), torch.tensor([top * 4, -top * 4])])
    assert decode(encode(wild, ring, frac), ring, frac).tolist() == [math.copysign(top, v) for v in wild.tolist()]


@pytest.mark.parametrize(("ring", "frac"), RINGS)
def test_nan_becomes_zero(ring: Ring, frac: int) -> None:
    assert decode(encode(torch.tensor([math.nan, 0.0]), ring, frac), ring, frac).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("ring", "frac"), RINGS)
@given(share=st.floats(-1, 1))
def test_encoding_rounds_to_the_nearest_unit(ring: Ring, frac: int, share: float) -> None:
    value = share * limit(ring, frac)
    back = float(decode(encode(value, ring, frac), ring, frac))
    assert abs(back - value) <= max(2.0**-frac / 2, abs(value) * 2.0**-52)


@pytest.mark.parametrize(("ring", "frac"), [(RING64, 18), (RING32, 12), (RING64, 12)])
def test_the_limit_times_a_value_below_one_still_truncates(ring: Ring, frac: int) -> None:
    """|limit| * (1 - one unit) at scale 2f stays below 2^(k-2), the most that a truncation takes."""
    assert limit(ring, frac) * 2**frac * (2**frac - 1) < 2 ** (ring.bits - 2)


@pytest.mark.parametrize(("ring", "frac"), [(RING64, 36), (RING32, 24), (RING64, 40)])
def test_a_bias_at_the_scale_of_a_product_keeps_its_value(ring: Ring, frac: int) -> None:
    assert limit(ring, frac) * 2**frac < 2 ** (ring.bits - 2)
    assert float(decode(encode(-1.5, ring, frac), ring, frac)) == -1.5


def test_integers_keep_their_value_in_int64_and_bool() -> None:
    assert encode(torch.tensor([5, -7]), RING64, 0).tolist() == [5, -7]
    assert encode(torch.tensor([True, False]), RING32, 12).tolist() == [4096, 0]
    assert encode(torch.tensor([1.0]), RING32, 12).dtype == torch.int32


@given(st.integers(1, 64), st.data())
def test_signed_and_reduce_are_inverse(bits: int, data: st.DataObject) -> None:
    ring = Ring(bits)
    value = data.draw(st.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1))
    assert int(ring.signed(ring.reduce(torch.tensor(value)))) == value


@given(st.integers(2, 64), st.data())
def test_shift_right_is_logical(bits: int, data: st.DataObject) -> None:
    ring = Ring(bits)
    value, count = data.draw(st.integers(0, (1 << bits) - 1)), data.draw(st.integers(0, bits))
    signed = value - (1 << 64) if value >= 1 << 63 else value
    moved = ring.shift_right(ring.reduce(torch.tensor(signed)), count)
    assert int(moved) & ((1 << bits) - 1) == value >> count


@pytest.mark.parametrize("bits", [0, 65, -1])
def test_a_ring_has_1_to_64_bits(bits: int) -> None:
    with pytest.raises(ValueError, match=r"1\.\.64"):
        Ring(bits)


def test_a_python_float_is_not_encoded_by_way_of_float32() -> None:
    assert int(encode(1 / 3, RING64, 30)) == round(2**30 / 3)
    assert torch.equal(encode(1 / 3, RING64, 30), encode(torch.tensor(1 / 3, dtype=torch.float64), RING64, 30))
