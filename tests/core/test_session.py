"""A step over a transport: the ledger equals the cost model's tally, and failures name the neighbour."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hush.mpc.cost import FRAME_HEADER, Cost, Traffic, total
from hush.mpc.errors import AbortReason, DeadlineExceeded, HushError, PartyError
from hush.mpc.session import Ledger, run, simulate, trio_cost
from hush.mpc.step import Received, Round, Spec, Step, together
from hush.mpc.transport import MemoryTransport, memory_trio

Sizes = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]  # sizes[i] = bytes from i to (next, prev)


def _talk(party: int, schedule: list[Sizes]) -> Step[list[int]]:
    """Send bytes as the schedule says; returns one number per message received."""
    heard = []
    for number, sizes in enumerate(schedule):
        after, before = (party + 1) % 3, (party - 1) % 3
        mine = torch.full((max(sizes[party]),), 16 * (number % 8) + party, dtype=torch.uint8)
        got: Received = yield Round(
            (mine[: sizes[party][0]],),
            (mine[: sizes[party][1]],),
            (Spec((sizes[after][1],), torch.uint8),),
            (Spec((sizes[before][0],), torch.uint8),),
        )
        for tensor in (*got.from_next, *got.from_prev):
            heard += tensor[:1].tolist()
    return heard


def _threads(
    steps: list[Step[Any]], trio: tuple[MemoryTransport, ...], close: bool = True
) -> tuple[list[Any], list[Ledger]]:
    """Run each party's step in a thread of its own; a result is a value or the error raised."""
    results: list[Any] = [None] * 3
    ledgers = [Ledger() for _ in range(3)]

    def work(index: int) -> None:
        try:
            results[index] = run(steps[index], trio[index], ledgers[index])
        except HushError as error:
            results[index] = error
            if close:
                trio[index].close()

    workers = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
        assert not worker.is_alive()
    return results, ledgers


_side = st.sampled_from([0, 0, 1, 5, 64])
_round = st.tuples(*(st.tuples(_side, _side) for _ in range(3)))


@settings(max_examples=40, deadline=None)
@given(st.lists(_round, max_size=6))
def test_ledger_over_threads_equals_the_tally(schedule: list[Sizes]) -> None:
    """Random schedules: parties that are silent in a round do not lengthen the chain of dependent messages."""
    results, ledgers = _threads([_talk(i, schedule) for i in range(3)], memory_trio(10.0))
    simulated, traffic = simulate([_talk(i, schedule) for i in range(3)])
    assert results == simulated
    assert traffic == [Traffic(sizes) for sizes in schedule]
    assert trio_cost(ledgers) == total(traffic)


def test_depth_is_the_longest_chain_not_the_number_of_yields() -> None:
    chain = Traffic(((1, 0), (0, 0), (0, 0))), Traffic(((0, 0), (1, 0), (0, 0))), Traffic(((0, 0), (0, 0), (1, 0)))
    assert total(chain).rounds == 3
    apart = Traffic(((1, 0), (0, 0), (0, 0))), Traffic(), Traffic(((0, 0), (0, 0), (0, 1)))
    assert total(apart).rounds == 1  # neither message waits for the other
    assert total([]) == Cost(0, (0, 0, 0), (0, 0, 0))


def test_every_frame_pays_one_header() -> None:
    two = Round.merge(
        [Round(to_next=(torch.zeros(3, dtype=torch.uint8),)), Round(to_next=(torch.zeros(4, dtype=torch.uint8),))]
    )
    assert sum(t.numel() for t in two.to_next) == 7
    cost = total([Traffic(((7, 2), (0, 0), (0, 0)))])
    assert cost == Cost(1, (9 + 2 * FRAME_HEADER, 0, 0), (2, 0, 0))


@given(st.lists(_round, min_size=1, max_size=4), st.integers(0, 2))
def test_rotated_traffic_is_the_traffic_of_rotated_roles(schedule: list[Sizes], roles: int) -> None:
    for sizes in schedule:
        turned = Traffic(sizes).rotate(roles)
        assert all(turned.sent[(i + roles) % 3] == sizes[i] for i in range(3))


def test_merged_steps_measure_as_one() -> None:
    """Two steps side by side: bytes add, frames and rounds do not."""
    one: list[Sizes] = [((8, 0), (8, 0), (8, 0))] * 2
    results, ledgers = _threads([together(_talk(i, one), _talk(i, one[:1])) for i in range(3)], memory_trio(10.0))
    assert trio_cost(ledgers) == Cost(2, (24 + 2 * FRAME_HEADER,) * 3, (2, 2, 2))
    assert results[0] == ([2, 18], [2])


