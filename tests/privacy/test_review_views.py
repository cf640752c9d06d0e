"""What a party learns together with the client: its view and the opened result, for all secrets of one ideal answer.

A party may collude with a client, who sees all components of a result. So the joint distribution of view and result
must be a function of the ideal answer (for truncation: of the exact product; its coins are independent of the factors).
`_opened` appends the opening, and everything is enumerated as in the tests beside this one. Then what those leave out:
values beyond the range of a truncation, consecutive operations that share their components, and operations that share
their rounds and streams.
"""

from __future__ import annotations

from itertools import product as product_of

import pytest
from torch import Tensor

from hush.mpc.ring import Ring
from hush.mpc.ring.widths import Widths
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.step import Step, together
from hush.protocols.replicated import boolean, compare, convert, fused, opening, products, truncate, zero
from hush.protocols.replicated.party import Party
from tests.privacy.views import Additive, Arithmetic, Experiment, Leak, Program, Run, assert_private

RING2, RING3, RING4 = Ring(2), Ring(3), Ring(4)
PARTIES = pytest.mark.parametrize("party", range(3))
ROLES = pytest.mark.parametrize("roles", range(3), indirect=True, ids="rotation{}".format)
ODD_AND_EVEN = (1, 2, 4, 6)  # products mod 8 and 16 with several factorisations


def _anything(run: Run) -> None:
    """No check of values: these tests are about views."""


def _opened(program: Program) -> Program:
    """The result goes to a client, who tells everybody."""

    def with_client(party: Party, *inputs: Shared) -> Step[Tensor]:
        result = yield from program(party, *inputs)
        return (yield from opening.open_all(party, result))

    return with_client


def _factors(product: int, bits: int) -> list[tuple[int, int]]:
    """All pairs of this product mod 2^bits."""
    size = 1 << bits
    return [(x, y) for x in range(size) for y in range(size) if x * y % size == product]


def _signed_factors(product: int, bits: int) -> list[tuple[int, int]]:
    """All pairs of this product mod 2^bits whose product is a valid input of a truncation."""
    size, half, room = 1 << bits, 1 << (bits - 1), 1 << (bits - 2)
    value = (product + half) % size - half
    return _factors(product, bits) if -room <= value < room else []


def _multiply(out: Ring, f: int) -> Program:
    def program(party: Party, x: Shared, y: Shared) -> Step[Shared]:
        return products.mul(party, x.with_frac(f), y, 0, out)

    return program


# ---------------------------------------------------------------------- a party and the client together
@PARTIES
@pytest.mark.parametrize(("bits", "f", "out"), [(3, 1, 2), (3, 1, 1), (4, 2, 2)])
@pytest.mark.parametrize("product", ODD_AND_EVEN)
def test_a_narrow_product_s_rounding_is_no_function_of_the_factors(
    product: int, bits: int, f: int, out: int, party: int
) -> None:
    """Every pair of factors of each product, 2^5 assignments of what the party knows."""
    ring = Ring(bits)
    experiment = Experiment(_opened(_multiply(Ring(out), f)), (Arithmetic(ring), Arithmetic(ring)), _anything, party, 5)
    assert_private(experiment, _factors(product, bits))


@PARTIES
@pytest.mark.parametrize("product", [0, 1, 7, 6])
def test_a_fused_product_s_rounding_is_no_function_of_the_factors(product: int, party: int) -> None:
    """Width 3 at f = 1, every third pair of factors of each valid product, 2^4 assignments of what the party knows."""
    experiment = Experiment(_opened(_multiply(RING3, 1)), (Arithmetic(RING3), Arithmetic(RING3)), _anything, party, 3)
    pairs = _signed_factors(product, 3)[::3]
    assert pairs
    assert_private(experiment, pairs)


def test_rounding_that_is_a_function_of_the_factors_is_found() -> None:
    """What narrow products did before: shift the local product itself, then mask what is left."""

    def program(party: Party, x: Shared, y: Shared) -> Step[Shared]:
        z = party.kernels.cross_mul((x.parts[0], x.parts[1]), (y.parts[0], y.parts[1]), RING3)
        parts = yield from zero.reshare(party, RING2.reduce(RING3.shift_right(z, 1)), RING2)
        return Shared(parts, 0, RING2)

    hidden = Experiment(program, (Arithmetic(RING3), Arithmetic(RING3)), _anything, 0, 5)
    assert_private(hidden, _factors(4, 3))  # a party alone learns nothing
    with pytest.raises(Leak):
        assert_private(Experiment(_opened(program), hidden.inputs, _anything, 0, 5), _factors(4, 3))


# ---------------------------------------------------------------------- beyond the range of a truncation
def _truncate_summands(w: Widths) -> Program:
    def program(party: Party, z: Tensor) -> Step[Shared]:
        return Shared((yield from fused.truncate_product(party, z, w)), 0, w.out)

    return program


def _truncate_value(w: Widths) -> Program:
    def program(party: Party, x: Shared) -> Step[Shared]:
        return truncate.shared(party, x, x.frac - w.shift, w.out)

    return program


