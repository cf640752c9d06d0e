"""Views of resharing, products and truncations, enumerated at ring width 4 (2 where said).

Truncation realises: draw t uniform in [0, 2^f), output fresh shares of floor((z + t) / 2^f), give t to the adversary.
So the tests assert (1) that each party's view has one distribution for all z, (2) that in every single state the output
is floor((z + t) / 2^f) with the t which each party reads off its own view, and (3) that t and the party's output
components are uniform together. A simulator that is given t then draws the rest of the view without knowing z.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from hush.mpc.fixed_point import encode
from hush.mpc.ring import Ring
from hush.mpc.ring.widths import Widths
from hush.mpc.secret import Shared
from hush.mpc.step import Round, Step
from hush.protocols.replicated import fused, linear, opening, products, public, truncate, zero
from hush.protocols.replicated.pair_truncate import Mask, truncate_masked, truncate_pair
from hush.protocols.replicated.party import Party
from tests.privacy.enumeration import Column
from tests.privacy.views import (
    Additive,
    Arithmetic,
    Experiment,
    Leak,
    Program,
    Run,
    assert_fresh,
    assert_private,
)

RING2, RING4 = Ring(2), Ring(4)
ALL = [((z, a),) for z in range(16) for a in range(16)]  # (sum, the next party's summand)
VALID = range(-4, 4)  # -2^(k-2) <= z < 2^(k-2)
VALID_SUMS = [((z, a),) for z in VALID for a in range(16)]
PARTIES = pytest.mark.parametrize("party", range(3))


def _computes(fn: Callable[..., int], bits: int = 4) -> Callable[[Run], None]:
    """A check that every state's result is the function of the secrets, mod 2^bits."""

    def check(run: Run) -> None:
        assert bool((run.elements() == fn(*run.secrets) % (1 << bits)).all())

    return check


# ---------------------------------------------------------------------- resharing and products
def _reshare(party: Party, summand: Tensor) -> Step[Shared]:
    return Shared((yield from zero.reshare(party, summand, RING4)), 0, RING4)


def _multiply(party: Party, x: Shared, y: Shared) -> Step[Shared]:
    return products.mul(party, x, y, 0, x.ring)


@PARTIES
def test_reshare_hides_the_summands(party: int) -> None:
    """All combinations of the others' summands, 2^6 assignments of what the party knows."""
    assert_private(Experiment(_reshare, (Additive(RING4),), _computes(lambda z: z[0]), party, 6), ALL)


@PARTIES
def test_reshare_hides_the_summands_in_all_states(party: int) -> None:
    """At width 2: all 2^8 states (2 bits of the own summand, 6 of draws) of all 16 combinations of the others'."""

    def program(who: Party, summand: Tensor) -> Step[Shared]:
        return Shared((yield from zero.reshare(who, summand, RING2)), 0, RING2)

    experiment = Experiment(program, (Additive(RING2),), _computes(lambda z: z[0], 2), party)
    assert_private(experiment, [((z, a),) for z in range(4) for a in range(4)])


def test_reshared_components_are_fresh() -> None:
    """For fixed summands of the others: own components are uniform, together with party 0's summand."""
    experiment = Experiment(_reshare, (Additive(RING4),), _computes(lambda z: z[0]), 0)
    assert_fresh(experiment, ((11, 6),), lambda run, party: [(4, run.components[0][0].long())])


def test_product_of_two_secrets_hides_both_in_all_states() -> None:
    """At width 2: all 2^14 states (8 bits of components, 6 of draws) of all 16 pairs of secrets."""
    experiment = Experiment(_multiply, (Arithmetic(RING2), Arithmetic(RING2)), _computes(lambda x, y: x * y, 2))
    assert_private(experiment, [(x, y) for x in range(4) for y in range(4)])
    assert_fresh(experiment, (3, 2))


@PARTIES
def test_product_of_two_secrets_hides_both(party: int) -> None:
    """At width 4, 2^8 assignments of what the party knows; what it does not is enumerated, for all 256 pairs."""
    inputs = (Arithmetic(RING4), Arithmetic(RING4))
    experiment = Experiment(_multiply, inputs, _computes(lambda x, y: x * y), party, 8)
    assert_private(experiment, [(x, y) for x in range(16) for y in range(16)])


def _open(party: Party, x: Shared) -> Step[Shared]:
    value = yield from opening.open_all(party, x)
    return linear.add_at_zero(x.local(torch.zeros_like), value, truncate.zero_part(party.index))


