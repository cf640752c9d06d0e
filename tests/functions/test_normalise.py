"""Functions of one secret scale: each within its declared error, through shares, at a million points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.trio import Trio
from torch import Tensor

from hush.mpc.cost import total
from hush.mpc.functions.chebyshev import interpolate, value
from hush.mpc.functions.declare import declared
from hush.mpc.functions.division import divide
from hush.mpc.functions.log import log, log2, power
from hush.mpc.functions.normalise import leading_one, normalise, plane_range
from hush.mpc.functions.reciprocal import reciprocal
from hush.mpc.functions.rsqrt import PUMA, rsqrt, scaled_rsqrt
from hush.mpc.functions.sqrt import sqrt
from hush.mpc.ring import RING32
from hush.protocols.fixed import Fixed

POINTS = 10**6
CHUNK = 1 << 18  # points a run: bounds the test's memory


def spread_points(low: float, high: float, count: int, frac: int = 18) -> Tensor:
    """Encodable reals, evenly many in each octave of [low, high], both ends included."""
    generator = torch.Generator().manual_seed(5)
    exponent = torch.rand(count, generator=generator, dtype=torch.float64)
    x = torch.tensor(low, dtype=torch.float64) * (high / low) ** exponent
    x[0], x[1] = low, high
    return (x * 2.0**frac).round().clamp(min=1.0) * 2.0**-frac


def through_shares(program: Callable[..., Any], x: Tensor, *, frac: int = 18) -> Tensor:
    """The program's values on shares of x, chunk by chunk."""
    trio = Trio(seed=3)
    return torch.cat([trio.reveal(trio.run(program, trio.share(c, frac=frac))) for c in x.split(CHUNK)])


@pytest.mark.parametrize("function", [reciprocal, rsqrt, log, log2, sqrt], ids=lambda f: f.__name__)
def test_declared_error_holds_at_a_million_points(function: Callable[..., Any]) -> None:
    promise = declared(function)
    low, high = promise.domain
    x = spread_points(max(low, 2.0**-18), high, POINTS)
    x[2] = max(low, 0.0) if low == 0.0 else x[2]
    y = through_shares(lambda p, a: function(p, a, bound=high, floor=max(low, 2.0**-18)), x)
    expected = promise.reference(x)
    allowed = promise.error * (expected.abs().clamp(min=1.0) if promise.relative else 1.0)
    assert ((y - expected).abs() <= allowed).all()


def test_a_signed_reciprocal_costs_no_round_more() -> None:
    x = spread_points(2.0**-6, 2.0**10, 100_000)
    x[::2] *= -1
    y = through_shares(lambda p, a: reciprocal(p, a, bound=2.0**10, floor=2.0**-6, signed=True), x)
    assert ((y - 1 / x).abs() <= 4.5e-6 * (1 / x).abs().clamp(min=1.0)).all()
    trio = Trio()
    rounds = [
        total(
            trio.predict(lambda p, a, s=s: reciprocal(p, a, bound=2.0**10, floor=2.0**-6, signed=s), trio.share(x))
        ).rounds
        for s in (False, True)
    ]
    assert rounds[1] <= rounds[0] + 1  # one more plane may take the adder one level more


@pytest.mark.parametrize("bound", [2.0**-3, 1.0, 3.7, 2.0**10])
def test_reciprocal_with_domains_below_and_above_one(bound: float) -> None:
    x = spread_points(bound / 512, bound, 20_000, frac=24)
    y = through_shares(lambda p, a: reciprocal(p, a, bound=bound, floor=bound / 512, frac=20), x, frac=24)
    assert ((y - 1 / x).abs() <= 2.0**-20 + 2.0**-22 / x).all()


