"""Views of boolean protocols, comparisons and conversions, enumerated at ring width 4 (others where said).

They leak nothing: every party's view has one distribution for all secrets.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from hush.mpc.ring import Ring
from hush.mpc.secret import Shared, SharedBits, join_planes
from hush.mpc.step import Step
from hush.protocols.replicated import adder, boolean, compare, convert, exact
from hush.protocols.replicated.digits import Layout
from hush.protocols.replicated.party import Party
from tests.privacy.views import Arithmetic, Bits, Experiment, Program, Run, assert_fresh, assert_private

RING2, RING4 = Ring(2), Ring(4)
ALL = [(s,) for s in range(16)]
ROLES = pytest.mark.parametrize("roles", range(3), indirect=True, ids="rotation{}".format)
PARTIES = pytest.mark.parametrize("party", range(3))


def _signed(element: int, bits: int = 4) -> int:
    half = 1 << (bits - 1)
    return (element + half) % (1 << bits) - half


def _computes_bits(fn: Callable[..., int]) -> Callable[[Run], None]:
    def check(run: Run) -> None:
        assert bool((run.bits() == fn(*run.secrets)).all())

    return check


def _computes(fn: Callable[..., int], bits: int) -> Callable[[Run], None]:
    def check(run: Run) -> None:
        assert bool((run.elements() == fn(*run.secrets) % (1 << bits)).all())

    return check


# ---------------------------------------------------------------------- AND
def test_and_hides_both_planes() -> None:
    """All 2^14 states of the AND of two-bit strings (8 bits of components, 6 of draws) for all 16 pairs."""
    experiment = Experiment(boolean.both, (Bits(2), Bits(2)), _computes_bits(lambda a, b: a & b))
    assert_private(experiment, [(a, b) for a in range(4) for b in range(4)])
    assert_fresh(experiment, (3, 1))


def test_and_with_a_single_plane_hides_it() -> None:
    experiment = Experiment(boolean.both, (Bits(1), Bits(3)), _computes_bits(lambda a, b: b if a else 0))
    assert_private(experiment, [(a, b) for a in range(2) for b in range(8)])


# ---------------------------------------------------------------------- comparisons
def _negative(bound: float, drop: int = 0) -> Program:
    def program(party: Party, x: Shared) -> Step[SharedBits]:
        return compare.negative(party, x, bound=bound, drop=drop)

    return program


def _sign_by_digits(bits: int, count: int) -> Program:
    """The sign of a whole ring element by a given cut into digits: dealing and answers, then the carry tree."""
    cut = Layout(bits - 1, count)

    def program(party: Party, x: Shared) -> Step[SharedBits]:
        sums, rows = yield from adder.dealt_sum(party, x, cut, 0)
        carry = yield from adder.carry_out(party, rows, sums, cut)
        return SharedBits(boolean.xor_parts(sums, carry), x.shape)

    return program


@ROLES
@pytest.mark.parametrize(("bound", "width"), [(1.0, 2), (3.0, 3)])
def test_negative_hides_the_value_in_all_states(bound: float, width: int, roles: int) -> None:
    """All states of all values within the bound, under each rotation of the roles."""
    assert compare.sign_width(RING4, 0, bound, 0) == width
    experiment = Experiment(_negative(bound), (Arithmetic(RING4),), _computes_bits(lambda x: int(_signed(x) < 0)))
    assert_private(experiment, [s for s in ALL if abs(_signed(*s)) <= bound])


def test_negative_on_the_whole_ring_hides_the_value() -> None:
    """All states of all 16 values."""
    experiment = Experiment(_negative(8.0), (Arithmetic(RING4),), _computes_bits(lambda x: int(_signed(x) < 0)))
    assert_private(experiment, ALL)


@PARTIES
@pytest.mark.parametrize(("bits", "count", "stride"), [(5, 2, 1), (6, 2, 9), (7, 3, 31)])
def test_carry_tree_hides_the_value(bits: int, count: int, stride: int, party: int) -> None:
    """Rings of 5 to 7 bits in two or three digits: every `stride`-th value, 2^3 assignments of what the party knows,
    all else enumerated."""
    ring, some = Ring(bits), range(0, 1 << bits, stride)
    experiment = Experiment(
        _sign_by_digits(bits, count),
        (Arithmetic(ring),),
        _computes_bits(lambda x: int(_signed(x, bits) < 0)),
        party,
        3,
    )
    assert_private(experiment, [(s,) for s in some])


@pytest.mark.parametrize("drop", [1, 2])
def test_coarse_negative_hides_the_value(drop: int) -> None:
    """With dropped bits: all states of all values that fit; only 0 <= x < 2^drop may come out negative."""
    bound = {1: 5.0, 2: 3.0}[drop]

    def check(run: Run) -> None:
        x, found = _signed(run.secrets[0]), run.bits()
        if not 0 <= x < 1 << drop:
            assert bool((found == int(x < 0)).all())

    experiment = Experiment(_negative(bound, drop), (Arithmetic(RING4),), check)
    assert_private(experiment, [s for s in ALL if abs(_signed(*s)) <= bound])


@ROLES
def test_is_zero_hides_the_value_in_all_states(roles: int) -> None:
    """|x| <= 3, hence 3 bits: all 2^17 states of all values within the bound."""

    def program(party: Party, x: Shared) -> Step[SharedBits]:
        return compare.is_zero(party, x, bound=3.0)

    experiment = Experiment(program, (Arithmetic(RING4),), _computes_bits(lambda x: int(x == 0)))
    assert_private(experiment, [s for s in ALL if abs(_signed(*s)) <= 3])
    assert_fresh(experiment, (0,))


# ---------------------------------------------------------------------- conversions
@PARTIES
@pytest.mark.parametrize("planes", [1, 2, 3, 4])
def test_to_bits_hides_the_value(planes: int, party: int) -> None:
    """All 16 values, 2^3 assignments of what the party knows, all else enumerated."""

    def program(who: Party, x: Shared) -> Step[SharedBits]:
        return convert.to_bits(who, x, planes=planes)

    check = _computes_bits(lambda x: x % (1 << planes))
    assert_private(Experiment(program, (Arithmetic(RING4),), check, party, 3), ALL)


@ROLES
def test_from_bits_hides_the_bit_in_all_states(roles: int) -> None:
    """One bit into Z_2^4: all 2^18 states."""

    def program(party: Party, a: SharedBits) -> Step[Shared]:
        return convert.from_bits(party, a, RING4)

    experiment = Experiment(program, (Bits(1),), _computes(lambda a: a, 4))
    assert_private(experiment, [(0,), (1,)])
    assert_fresh(experiment, (1,))


def test_from_bits_of_two_planes_uses_separate_masks() -> None:
    """Two bits into Z_2^2: all states of all four values."""

    def program(party: Party, a: SharedBits) -> Step[Shared]:
        return convert.from_bits(party, a, RING2)

    def check(run: Run) -> None:
        both = run.elements().reshape(2, run.numel)
        assert [int(row[0]) for row in both] == [run.secrets[0] & 1, run.secrets[0] >> 1]
        assert bool((both == both[:, :1]).all())

    assert_private(Experiment(program, (Bits(2),), check), [(a,) for a in range(4)])


@ROLES
def test_select_hides_bit_and_value_in_all_states(roles: int) -> None:
    """At width 2: all states of all 8 pairs."""
    experiment = Experiment(convert.select, (Bits(1), Arithmetic(RING2)), _computes(lambda b, x: b * x, 2))
    assert_private(experiment, [(b, x) for b in range(2) for x in range(4)])
    assert_fresh(experiment, (1, 2))


@PARTIES
def test_select_hides_bit_and_value(party: int) -> None:
    """At width 4: all 32 pairs, 2^4 assignments of what the party knows, all else enumerated."""
    inputs = (Bits(1), Arithmetic(RING4))
    experiment = Experiment(convert.select, inputs, _computes(lambda b, x: b * x, 4), party, 4)
    assert_private(experiment, [(b, x) for b in range(2) for x in range(16)])


@ROLES
def test_a_sum_of_selections_hides_bits_and_values_in_all_states(roles: int) -> None:
    """Two terms in Z_2: all states of all 16 inputs."""

    def program(party: Party, a: SharedBits, b: SharedBits, x: Shared, y: Shared) -> Step[Shared]:
        return convert.select_sum(party, [a, b], [x, y])

    inputs = (Bits(1), Bits(1), Arithmetic(Ring(1)), Arithmetic(Ring(1)))
    experiment = Experiment(program, inputs, _computes(lambda a, b, x, y: a * x + b * y, 1))
    assert_private(experiment, list(itertools.product(range(2), repeat=4)))


@PARTIES
def test_thresholds_of_one_code_hide_the_value(party: int) -> None:
    """At width 4: two thresholds, what the party knows assigned 2^5 times, all else enumerated."""

    def program(party: Party, x: Shared) -> Step[SharedBits]:
        low, high = yield from compare.below(party, x, (-1.0, 2.0), bound=4.0)
        return join_planes([low, high])

    def found(x: int) -> int:
        return (_signed(x) < -1) + 2 * (_signed(x) < 2)

    allowed = [(x,) for x in range(16) if -2 <= _signed(x) <= 3]
    assert_private(Experiment(program, (Arithmetic(RING4),), _computes_bits(found), party, 5), allowed)


# ---------------------------------------------------------------------- exact truncation
@PARTIES
@pytest.mark.parametrize(
    ("f", "values"), [(1, (-4, -1, 0, 3)), pytest.param(2, tuple(range(-4, 4)), marks=pytest.mark.long)]
)
def test_exact_truncation_hides_the_value(f: int, values: tuple[int, ...], party: int) -> None:
    """The fused truncation, a comparison on f bits, and the conversion of its result: these values, 2 assignments of
    what the party knows, all else enumerated. The result is the floor whatever the coins."""

    def program(who: Party, x: Shared) -> Step[Shared]:
        return exact.shared(who, x.with_frac(f), 0, RING4)

    experiment = Experiment(program, (Arithmetic(RING4),), _computes(lambda x: x >> f, 4), party, 1)
    assert_private(experiment, [(x,) for x in values])