def test_opening_shows_the_value_and_no_more() -> None:
    """The view is a function of own components and the value: given the value, own components stay uniform."""
    experiment = Experiment(_open, (Arithmetic(RING4),), _computes(lambda x: x))
    for secret in range(16):
        for counts in experiment.distribution((secret,)).values():
            seen = counts[counts > 0]
            assert seen.numel() == 1 << 8  # one message for each pair of own components
            assert int(seen.min()) == int(seen.max())


# ---------------------------------------------------------------------- fused truncation
def _truncate_product(widths: Widths) -> Program:
    def program(party: Party, z: Tensor) -> Step[Shared]:
        return Shared((yield from fused.truncate_product(party, z, widths)), 0, widths.out)

    return program


def _truncate_shared(widths: Widths) -> Program:
    def program(party: Party, x: Shared) -> Step[Shared]:
        return truncate.shared(party, x, x.frac - widths.shift, widths.out)

    return program


def _value(columns: list[Column]) -> Tensor:
    """The ring element that a message's bit columns spell, least significant first."""
    return torch.stack([bit << position for position, (_, bit) in enumerate(columns)]).sum(0)


def _coin(run: Run, party: int, roles: int, w: Widths) -> Tensor:
    """t as the party reads it off its own view: own components, own draws, own messages, nothing else.

    Roles 0 and 1 know c, and t = 2^f - 1 - (c mod 2^f); role 2 knows r, and t = r mod 2^f.
    """
    role, whole = (party - roles) % 3, isinstance(run.inputs[0], Additive)
    own = [run.components[0][(party + i) % 3].long() for i in range(run.inputs[0].held)]

    def mask(pair: int) -> Tensor:
        return run.keys[pair % 3].draws[0][0][1]

    after = w.out.bits + w.top.bits if role == 1 else 0  # role 1 hears role 2 first
    heard = run.messages(party)[after : after + w.ring.bits]
    if role == 2:
        masks = mask(party) + mask(party - 1) if whole else mask(party)
        return (masks - own[0]) % (1 << w.shift)
    if whole:
        c = own[0] + mask(party - 1 + role) + _value(heard) + w.offset
    else:
        c = own[0] + own[1] + mask(party - 1) + w.offset if role == 0 else _value(heard)
    return (1 << w.shift) - 1 - c % (1 << w.shift)


def _truncation(w: Widths, roles: int, whole: bool, party: int | None = None, slices: int = 0) -> Experiment:
    """Truncation of additive summands (`whole`: as in a product) or of a shared value."""

    def check(run: Run) -> None:
        z = run.secrets[0][0] if whole else run.secrets[0]
        for party in range(3):
            due = (z + _coin(run, party, roles, w)) >> w.shift
            assert torch.equal(run.elements().long(), due & ((1 << w.out.bits) - 1))

    if whole:
        return Experiment(_truncate_product(w), (Additive(w.ring),), check, party, slices)
    return Experiment(_truncate_shared(w), (Arithmetic(w.ring),), check, party, slices)


ROLES = pytest.mark.parametrize("roles", range(3), indirect=True, ids="rotation{}".format)


@ROLES
@pytest.mark.parametrize("role", range(3))
@pytest.mark.parametrize(("f", "out"), [(1, 4), (2, 4), (2, 3), (1, 5)])
def test_fused_product_truncation_hides_the_product(f: int, out: int, role: int, roles: int) -> None:
    """All valid z, all summands of the next party (every fifth pair in the other rotations). 2^6 assignments of what
    roles 0 and 2 know, 2 of role 1's; all that the party does not know is enumerated. The long test does the rest."""
    experiment = _truncation(Widths(RING4, Ring(out), f), roles, True, (role + roles) % 3, 1 if role == 1 else 6)
    assert_private(experiment, VALID_SUMS[:: 1 if roles == 0 else 5])


@PARTIES
def test_fused_product_truncation_at_width_3_hides_the_product_in_all_states(party: int) -> None:
    """h = 1, e = 2: all 2^18 states (3 bits of the own summand, 15 of draws) of all valid z and the next's summands."""
    experiment = _truncation(Widths(Ring(3), Ring(3), 1), 0, True, party)
    assert_private(experiment, [((z, a),) for z in range(-2, 2) for a in range(0, 8, 1 if party == 1 else 3)])


