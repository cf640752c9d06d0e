"""Every elementwise approximation holds its declared error through shares, and costs what the model predicts."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from support.trio import Trio
from torch import Tensor

from hush.mpc.cost import total
from hush.mpc.functions import coefficients, exp, relu, trig
from hush.mpc.functions.declare import Elementwise, declared
from hush.mpc.functions.sets import SETS, default, puma
from hush.mpc.protocol import Protocol
from hush.mpc.ring import RING64
from hush.mpc.secret import Shared
from hush.mpc.step import Step
from hush.protocols.fixed import Fixed
from hush.protocols.plain import Plain
from hush.protocols.replicated.cost import ReplicatedCost, meta

POINTS = 1_000_000
CASES = {
    f"{of.name}-{name}": function
    for of in SETS.values()
    for name, function in of.functions().items()
    if of is default or getattr(default, name) is not function
}
BOUND = 64.0


@pytest.fixture(scope="module")
def trio() -> Trio:
    return Trio(seed=1)


def apply(trio: Trio, function: Elementwise, x: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """(the encoded inputs, the results) through three parties."""
    secret = trio.share(x)
    return trio.reveal(secret), trio.reveal(trio.run(lambda p, a: function(p, a, bound=bound), secret))


def alone(p: Plain | Fixed, function: Elementwise, x: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """The same in one process."""
    secret = p.enter(x)
    step: Step[Shared] = function(p, secret, bound=bound)
    with pytest.raises(StopIteration) as stop:
        next(step)
    return p.value_of(secret), p.value_of(stop.value.value)


def error(function: Elementwise, x: Tensor, y: Tensor) -> float:
    """Largest error, as the function declares it."""
    promise = declared(function)
    wanted = promise.reference(x)
    size = wanted.abs().clamp(min=1.0) if promise.relative else torch.ones_like(wanted)
    return float(((y - wanted).abs() / size).max())


def largest(function: Elementwise) -> float:
    return max(abs(edge) for edge in declared(function).domain)


def spent(function: Elementwise, bound: float = BOUND, numel: int = 3072) -> tuple[int, int]:
    """(predicted payload bytes of all parties, rounds) for so many elements."""
    cost = total(function(ReplicatedCost(RING64, 18), meta((numel,), 18, RING64), bound=bound))
    return sum(cost.bytes_sent) - 16 * sum(cost.messages), cost.rounds


@pytest.mark.parametrize("case", CASES)
def test_error_on_the_whole_domain_through_shares(case: str, trio: Trio) -> None:
    function = CASES[case]
    low, high = declared(function).domain
    x, y = apply(trio, function, torch.linspace(low, high, POINTS, dtype=torch.float64), largest(function))
    assert error(function, x, y) <= declared(function).error


@pytest.mark.parametrize("case", CASES)
def test_predicted_cost_is_measured_cost(case: str, trio: Trio) -> None:
    secret = trio.share(torch.linspace(-8.0, 8.0, 100).reshape(4, 25))

    def program(p: Protocol, a: Shared) -> Step[Shared]:
        return CASES[case](p, a, bound=8.0)

    result = trio.run(program, secret)
    assert result[0].shape == (4, 25)
    assert (result[0].frac, result[0].ring) == (trio.frac, RING64)
    assert trio.cost == total(trio.predict(program, secret))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("protocol", [Plain, Fixed])
def test_error_alone_and_no_range_left(case: str, protocol: type[Plain] | type[Fixed]) -> None:
    function, p = CASES[case], protocol()
    low, high = declared(function).domain
    x, y = alone(p, function, torch.linspace(low, high, 20_001, dtype=torch.float64), largest(function))
    assert error(function, x, y) <= declared(function).error
    if isinstance(p, Fixed):
        assert p.violations == []


@pytest.mark.parametrize("bound", [2.0, 3.0, 10.0, 1000.0, 2.0**20])
@pytest.mark.parametrize("name", ["gelu", "silu", "softplus", "sigmoid", "tanh", "erf", "hardswish"])
def test_any_bound(name: str, bound: float, trio: Trio) -> None:
    function = getattr(default, name)
    x, y = apply(trio, function, torch.linspace(-bound, bound, 4001, dtype=torch.float64), bound)
    assert error(function, x, y) <= declared(function).error


@pytest.mark.parametrize("name", ["gelu", "silu", "exp_nonpositive"])
def test_default_is_four_times_as_accurate_as_puma_at_no_more_bytes(name: str) -> None:
    ours, published = getattr(default, name), getattr(puma, name)
    x = torch.linspace(-32.0, 0.0 if name == "exp_nonpositive" else 32.0, 200_001, dtype=torch.float64)
    errors = [error(f, *alone(Fixed(), f, x, 32.0)) for f in (ours, published)]
    assert 4 * errors[0] <= errors[1]
    for bound in (8.0, 16.0, BOUND, 1024.0):
        assert spent(ours, bound)[0] <= spent(published, bound)[0]


@pytest.mark.parametrize(
    ("name", "bits", "rounds"),
    [
        ("gelu", 950, 11),
        ("gelu_tanh", 950, 11),
        ("silu", 950, 11),
        ("sigmoid", 1478, 12),
        ("erf", 1478, 12),
        ("exp_nonpositive", 902, 9),
        ("exp", 2806, 18),
    ],
)
def test_bits_and_rounds_that_the_docstrings_state(name: str, bits: int, rounds: int) -> None:
    numel = 3 * 64 * 64
    payload, depth = spent(getattr(default, name), numel=numel)
    assert (8 * payload / numel, depth) == (bits, rounds)


@pytest.mark.parametrize("frac", [14, 16, 20])
@pytest.mark.parametrize(
    "name", ["gelu", "silu", "sigmoid", "tanh", "exp_nonpositive", "exp", "sin", "cos", "hardswish"]
)
def test_other_scales(name: str, frac: int) -> None:
    function, p = getattr(default, name), Fixed(frac=frac)
    low, high = -10.0, 0.4 if name == "exp_nonpositive" else 10.0
    x, y = alone(p, function, torch.linspace(low, high, 10_001, dtype=torch.float64), 10.0)
    assert error(function, x, y) <= declared(function).error + 2.0 ** (3 - frac)
    assert p.violations == []


def test_published_errors_are_those_measured_elsewhere() -> None:
    for name, worst in (("gelu", 0.0199), ("silu", 0.072), ("exp_nonpositive", 8.6e-3)):
        x = torch.linspace(-20.0, 0.0 if name == "exp_nonpositive" else 20.0, 400_001, dtype=torch.float64)
        assert error(getattr(puma, name), *alone(Plain(), getattr(puma, name), x, 20.0)) == pytest.approx(
            worst, rel=0.01
        )


@pytest.mark.parametrize("function", [exp.exp_nonpositive, exp.exp_puma, exp.exp])
def test_exp_is_exactly_zero_far_below(function: Elementwise, trio: Trio) -> None:
    x = -torch.logspace(math.log10(14.1), math.log10(2.0**26), 20_000, dtype=torch.float64)
    assert not apply(trio, function, x, 2.0**26)[1].any()


def test_exp_saturates_above(trio: Trio) -> None:
    y = apply(trio, exp.exp, torch.tensor([12.1, 50.0, 1e6, 2.0**26]), 2.0**26)[1]
    assert y.tolist() == pytest.approx([math.exp(12.0)] * 4, abs=2.0**-18)


def test_softmax_room_above_zero(trio: Trio) -> None:
    x, y = apply(trio, exp.exp_nonpositive, torch.linspace(0.0, 0.5, 50_000, dtype=torch.float64), BOUND)
    assert (y - torch.exp(x)).abs().max() <= declared(exp.exp_nonpositive).error


def test_saturation_is_exact(trio: Trio) -> None:
    x = torch.tensor([-(2.0**25), -100.0, 100.0, 2.0**25])
    for name, wanted in (
        ("sigmoid", [0.0, 0.0, 1.0, 1.0]),
        ("tanh", [-1.0, -1.0, 1.0, 1.0]),
        ("erf", [-1.0, -1.0, 1.0, 1.0]),
    ):
        assert apply(trio, getattr(default, name), x / 2, 2.0**24)[1].tolist() == wanted
    for name in ("gelu", "gelu_tanh", "silu", "softplus"):
        assert apply(trio, getattr(default, name), x / 2, 2.0**24)[1].tolist() == [0.0, 0.0, 50.0, 2.0**24]


def test_sine_of_large_arguments(trio: Trio) -> None:
    x, y = apply(trio, default.sin, torch.linspace(-(2.0**25), 2.0**25, 99_991, dtype=torch.float64), 2.0**25)
    assert (y - torch.sin(x)).abs().max() <= declared(default.sin).error


@pytest.mark.parametrize(("slope", "alpha"), [(0.2, 1.0), (-0.5, 1.7)])
def test_parameters(slope: float, alpha: float, trio: Trio) -> None:
    x = torch.linspace(-9.0, 9.0, 10_001, dtype=torch.float64)
    cases = [
        (lambda p, a: relu.leaky_relu(p, a, bound=9.0, slope=slope), torch.nn.functional.leaky_relu, (slope,), 1e-5),
        (lambda p, a: relu.elu(p, a, bound=9.0, alpha=alpha), torch.nn.functional.elu, (alpha,), alpha * 3e-4),
        (lambda p, a: relu.hardtanh(p, a, bound=9.0, low=-alpha, high=3.0), torch.clamp, (-alpha, 3.0), 1e-5),
    ]
    for program, reference, parameters, allowed in cases:
        secret = trio.share(x)
        y = trio.reveal(trio.run(program, secret))
        assert (y - reference(trio.reveal(secret), *parameters)).abs().max() <= allowed


def test_maximum_and_minimum(trio: Trio) -> None:
    g = torch.Generator().manual_seed(3)
    a, b = (torch.randn(1000, generator=g) for _ in range(2))
    a[:100] = b[:100]
    x, y = trio.share(a), trio.share(b)
    wanted = trio.reveal(x), trio.reveal(y)
    top = trio.run(lambda p, u, v: relu.maximum(p, u, v, bound=8.0), x, y)
    bottom = trio.run(lambda p, u, v: relu.minimum(p, u, v, bound=8.0), x, y)
    assert torch.equal(trio.reveal(top), torch.maximum(*wanted))
    assert torch.equal(trio.reveal(bottom), torch.minimum(*wanted))


def test_a_function_without_a_promise_is_refused() -> None:
    with pytest.raises(TypeError, match="declares no domain"):
        declared(relu.maximum)


def fits() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "fit_polynomials.py"
    spec = importlib.util.spec_from_file_location("fit_polynomials", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_script_made_the_coefficients() -> None:
    fit = fits()
    for name, (target, degree, factor, cut, odd) in fit.SYMMETRIC.items():
        again = fit.symmetric(target, degree, factor, cut, odd=odd)
        assert coefficients.ODD[name] == pytest.approx(again, rel=1e-6)
        assert (coefficients.FACTOR[name], coefficients.CUT[name]) == (factor, cut)
    for name, (target, lead, cut, start) in fit.OCTIC.items():
        again = (lead, *fit.fit_octic(target, lead, cut, start))
        assert coefficients.OCTIC[name] == pytest.approx(again, rel=1e-3)
        assert coefficients.CUT[name] == cut
    assert list(exp._ROOT) == pytest.approx(list(fit.fit_root(-14.0, 0.5)), rel=1e-3)
    assert (2 * exp._FINE_LEAD, *exp._FINE_QUARTIC) == pytest.approx(_flat(fit.quartic(-14.0, 12.0, 6, 1.0)), rel=1e-6)
    assert list(trig._SINE) == pytest.approx(list(fit.sine()), rel=1e-6)


def _flat(fitted: tuple[int, tuple[float, ...]]) -> tuple[float, ...]:
    return (fitted[0], *fitted[1])
