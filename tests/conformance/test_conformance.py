"""Every protocol, every primitive, random and edge shapes: values, predicted traffic, sizes that tell nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hush.mpc.cost import total
from hush.mpc.protocol import Protocol
from hush.mpc.ring import RING32, RING64, Ring
from hush.mpc.secret import Shared
from hush.mpc.session import Ledger, run, trio_cost
from hush.mpc.transport import memory_trio
from hush.protocols.fixed import Fixed
from hush.protocols.plain import Plain
from tests.conformance.harness import Case, Setting, alone, among_three, assert_within, revealed, share
from tests.conformance.rows import ROWS
from tests.support.trio import Trio, party_step

KINDS = {64: (RING64, 18), 32: (RING32, 9)}
SHAPES = [(), (1,), (0,), (5,), (64,), (65,), (2, 3), (3, 1, 4), (0, 2), (1, 1), (129, 2)]
TABLE = [pytest.param(name, bits, id=f"{name}-{bits}") for name, r in ROWS.items() for bits in r.rings]

shapes = st.one_of(st.sampled_from(SHAPES), st.lists(st.integers(1, 7), max_size=3).map(tuple))
seeds = st.integers(0, 2**32)
modest = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _case(name: str, bits: int, shape: tuple[int, ...], seed: int) -> Case:
    ring, frac = KINDS[bits]
    return ROWS[name].make(Setting(ring, frac, shape, seed))


def _every_third(t: torch.Tensor) -> torch.Tensor:
    """The same numbers, two others after each."""
    wide = t.new_zeros(*t.shape, 3)
    wide[..., 0] = t
    return wide[..., 0]


def _turned(t: torch.Tensor) -> torch.Tensor:
    """The same numbers, the first dimension the innermost."""
    return t.movedim(0, -1).contiguous().movedim(-1, 0) if t.ndim else t


def _result_ring(trio: Trio, case: Case) -> Ring:
    """The ring of the case's result: bits and opened elements compare as integers."""
    results = trio.run(case.program, *share(trio, case))
    return getattr(results[0], "ring", trio.ring)


def test_every_primitive_has_a_row() -> None:
    covered = {r.covers for r in ROWS.values()}
    assert covered == set(Protocol.__abstractmethods__)


@pytest.mark.parametrize(("name", "bits"), TABLE)
@modest
@given(shape=shapes, seed=seeds)
def test_the_parties_compute_what_fixed_computes(name: str, bits: int, shape: tuple[int, ...], seed: int) -> None:
    """Linear and boolean primitives bit for bit, truncating ones within the case's declared slack."""
    ring, frac = KINDS[bits]
    case, trio = _case(name, bits, shape, seed), Trio(ring, frac)
    assert_within(among_three(trio, case), alone(Fixed(ring, frac), case), case, _result_ring(trio, case))


@pytest.mark.parametrize(("name", "bits"), TABLE)
@modest
@given(shape=shapes, seed=seeds)
def test_fixed_computes_the_floor_of_what_plain_computes(
    name: str, bits: int, shape: tuple[int, ...], seed: int
) -> None:
    """And leaves no range while doing so: the values of the table are within them."""
    ring, frac = KINDS[bits]
    case, fixed = _case(name, bits, shape, seed), Fixed(ring, frac)
    found = alone(fixed, case)
    if case.has_real_values:
        assert torch.equal(found.double(), torch.floor(alone(Plain(ring, frac), case).double()))
        assert fixed.violations == []


@pytest.mark.parametrize(("name", "bits"), TABLE)
@modest
@given(shape=shapes, seed=seeds)
def test_traffic_is_foreseen_and_tells_nothing(name: str, bits: int, shape: tuple[int, ...], seed: int) -> None:
    """Predicted equals measured, round by round, for two different inputs."""
    trio = Trio(*KINDS[bits])
    foreseen = trio.predict(_case(name, bits, shape, seed).program, *share(trio, _case(name, bits, shape, seed)))
    for other in (seed, seed + 1):
        case = _case(name, bits, shape, other)
        trio.run(case.program, *share(trio, case))
        assert trio.traffic == foreseen


@pytest.mark.parametrize("shape", [(70,), (5, 6), (97, 71)])
@pytest.mark.parametrize("view", [_every_third, _turned], ids=["strided", "transposed"])
@pytest.mark.parametrize(("name", "bits"), TABLE)
def test_shares_may_be_views(
    name: str, bits: int, view: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...]
) -> None:
    """Programs select and transpose: no kernel may take for granted how elements lie."""
    ring, frac = KINDS[bits]
    case, trio = _case(name, bits, shape, 3), Trio(ring, frac)
    handles = [
        [h.local(view) if isinstance(h, Shared) else h for h in own] if isinstance(own, list | tuple) else own
        for own in share(trio, case)
    ]
    results = trio.run(case.program, *handles)
    assert_within(revealed(trio, case, results), alone(Fixed(ring, frac), case), case, _result_ring(trio, case))


@pytest.mark.parametrize("shape", [(7,), (97, 71)], ids=["small", "three slices"])
@pytest.mark.parametrize(("name", "bits"), TABLE)
def test_cost_on_the_wire_is_the_predicted_one(name: str, bits: int, shape: tuple[int, ...]) -> None:
    """Over a transport, by three threads: rounds by depth stamps, bytes and messages by the ledgers."""
    trio, case = Trio(*KINDS[bits]), _case(name, bits, shape, 1)
    handles = share(trio, case)
    foreseen = total(trio.predict(case.program, *handles))
    assert _measured(trio, case, handles) == foreseen
    if shape == (97, 71):
        assert_within(among_three(trio, case), alone(Fixed(*KINDS[bits]), case), case, _result_ring(trio, case))


def _measured(trio: Trio, case: Case, handles: list[Any]) -> Any:
    ledgers, links = [Ledger() for _ in range(3)], memory_trio(30.0)
    failures: list[BaseException] = []

    def work(index: int) -> None:
        try:
            run(party_step(trio, case.program, index, handles), links[index], ledgers[index])
        except BaseException as error:
            failures.append(error)
            links[index].close()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    return trio_cost(ledgers)