@pytest.mark.long
@pytest.mark.timeout(3600)
@PARTIES
def test_fused_product_truncation_hides_the_product_in_all_states(party: int) -> None:
    """All 2^22 states (4 bits of the own summand, 18 of draws) at f = 1, of every third of the 128 pairs of a valid z
    and the next party's summand: all z and all summands occur."""
    pairs = VALID_SUMS[::3]
    assert {z for ((z, _),) in pairs} == set(VALID)
    assert {a for ((_, a),) in pairs} == set(range(16))
    assert_private(_truncation(Widths(RING4, RING4, 1), 0, True, party), pairs)


def test_fused_product_truncation_is_fresh_beside_its_coin() -> None:
    """t and own output components are uniform together: all 2^22 states for one z at f = 1, all 2^18 at width 3."""
    for ring, secrets in ((Ring(3), [(-2, 5), (-1, 0), (0, 3), (1, 7)]), (RING4, [(-3, 9)])):
        w = Widths(ring, ring, 1)
        for secret in secrets:
            assert_fresh(_truncation(w, 0, True, 0), (secret,), partial(_coin_column, w=w))


def _coin_column(run: Run, party: int, w: Widths) -> list[Column]:
    return [(w.shift, _coin(run, party, 0, w))]


def test_shared_truncation_hides_the_value_in_all_states() -> None:
    """All 2^22 states (8 bits of components, 14 of draws) of four values, the extremes among them, at f = 1."""
    assert_private(_truncation(Widths(RING4, RING4, 1), 0, False), [(z,) for z in (-4, -1, 0, 3)])


@ROLES
@pytest.mark.parametrize("role", range(3))
@pytest.mark.parametrize(("f", "out"), [(1, 4), (2, 4), (2, 3), (1, 5)])
def test_shared_truncation_hides_the_value(f: int, out: int, role: int, roles: int) -> None:
    """All valid values, 2^4 assignments of what the party knows, everything else enumerated."""
    experiment = _truncation(Widths(RING4, Ring(out), f), roles, False, (role + roles) % 3, 4)
    assert_private(experiment, [(z,) for z in VALID])


def test_shared_truncation_is_fresh_beside_its_coin() -> None:
    """All 2^22 states of two values at f = 1."""
    w = Widths(RING4, RING4, 1)
    for z in (-3, 2):
        assert_fresh(_truncation(w, 0, False), (z,), partial(_coin_column, w=w))


# ---------------------------------------------------------------------- narrow truncation
@pytest.mark.parametrize(("f", "out"), [(1, 3), (2, 2), (1, 2), (0, 4)])
@PARTIES
def test_narrow_truncation_hides_the_product(f: int, out: int, party: int) -> None:
    """All z and summands of the next party, 2^6 assignments of what the party knows. The result lies above z/2^f - 1.5
    and at or below z/2^f + 1.5 units: one of three."""
    w = Widths(RING4, Ring(out), f)
    assert w.local

    def program(party: Party, z: Tensor) -> Step[Shared]:
        return Shared((yield from truncate.product(party, z, w)), 0, w.out)

    def check(run: Run) -> None:
        z = _signed4(run.secrets[0][0])
        far = 1.5 * (1 << f) if f else 0
        near = [y % (1 << out) for y in range(-16, 16) if (y << f) - z == far or -far < (y << f) - z < far]
        assert len(near) == (3 if f else 1)
        assert bool(torch.isin(run.elements(), torch.tensor(near)).all())

    assert_private(Experiment(program, (Additive(RING4),), check, party, 6), ALL)
    assert_fresh(Experiment(program, (Additive(RING4),), check, party), ((5, 9),))


# ---------------------------------------------------------------------- whole primitives
@PARTIES
def test_multiply_and_truncate_hides_both_factors(party: int) -> None:
    """From shared factors at f = 1: every pair with a valid product, 2^3 assignments of what the party knows."""
    w = Widths(RING4, RING4, 1)

    def program(who: Party, x: Shared, y: Shared) -> Step[Shared]:
        return products.mul(who, x.with_frac(1), y, 0, w.out)

    def check(run: Run) -> None:
        z = _signed4(run.secrets[0]) * _signed4(run.secrets[1])
        off = w.out.signed(run.elements() - (z >> 1))
        assert int(off.min()) >= 0
        assert int(off.max()) <= (z & 1)

    pairs = [(x, y) for x in range(16) for y in range(16) if -4 <= _signed4(x) * _signed4(y) < 4]
    inputs = (Arithmetic(RING4), Arithmetic(RING4))
    assert_private(Experiment(program, inputs, check, party, 3), pairs)