@ROLES
@pytest.mark.parametrize("role", range(3))
@pytest.mark.parametrize("out", [3, 4])
def test_a_product_beyond_the_range_is_hidden_like_any_other(out: int, role: int, roles: int) -> None:
    """Branches that a selection discards wrap: at width 3 and f = 1 all 8 sums, 2^3 assignments."""
    party = (role + roles) % 3
    experiment = Experiment(_truncate_summands(Widths(RING3, Ring(out), 1)), (Additive(RING3),), _anything, party, 3)
    assert_private(experiment, [((z, a),) for z in range(8) for a in (0, 3, 6)])


@ROLES
@pytest.mark.parametrize("role", range(3))
@pytest.mark.parametrize(("f", "out"), [(1, 4), (2, 4), (1, 5), pytest.param(1, 6, marks=pytest.mark.long)])
def test_a_value_beyond_the_range_is_hidden_like_any_other(f: int, out: int, role: int, roles: int) -> None:
    """Width 4, also into 2^5 and 2^6: all 16 values, 2^3 assignments."""
    experiment = Experiment(
        _truncate_value(Widths(RING4, Ring(out), f)), (Arithmetic(RING4),), _anything, (role + roles) % 3, 3
    )
    assert_private(experiment, [(z,) for z in range(16)])


# ---------------------------------------------------------------------- one operation after another, or beside another
def _relu(party: Party, x: Shared) -> Step[Shared]:
    """Compare and select the same shares."""
    below = yield from compare.negative(party, x, bound=4.0)
    return (yield from convert.select(party, boolean.invert(party, below), x))


def _multiply_then_compare(party: Party, x: Shared, y: Shared) -> Step[SharedBits]:
    """The components that a narrow product makes are compared."""
    z = yield from products.mul(party, x.with_frac(1), y, 0, RING2)
    return (yield from compare.negative(party, z, bound=2.0))


def _square_twice(party: Party, x: Shared) -> Step[Shared]:
    """The same components as both factors, twice."""
    square = yield from products.mul(party, x, x, 0, x.ring)
    return (yield from products.mul(party, square, square, 0, x.ring))


def _bits_and_back(party: Party, x: Shared) -> Step[Shared]:
    """Bits of a sum, as numbers again."""
    bits = yield from convert.to_bits(party, x, planes=1)
    return (yield from convert.from_bits(party, bits, RING2))[0]


def _compare_beside_product(party: Party, x: Shared, y: Shared) -> Step[Shared]:
    """Both draw from the same streams in the same rounds."""
    _, z = yield from together(compare.negative(party, x, bound=2.0), products.mul(party, x, y, 0, x.ring))
    return z


def _truncate_then_multiply(party: Party, x: Shared) -> Step[Shared]:
    """A local truncation's components, and those that it was made of, in one product."""
    w = Widths(RING3, RING2, 1)
    small = truncate.narrow_shared(party, x.with_frac(1), w)
    kept = x.local(RING2.reduce)
    return (yield from products.mul(party, small, Shared(kept.parts, 0, RING2), 0, RING2))


CHAINS: dict[str, tuple[Program, tuple[Arithmetic, ...]]] = {
    "relu": (_relu, (Arithmetic(RING3),)),
    "multiply, compare": (_multiply_then_compare, (Arithmetic(RING3), Arithmetic(RING3))),
    "square twice": (_square_twice, (Arithmetic(RING3),)),
    "bits and back": (_bits_and_back, (Arithmetic(RING2),)),
    "compare beside product": (_compare_beside_product, (Arithmetic(RING2), Arithmetic(RING2))),
    "truncate, multiply": (_truncate_then_multiply, (Arithmetic(RING3),)),
}


@PARTIES
@pytest.mark.parametrize("name", CHAINS)
def test_operations_that_share_components_or_rounds_hide_their_inputs(name: str, party: int) -> None:
    """All values of all inputs, 2^3 assignments of what the party knows, all else enumerated."""
    program, inputs = CHAINS[name]
    secrets = list(product_of(*(range(1 << kind.ring.bits) for kind in inputs)))
    assert_private(Experiment(program, inputs, _anything, party, 3), secrets)


@ROLES
@pytest.mark.parametrize("role", range(3))
def test_bits_of_a_sum_are_hidden_in_every_rotation(role: int, roles: int) -> None:
    """Two planes of a 4-bit ring: all 16 values, 2^3 assignments."""

    def program(party: Party, x: Shared) -> Step[SharedBits]:
        return convert.to_bits(party, x, planes=2)

    experiment = Experiment(program, (Arithmetic(RING4),), _anything, (role + roles) % 3, 3)
    assert_private(experiment, [(x,) for x in range(16)])


# ---------------------------------------------------------------------- a comparison and the client together
@PARTIES
@pytest.mark.parametrize("below", [True, False])
def test_a_coarse_comparison_tells_no_more_than_its_bit(below: bool, party: int) -> None:
    """Width 4, one bit dropped, the answer opened: all values that the dropped bit cannot decide, of either sign."""

    def program(who: Party, x: Shared) -> Step[Tensor]:
        bit = yield from compare.negative(who, x, bound=5.0, drop=1)
        number = yield from convert.from_bits(who, bit, RING2)
        return (yield from opening.open_all(who, number))

    values = range(11, 16) if below else range(2, 6)
    assert_private(Experiment(program, (Arithmetic(RING4),), _anything, party, 2), [(x,) for x in values])