def test_results_below_the_floor() -> None:
    x = torch.tensor([0.0, 2.0**-18, 0.2, 0.5, 1.0], dtype=torch.float64)
    domain = {"bound": 4.0, "floor": 0.5}
    inverse = through_shares(lambda p, a: reciprocal(p, a, **domain), x)
    root = through_shares(lambda p, a: rsqrt(p, a, **domain), x)
    logarithm = through_shares(lambda p, a: log(p, a, **domain), x)
    assert inverse[:3].tolist() == [0.0, 0.0, 0.0]
    assert root[:3].abs().max() <= 2.0**-18
    assert (logarithm[:3] - torch.tensor(0.5, dtype=torch.float64).log()).abs().max() <= 2 * 2.0**-18
    assert (inverse[3:] - torch.tensor([2.0, 1.0])).abs().max() < 1e-5


def test_sqrt_of_zero_is_zero() -> None:
    y = through_shares(lambda p, a: sqrt(p, a, bound=100.0), torch.zeros(64, dtype=torch.float64))
    assert y.abs().max() <= 2.0**-18


@pytest.mark.parametrize("frac", [18, 36])
def test_scaled_rsqrt_keeps_relative_precision_at_every_magnitude(frac: int) -> None:
    bound = 2.0**14
    x = spread_points(2.0 ** -(frac - 4), bound, 50_000, frac=frac)
    y = through_shares(lambda p, a: scaled_rsqrt(p, a, bound=bound, floor=2.0 ** -(frac - 4), factor=5.0), x, frac=frac)
    assert (y * x.sqrt() / 5.0 - 1).abs().max() < 2.0**-20


@pytest.mark.parametrize(
    ("exponent", "error"),
    [(0.5, 1e-6), (-0.5, 1e-6), (1.5, 1e-6), (2.0, 1e-6), (-1.0, 2e-6), (1 / 3, 1e-6), (3.0, 1e-6), (-2.0, 3e-5)],
)
def test_power(exponent: float, error: float) -> None:
    x = spread_points(0.25, 8.0, 20_000)
    y = through_shares(lambda p, a: power(p, a, exponent, bound=8.0, floor=0.25), x)
    expected = x**exponent
    assert ((y - expected).abs() <= 2.0**-17 + error * expected).all()


def test_power_refuses_steep_exponents() -> None:
    p = Fixed()
    with pytest.raises(ValueError, match="beyond 4"):
        list(power(p, p.constant(torch.ones(1)), 7.0, bound=2.0, floor=0.5))


def test_divide() -> None:
    y = spread_points(0.05, 300.0, 50_000)
    x = (y * torch.linspace(-12, 12, len(y), dtype=torch.float64) * 2.0**18).round() * 2.0**-18
    trio = Trio(seed=1)
    run = trio.run(
        lambda p, a, b: divide(p, a, b, bound=300.0, floor=0.05, quotient=12.5), trio.share(x), trio.share(y)
    )
    assert (trio.reveal(run) - x / y).abs().max() < 1e-5


def test_puma_is_as_accurate_as_published_and_no_more() -> None:
    x = spread_points(0.25, 1000.0, 50_000, frac=24)
    settings = {"bound": 1000.0, "floor": 0.25, "frac": 24, "approx": "puma"}
    inverse = through_shares(lambda p, a: reciprocal(p, a, **settings), x, frac=24) * x
    root = through_shares(lambda p, a: rsqrt(p, a, **settings), x, frac=24) * x.sqrt()
    # a unit of 2^-24 is up to 6e-5 of 1/1000
    assert 5e-5 < (inverse - 1)[x < 8].abs().max() < 5.6e-5
    assert 8e-5 < (root - 1)[x < 8].abs().max() < 8.4e-5
    assert len(PUMA) == 5