# ---------------------------------------------------------------------- failures
def _exchange(party: int, nbytes: int = 4, awaited: int = 4) -> Step[Received]:
    spec = Spec((awaited,), torch.uint8)
    got: Received = yield Round((torch.zeros(nbytes, dtype=torch.uint8),), (), (), (spec,))
    return got


def _failures(steps: list[Callable[[int], Step[Any]]], deadline: float = 0.2) -> list[Any]:
    return _threads([make(i) for i, make in enumerate(steps)], memory_trio(deadline), close=False)[0]


def _silent(party: int) -> Step[None]:
    return None
    yield


def test_a_stalled_neighbour_is_named_within_the_deadline() -> None:
    started = time.monotonic()
    results = _failures([_exchange, _silent, _exchange])
    assert isinstance(results[2], DeadlineExceeded)
    assert (results[2].party, results[2].reason) == (1, AbortReason.DEADLINE)
    assert "party 1" in str(results[2])
    assert time.monotonic() - started < 10


def test_a_message_of_the_wrong_size_names_its_sender() -> None:
    results = _failures([_exchange, lambda i: _exchange(i, nbytes=5), _exchange])
    assert isinstance(results[2], PartyError)
    assert (results[2].party, results[2].reason) == (1, AbortReason.MALFORMED)


def test_a_closed_neighbour_is_noticed_at_once() -> None:
    trio = memory_trio(60.0)
    trio[1].close()
    results, _ = _threads([_exchange(0), _silent(1), _exchange(2)], trio, close=False)
    assert isinstance(results[2], PartyError)
    assert (results[2].party, results[2].reason) == (1, AbortReason.DISCONNECTED)


@pytest.mark.parametrize("offset", [0, 4, 8], ids=["depth", "sequence", "length"])
def test_a_header_that_does_not_fit_is_malformed(offset: int) -> None:
    """A frame replayed, out of order, or that lies about its length is refused; the depth stamp alone may vary."""
    trio = memory_trio(0.2)
    sent: list[bytes] = []
    original = trio[1].send
    trio[1].send = lambda to, buffers: sent.append(b"".join(buffers))  # type: ignore[method-assign]
    step = _exchange(1)
    with pytest.raises(DeadlineExceeded):
        run(step, trio[1], Ledger())
    frame = bytearray(sent[0])
    frame[offset] ^= 1
    original("next", [bytes(frame)])
    receive = run_receiver(trio[2])
    if offset == 0:
        assert isinstance(receive, Received)
    else:
        assert isinstance(receive, PartyError)
        assert (receive.party, receive.reason) == (1, AbortReason.MALFORMED)


def run_receiver(transport: MemoryTransport) -> Received | PartyError:
    """Party 2's side of `_exchange`."""
    try:
        return run(_exchange(2), transport, Ledger())
    except PartyError as error:
        return error


def test_a_replayed_frame_is_refused() -> None:
    trio = memory_trio(0.2)
    frames: list[bytes] = []
    real = trio[1].send
    trio[1].send = lambda to, buffers: frames.append(b"".join(buffers)) or real(to, [frames[0]])  # type: ignore[method-assign,func-returns-value]

    def twice(party: int) -> Step[None]:
        yield from _exchange(party)
        yield from _exchange(party)

    results, _ = _threads([twice(0), twice(1), twice(2)], trio, close=False)
    assert isinstance(results[2], PartyError)
    assert (results[2].party, results[2].reason) == (1, AbortReason.MALFORMED)


def test_received_tensors_can_be_written() -> None:
    results, _ = _threads([_exchange(i) for i in range(3)], memory_trio(5.0))
    received, others = results[0].from_prev[0], [t.clone() for r in results[1:] for t in (*r.from_next, *r.from_prev)]
    before = received.clone()
    received.add_(1)
    assert torch.equal(received, before + 1)
    assert all(map(torch.equal, others, [t for r in results[1:] for t in (*r.from_next, *r.from_prev)]))


def test_tensors_of_every_kind_arrive_as_sent() -> None:
    """Views that are not contiguous, empty tensors, scalars, 32- and 64-bit elements."""
    tensors = (
        torch.arange(12).reshape(3, 4).t(),
        torch.empty(0, 3, dtype=torch.int32),
        torch.tensor(7),
        torch.arange(5, dtype=torch.int32).flip(0),
    )

    def party(index: int) -> Step[Received]:
        specs = tuple(Spec(tuple(t.shape), t.dtype) for t in tensors)
        got: Received = yield Round(to_prev=tensors, from_next=specs)
        return got

    for results in (
        simulate([party(i) for i in range(3)])[0],
        _threads([party(i) for i in range(3)], memory_trio(5.0))[0],
    ):
        for result in results:
            assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(result.from_next, tensors, strict=True))
