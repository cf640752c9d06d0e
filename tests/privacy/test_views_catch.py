"""The enumeration can fail: every mask left out, and every mask used twice, is found out.

The protocols are the real ones; their randomness is broken from outside. That every single draw matters also says that
none is superfluous.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hush.mpc.ring import Ring
from hush.mpc.ring.widths import Widths
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.step import Round, Step
from hush.protocols.replicated import boolean, compare, convert, fused, products, truncate, wire, zero
from hush.protocols.replicated.party import Party
from tests.privacy.views import (
    Additive,
    Arithmetic,
    Bits,
    Experiment,
    Input,
    Leak,
    Program,
    Run,
    Secret,
    assert_fresh,
    assert_private,
)

RING2, RING3, RING4 = Ring(2), Ring(3), Ring(4)
WIDTHS = Widths(RING3, RING3, 1)


def _nothing(run: Run) -> None:
    """Views only: what is computed is checked elsewhere."""


def _reshare(party: Party, summand: Tensor) -> Step[Shared]:
    return Shared((yield from zero.reshare(party, summand, RING4)), 0, RING4)


def _multiply(party: Party, x: Shared, y: Shared) -> Step[Shared]:
    return products.mul(party, x, y, 0, x.ring)


def _truncate_product(party: Party, z: Tensor) -> Step[Shared]:
    return Shared((yield from fused.truncate_product(party, z, WIDTHS)), 0, RING3)


def _truncate_shared(party: Party, x: Shared) -> Step[Shared]:
    return truncate.shared(party, x.with_frac(1), 0, RING3)


def _negative(party: Party, x: Shared) -> Step[SharedBits]:
    return compare.negative(party, x, bound=3.0)


def _is_zero(party: Party, x: Shared) -> Step[SharedBits]:
    return compare.is_zero(party, x, bound=2.0)


def _to_bits(party: Party, x: Shared) -> Step[SharedBits]:
    return convert.to_bits(party, x, planes=3)


def _from_bits(party: Party, a: SharedBits) -> Step[Shared]:
    return convert.from_bits(party, a, RING2)


Case = tuple[Program, tuple[Input, ...], list[tuple[Secret, ...]]]

CASES: dict[str, Case] = {
    "reshare": (_reshare, (Additive(RING4),), [((z, a),) for z in (5, 11) for a in range(16)]),
    "multiply": (_multiply, (Arithmetic(RING2),) * 2, [(x, y) for x in range(4) for y in range(4)]),
    "and": (boolean.both, (Bits(1), Bits(1)), [(a, b) for a in range(2) for b in range(2)]),
    "truncate product": (_truncate_product, (Additive(RING3),), [((z, a),) for z in range(-2, 2) for a in (1, 6)]),
    "truncate shared": (_truncate_shared, (Arithmetic(RING3),), [(z,) for z in range(-2, 2)]),
    "negative": (_negative, (Arithmetic(RING4),), [(x,) for x in range(-3, 4)]),
    "is_zero": (_is_zero, (Arithmetic(RING3),), [(x,) for x in range(-2, 3)]),
    "to_bits": (_to_bits, (Arithmetic(RING3),), [(x,) for x in range(8)]),
    "from_bits": (_from_bits, (Bits(1),), [(0,), (1,)]),
    "select": (convert.select, (Bits(1), Arithmetic(RING2)), [(b, x) for b in range(2) for x in range(4)]),
}


def _assert_private(case: Case, forced: dict[tuple[int, int], int | None] | None = None) -> None:
    """From every party's place."""
    program, inputs, secrets = case
    alone = any(isinstance(kind, Additive) for kind in inputs)
    for party in range(3) if alone else (None,):
        assert_private(Experiment(program, inputs, _nothing, party, forced=forced or {}), secrets)


def _draws(case: Case) -> dict[tuple[int, int], list[int]]:
    program, inputs, secrets = case
    return Experiment(program, inputs, _nothing).draws(secrets[0])


