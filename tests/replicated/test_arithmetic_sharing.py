"""Dealing with compressed seeds, expanding, reconstructing, and finding a changed output share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hush.mpc.errors import ProtocolError, ShapeError
from hush.mpc.prg import KEY_BYTES
from hush.mpc.ring import RING32, RING64, Ring
from hush.mpc.secret import Shared
from hush.protocols.replicated.sharing import Dealt, deal, expand, reconstruct


def uniform(ring: Ring, *shape: int) -> torch.Tensor:
    return ring.reduce(torch.randint(-(1 << 62), 1 << 62, shape) * 2 + torch.randint(2, shape))


@pytest.mark.parametrize("ring", [RING64, RING32, Ring(4), Ring(40)], ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5, 2)], ids=str)
def test_round_trip(ring: Ring, shape: tuple[int, ...]) -> None:
    elements = uniform(ring, *shape)
    outputs = [expand(d) for d in deal(elements, 11, ring)]
    assert torch.equal(reconstruct(outputs), elements)
    assert all(o.frac == 11 and o.ring == ring and o.shape == torch.Size(shape) for o in outputs)


def test_seeds_go_where_the_design_says_and_save_a_third_to_two_thirds() -> None:
    dealt = deal(uniform(RING64, 1000), 18, RING64)
    seeds = [[isinstance(c, bytes) for c in d.components] for d in dealt]
    assert seeds == [[True, True], [True, False], [False, True]]
    assert dealt[0].components[0] == dealt[2].components[1]
    assert dealt[0].components[1] == dealt[1].components[0]
    assert [d.nbytes for d in dealt] == [2 * KEY_BYTES, KEY_BYTES + 8000, KEY_BYTES + 8000]


def test_seeds_are_fresh_for_every_dealing() -> None:
    value = uniform(RING64, 10)
    first, second = deal(value, 0, RING64), deal(value, 0, RING64)
    seeds = [c for d in (*first, *second) for c in d.components if isinstance(c, bytes)]
    assert len(set(seeds)) == 4
    assert not torch.equal(torch.as_tensor(first[1].components[1]), torch.as_tensor(second[1].components[1]))


def test_no_party_alone_holds_the_value() -> None:
    value = torch.zeros(4096, dtype=torch.int64)
    for dealt in deal(value, 0, RING64):
        shares = expand(dealt)
        for part in (*shares.parts, shares.parts[0] + shares.parts[1]):
            ones = sum(((part >> bit) & 1).double().mean() for bit in range(64)) / 64
            assert abs(ones - 0.5) < 6 * 0.5 / (64 * 4096) ** 0.5


@pytest.mark.parametrize("party", range(3))
@pytest.mark.parametrize("part", range(2))
def test_one_changed_output_share_is_found_and_its_pair_named(party: int, part: int) -> None:
    outputs = [expand(d) for d in deal(uniform(RING64, 9), 18, RING64)]
    parts = [p.clone() for p in outputs[party].parts]
    parts[part][4] += 1
    outputs[party] = replace(outputs[party], parts=tuple(parts))
    component = (party + part) % 3
    pair = f"parties {(component - 1) % 3} and {component} on component {component}"
    with pytest.raises(ProtocolError, match=pair):
        reconstruct(outputs)


@pytest.mark.parametrize("party", range(3))
def test_a_party_that_changes_both_of_its_shares_is_named(party: int) -> None:
    outputs = [expand(d) for d in deal(uniform(RING64, 9), 18, RING64)]
    outputs[party] = outputs[party].local(lambda t: t + 1)
    with pytest.raises(ProtocolError, match=f"party {party} is in all of them"):
        reconstruct(outputs)


def test_outputs_of_different_kinds_are_refused() -> None:
    outputs = [expand(d) for d in deal(uniform(RING64, 9), 18, RING64)]
    with pytest.raises(ProtocolError, match="different kinds"):
        reconstruct([outputs[0], outputs[1], outputs[2][:8]])
    with pytest.raises(ProtocolError, match="different kinds"):
        reconstruct(outputs[:2])


def test_packages_of_the_wrong_size_are_refused() -> None:
    whole = torch.zeros(3, dtype=torch.int64)
    for bad in [(b"short", whole), (whole, torch.zeros(4, dtype=torch.int64)), (whole, whole.to(torch.int32))]:
        with pytest.raises(ShapeError):
            expand(Dealt(bad, (3,), 18, RING64))


def test_no_repr_shows_a_share() -> None:
    dealt = deal(torch.tensor([123456789]), 18, RING64)
    assert repr(dealt[1]) == "Dealt(shape=(1,), frac=18, ring=2^64)"
    assert isinstance(expand(dealt[1]), Shared)
    assert str(int(torch.as_tensor(dealt[1].components[1])[0])) not in f"{dealt!r}{expand(dealt[1])!r}"