@pytest.mark.parametrize(
    "program",
    [
        lambda p, a: reciprocal(p, a, bound=64.0, floor=0.1, signed=True),
        lambda p, a: rsqrt(p, a, bound=64.0, floor=0.1, frac=24),
        lambda p, a: sqrt(p, a, bound=64.0),
        lambda p, a: log(p, a, bound=64.0, floor=0.1),
        lambda p, a: power(p, a, 1.5, bound=64.0, floor=0.1),
        lambda p, a: divide(p, a, a, bound=64.0, floor=0.1, quotient=2.0),
    ],
    ids=["reciprocal", "rsqrt", "sqrt", "log", "power", "divide"],
)
@pytest.mark.parametrize("shape", [(1,), (65,), (3, 1, 5)])
def test_predicted_traffic_is_the_measured_one(program: Callable[..., Any], shape: tuple[int, ...]) -> None:
    trio = Trio()
    x = trio.share(torch.full(shape, 1.5))
    trio.run(program, x)
    measured = trio.traffic
    assert trio.predict(program, x) == measured
    trio.run(program, trio.share(torch.full(shape, 40.0)))
    assert trio.traffic == measured


def test_nothing_leaves_its_range_over_the_domain() -> None:
    p = Fixed(strict=True)
    x = p.enter(spread_points(2.0**-10, 2.0**11, 4096))
    for step in (
        reciprocal(p, x, bound=2.0**11, floor=2.0**-10),
        rsqrt(p, x, bound=2.0**11, floor=2.0**-10),
        sqrt(p, x, bound=2.0**11),
        log(p, x, bound=2.0**11, floor=2.0**-10),
        power(p, x, 0.75, bound=2.0**11, floor=2.0**-10),
    ):
        assert list(step) == []


@pytest.mark.parametrize("planes", [1, 2, 3, 5, 8])
def test_leading_one_of_every_bit_string(planes: int) -> None:
    numbers = torch.arange(1 << planes)
    bits = torch.stack([numbers >> j & 1 for j in range(planes)])
    trio = Trio()
    found = trio.reveal_bits(trio.run(leading_one, trio.share_bits(bits)))
    value_of_leading = (found << torch.arange(planes)[:, None]).sum(0)
    expected = [1 << (n.bit_length() - 1) if n else 0 for n in numbers.tolist()]
    assert value_of_leading.tolist() == expected


@pytest.mark.parametrize("signed", [False, True])
def test_mantissa_and_exponent_make_up_the_number(signed: bool) -> None:
    units = torch.arange(2, 1 << 10)
    x = torch.cat([units, -units] if signed else [units]).double() * 2.0**-4
    p = Fixed()
    step = normalise(p, p.enter(x, frac=4), bound=63.9375, floor=0.125, signed=signed)
    with pytest.raises(StopIteration) as stop:
        next(step)
    parts = stop.value.value
    mantissa = p.value_of(parts.signed_mantissa)
    exponent = p.value_of(parts.table(p, [1 << e for e in range(parts.depth + 1)]))
    assert torch.equal(mantissa * 2.0**parts.top / exponent, x)
    assert mantissa.abs().min() >= 0.5
    assert mantissa.abs().max() <= 1.0


@pytest.mark.parametrize(("bound", "floor"), [(1.0, 0.0), (1.0, 2.0), (float("inf"), 1.0), (1.0, -1.0)])
def test_domains_that_are_none(bound: float, floor: float) -> None:
    with pytest.raises(ValueError, match="0 < floor <= bound"):
        plane_range(18, bound, floor)


def test_narrow_rings_are_refused() -> None:
    p = Fixed()
    with pytest.raises(ValueError, match="widen"):
        list(normalise(p, p.enter(torch.ones(1), frac=8, ring=RING32), bound=2.0, floor=0.5))


def test_a_bound_too_wide_for_the_ring() -> None:
    with pytest.raises(ValueError, match="62 is the most"):
        plane_range(36, 2.0**27, 1.0)


def test_coefficients_are_exact_decimals_of_the_function() -> None:
    """A quadratic comes back to the last bit: the arithmetic is decimal, and no machine's libm has a say."""
    assert interpolate(lambda t: 3 * t * t - 2 * t + 1, 2) == (1.0, -2.0, 3.0)
    cubic = interpolate(lambda t: t**3, 7)
    assert abs(value(cubic, 0.3) - 0.027) < 1e-15