@pytest.mark.parametrize("name", CASES)
def test_every_missing_mask_is_found(name: str) -> None:
    """Each draw in turn is all zeros."""
    case = CASES[name]
    draws = _draws(case)
    assert draws
    for draw in draws:
        with pytest.raises(Leak, match="tells"):
            _assert_private(case, {draw: None})


@pytest.mark.parametrize("name", CASES)
def test_every_mask_used_twice_is_found(name: str) -> None:
    """Each draw in turn repeats an earlier one of the same key and size."""
    case = CASES[name]
    widths = _draws(case)
    pairs = [
        (later, earlier)
        for later in widths
        for earlier in widths
        if later[0] == earlier[0] and later[1] > earlier[1] and widths[later] == widths[earlier]
    ]
    for later, earlier in pairs:
        with pytest.raises(Leak, match="tells"):
            _assert_private(case, {later: earlier[1]})


def test_the_protocols_themselves_pass() -> None:
    for case in CASES.values():
        _assert_private(case)


def _careless_product(party: Party, x: Shared, y: Shared) -> Step[Shared]:
    """Sends the local product, unmasked."""
    (x0, x1), (y0, y1), ring, n = x.parts, y.parts, x.ring, x.numel
    own = ring.reduce(x0 * (y0 + y1) + x1 * y0)
    got = yield Round(to_prev=(wire.pack(party.kernels, own, ring),), from_next=(wire.spec(n, ring),))
    return Shared((own, wire.unpack(party.kernels, got.from_next[0], n, ring)), 0, ring)


CARELESS = Experiment(_careless_product, (Arithmetic(RING2), Arithmetic(RING2)), _nothing)


def test_an_unmasked_product_is_found() -> None:
    with pytest.raises(Leak, match="tells"):
        assert_private(CARELESS, [(x, y) for x in range(4) for y in range(4)])


def test_components_that_are_not_fresh_are_found() -> None:
    with pytest.raises(Leak, match="not fresh"):
        assert_fresh(CARELESS, (0, 1))


def test_a_message_to_the_wrong_neighbour_is_found() -> None:
    """Party i sends x_{i+1} on to party i-1, which must not have it."""

    def program(party: Party, x: Shared) -> Step[Shared]:
        n = x.numel
        yield Round(to_prev=(wire.pack(party.kernels, x.parts[1], RING4),), from_next=(wire.spec(n, RING4),))
        return x

    with pytest.raises(Leak, match="tells"):
        assert_private(Experiment(program, (Arithmetic(RING4),), _nothing), [(0,), (1,)])


def test_holders_that_draw_unequally_are_found() -> None:
    def program(party: Party, x: Shared) -> Step[Shared]:
        yield Round()
        if party.index == 0:
            party.with_next.elements((x.numel,), RING4)
        return x

    with pytest.raises(AssertionError, match="unequally"):
        assert_private(Experiment(program, (Arithmetic(RING4),), _nothing), [(0,)])


def test_a_wrong_result_is_found() -> None:
    def check(run: Run) -> None:
        assert bool((run.elements() == run.secrets[0][0] + 1).all())

    with pytest.raises(AssertionError):
        assert_private(Experiment(_reshare, (Additive(RING4),), check, 0), [((0, 0),)])


def test_every_combination_is_visited_equally_often() -> None:
    """The enumeration itself: components and draws of a product take each combination of values exactly once."""
    program, inputs, _ = CASES["multiply"]
    runs = list(Experiment(program, inputs, _nothing).runs((1, 2)))
    columns = [(2, torch.cat([run.components[i][c] for run in runs]).long()) for i in range(2) for c in range(2)]
    columns += [(2, torch.cat([run.keys[k].draws[0][0][1] for run in runs])) for k in range(3)]
    code = torch.zeros((), dtype=torch.int64)
    for bits, value in columns:
        code = (code << bits) | value
    assert torch.equal(code.sort().values, torch.arange(1 << 14))