@PARTIES
def test_public_factors_hide_the_secret(party: int) -> None:
    """0.5 x + 1 at f = 1 with a public factor and bias: every x whose product is valid, 2^4 assignments a party."""

    def program(who: Party, x: Shared) -> Step[Shared]:
        return public.combine(who, [x.with_frac(1)], [0.5], 1.0, 1, 1)

    def check(run: Run) -> None:
        z = _signed4(run.secrets[0]) + _signed4(int(_bias()))
        off = RING4.signed(run.elements() - (z >> 1))
        assert int(off.min()) >= 0
        assert int(off.max()) <= (z & 1)

    secrets = [(x,) for x in range(16) if -4 <= _signed4(x) + _signed4(int(_bias())) < 4]
    assert len(secrets) == 8
    assert_private(Experiment(program, (Arithmetic(RING4),), check, party, 4), secrets)


def _bias() -> Tensor:
    """1.0 at the product's scale (2 fraction bits), saturated as the protocol saturates it."""
    return encode(1.0, RING4, 2)


def _signed4(element: int) -> int:
    return (element + 8) % 16 - 8


# ---------------------------------------------------------------------- truncation of a sum that two parties hold
def _truncate_pair(widths: Widths) -> Program:
    def program(party: Party, z: Tensor) -> Step[Shared]:
        role = party.role(0)
        parts = yield from truncate_pair(party, role, z if role else None, z.numel(), widths)
        return Shared(parts, 0, widths.out)

    return program


@PARTIES
@pytest.mark.parametrize("out", [3, 4])
def test_truncation_of_a_sum_of_two_hides_it_in_all_states(out: int, party: int) -> None:
    """Width 3, f = 1: all states (3 bits of the own summand, 12 or more of draws) of all sums and summands; within the
    range, the result is (z + t) / 2 with t the low bit of the mask that P2 and P0 draw."""
    w = Widths(Ring(3), Ring(out), 1)

    def check(run: Run) -> None:
        summands = run.components[0]
        z = (summands[1] + summands[2]).long() % 8
        z -= 8 * (z >= 4).long()
        t = run.keys[2].draws[0][0][1] & 1
        valid = (z >= -2) & (z < 2)
        assert bool(valid.any()) or party == 2  # whose sum is the secret less a summand that is no part of it
        assert torch.equal(run.elements().long()[valid], (((z + t) >> 1) % (1 << out))[valid])

    experiment = Experiment(_truncate_pair(w), (Additive(w.ring),), check, party)
    assert_private(experiment, [((z, a),) for z in range(8) for a in range(8)])


# ---------------------------------------------------------------------- the same under a mask that was dealt before
def _truncate_masked(widths: Widths, *, plain: bool = False) -> Program:
    def program(party: Party, z: Tensor) -> Step[Shared]:
        role, mask = party.role(0), None
        if role == 0:
            dealt = Mask.deal(party, z.numel(), widths)
            yield Round(to_prev=dealt)
        elif role == 1:
            mask = Mask.drawn(party, z.numel(), widths)
            yield Round()
        else:
            mask = yield from Mask.receive(party, z.numel(), widths)
        if plain and mask is not None:
            mask = replace(mask, own=torch.zeros_like(mask.own))
        parts = yield from truncate_masked(party, role, z if role else None, mask, z.numel(), widths)
        return Shared(parts, 0, widths.out)

    return program


SUMS = [((z, a),) for z in (0, 1, 3, 6, 7) for a in (0, 2, 5)]


@PARTIES
def test_truncation_under_a_dealt_mask_hides_the_sum_in_all_states(party: int) -> None:
    """Width 3, f = 1: all draws of all parties, for several sums and summands of the next party."""
    w = Widths(Ring(3), Ring(3), 1)

    def check(run: Run) -> None:
        summands = run.components[0]
        z = (summands[1] + summands[2]).long() % 8
        z -= 8 * (z >= 4).long()
        masks = run.keys[0].draws[0][0][1] + run.keys[2].draws[0][0][1]
        valid = (z >= -2) & (z < 2)
        assert bool(valid.any()) or party == 2
        assert torch.equal(run.elements().long()[valid], (((z + (masks & 1)) >> 1) % 8)[valid])

    assert_private(Experiment(_truncate_masked(w), (Additive(w.ring),), check, party), SUMS)


@pytest.mark.parametrize("party", [1, 2])
def test_without_the_mask_the_summand_shows(party: int) -> None:
    w = Widths(Ring(3), Ring(3), 1)
    with pytest.raises(Leak):
        assert_private(Experiment(_truncate_masked(w, plain=True), (Additive(w.ring),), lambda run: None, party), SUMS)
