"""Messages between a device and the transport, with a device whose copies are done as late as they may be."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hush.mpc import copies as subject
from hush.mpc.copies import Copies, Copy, CudaLanes, copies_for
from hush.mpc.session import Ledger, run, simulate, trio_cost
from hush.mpc.step import Received, Round, Spec, Step
from hush.mpc.transport import memory_trio


@dataclass
class Mark:
    """The end of some queued copies of `lanes`."""

    lanes: Lazy
    copies: list[Copy] | None

    def wait(self) -> None:
        """Do them now."""
        self.lanes.waits += 1
        self.do()

    def do(self) -> None:
        """The copies, once."""
        for target, source in self.copies or ():
            target.copy_(source)
        self.copies = None

    def passed(self) -> bool:
        """Whether they are done."""
        return self.copies is None


@dataclass
class Lazy:
    """`Lanes` that copy when they are waited for, or computing asks for what was queued."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    waits: int = 0
    made: int = 0
    entering: list[Mark] = field(default_factory=list)

    def pinned(self, nbytes: int) -> Tensor:
        """Memory full of something else."""
        self.made += 1
        return torch.full((nbytes,), 0xA5, dtype=torch.uint8)

    def leave(self, copies: Sequence[Copy]) -> Mark:
        """Done when it is waited for."""
        return Mark(self, list(copies))

    def enter(self, copies: Sequence[Copy]) -> Mark:
        """Done when computing comes to it."""
        self.entering.append(Mark(self, list(copies)))
        return self.entering[-1]

    def compute(self, most: int | None = None) -> None:
        """Computing comes to the first `most` queued copies, or to all."""
        now, self.entering = self.entering[:most], [] if most is None else self.entering[most:]
        for mark in now:
            mark.do()


def _raw(message: Sequence[Tensor]) -> bytes:
    return b"".join(t.contiguous().numpy().tobytes() for t in message)


_KINDS = (
    torch.arange(12).reshape(3, 4).t(),
    torch.empty(0, 3, dtype=torch.int32),
    torch.tensor(7),
    torch.arange(5, dtype=torch.int32).flip(0),
    torch.arange(3, dtype=torch.uint8),  # what follows does not lie on a multiple of its size
    torch.arange(9).expand(2, 9),
)
_message = st.lists(st.sampled_from(_KINDS), max_size=4).map(tuple)


# ---------------------------------------------------------------------- what leaves
@given(st.lists(_message, min_size=1, max_size=3))
def test_what_leaves_is_what_was_sent_after_one_wait_for_all(messages: list[tuple[Tensor, ...]]) -> None:
    lanes = Lazy()
    made = Copies(lanes).outgoing(messages)
    assert [b"".join(buffers) for buffers in made] == [_raw(m) for m in messages]
    assert lanes.waits == (1 if any(t.numel() for m in messages for t in m) else 0)


def test_a_buffer_that_the_transport_holds_does_not_change_and_is_used_again_once_it_is_free() -> None:
    lanes = Lazy()
    copies = Copies(lanes)
    sent = [torch.full((1000,), n) for n in range(4)]
    first = copies.outgoing([(sent[0],)])
    part = first[0][0][8:16]  # a transport may keep a slice alone
    del first
    second = copies.outgoing([(sent[1],)])
    assert (part.tobytes(), bytes(second[0][0])) == (_raw([sent[0][:1]]), _raw([sent[1]]))
    assert lanes.made == 2
    del part, second
    third = copies.outgoing([(sent[2],), (sent[3],)])
    assert [bytes(b[0]) for b in third] == [_raw([sent[2]]), _raw([sent[3]])]
    assert lanes.made == 2


def test_buffers_are_as_many_as_are_in_use_and_not_one_a_round() -> None:
    lanes = Lazy()
    copies = Copies(lanes)
    for size in range(1, 400):
        copies.outgoing([(torch.zeros(size),), (torch.zeros(size),)])
        copies.incoming(memoryview(bytes(4 * size)), [Spec((size,), torch.float32)])
        lanes.compute()
    assert (lanes.made, copies.pinned) == (2, 2 * 4096)
    copies.outgoing([(torch.zeros(2000, dtype=torch.int64),)])
    assert copies.pinned == 2 * 4096 + 16384


# ---------------------------------------------------------------------- what arrives
@given(st.lists(_message, min_size=1, max_size=6), st.integers(0, 3))
def test_what_arrives_is_there_when_computing_comes_to_it(messages: list[tuple[Tensor, ...]], behind: int) -> None:
    """Copies lag by up to three messages: a buffer whose copy is to come is not written to."""
    lanes = Lazy()
    copies = Copies(lanes)
    arrived = []
    for message in messages:
        payload = bytearray(_raw(message))
        arrived.append(copies.incoming(memoryview(payload), [Spec(tuple(t.shape), t.dtype) for t in message]))
        payload[:] = bytes(len(payload))  # a transport may do as it likes with its own
        lanes.compute(max(0, len(lanes.entering) - behind))
    lanes.compute()
    for got, message in zip(arrived, messages, strict=True):
        assert [t.dtype for t in got] == [t.dtype for t in message]
        assert all(map(torch.equal, got, message))
    assert lanes.waits == 0


def test_what_arrived_can_be_written_and_shares_no_memory() -> None:
    lanes = Lazy()
    copies = Copies(lanes)
    one, two = copies.incoming(memoryview(bytes(16)), [Spec((1,), torch.int64)] * 2)
    lanes.compute()
    one.add_(1)
    assert (one.tolist(), two.tolist()) == ([1], [0])


# ---------------------------------------------------------------------- a run
def _talk(party: int, rounds: list[tuple[Tensor, ...]], lanes: Lazy | None) -> Step[list[Tensor]]:
    """Everybody sends each message, changed by its number, to both sides; what arrives is read a round later."""
    heard: list[Tensor] = []
    for number, message in enumerate(rounds):
        specs = tuple(Spec(tuple(t.shape), t.dtype) for t in message)

        def mine(who: int, to: int, message: tuple[Tensor, ...] = message, number: int = number) -> tuple[Tensor, ...]:
            return tuple(t + (7 * who + 3 * to + number) % 128 for t in message)

        got: Received = yield Round(mine(party, 0), mine(party, 1), specs, specs)
        if lanes is not None and number % 2:
            lanes.compute()
        heard += [*got.from_next, *got.from_prev]
    if lanes is not None:
        lanes.compute()
    return heard


@settings(max_examples=25, deadline=None)
@given(st.lists(_message, max_size=5))
def test_a_party_with_a_device_beside_parties_without_one(rounds: list[tuple[Tensor, ...]]) -> None:
    """The same messages, in the same order, at the same cost."""
    lanes, trio = (Lazy(), None, None), memory_trio(10.0)
    ledgers, results = [Ledger() for _ in range(3)], [list[Tensor]() for _ in range(3)]

    def work(i: int) -> None:
        own = lanes[i]
        step, copies = _talk(i, rounds, own), None if own is None else Copies(own)
        results[i] = run(step, trio[i], ledgers[i], copies=copies)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
        assert not worker.is_alive()
    expected, _ = simulate([_talk(i, rounds, None) for i in range(3)])
    for got, due in zip(results, expected, strict=True):
        assert len(got) == len(due)
        assert all(map(torch.equal, got, due))
    assert len({ledger.snapshot() for ledger in ledgers}) == 1
    assert lanes[0].waits == sum(1 for m in rounds if any(t.numel() for t in m))
    assert trio_cost(ledgers).rounds == lanes[0].waits


# ---------------------------------------------------------------------- a GPU's lanes, as far as they go without one
def test_main_memory_has_no_copies() -> None:
    assert copies_for(torch.device("cpu")) is None


def test_a_gpu_is_asked_to_copy_beside_and_after_what_was_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls that torch gets, in order: what leaves waits for computing and takes a stream of its own."""
    told: list[Any] = []

    class Stream:
        def __init__(self, device: object = "computing") -> None:
            self.name = "computing" if device == "computing" else "side"

        def wait_stream(self, other: Stream) -> None:
            told.append((self.name, "waits for", other.name))

        def record_event(self) -> Event:
            told.append((self.name, "mark"))
            return Event()

    class Event:
        def synchronize(self) -> None:
            told.append("wait")

        def query(self) -> bool:
            return True

    class Told(Tensor):
        def copy_(self, source: Tensor, non_blocking: bool = False) -> Tensor:  # type: ignore[override]
            told.append(("copy", non_blocking))
            return super().copy_(source, non_blocking)

    @contextmanager
    def stream(of: Stream) -> Any:
        told.append((of.name, "queues"))
        yield

    computing = Stream()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    lanes = CudaLanes(torch.device("cuda", 0))
    target = torch.zeros(2).as_subclass(Told)
    lanes.leave([(target, torch.ones(2))]).wait()
    assert told == [
        ("side", "waits for", "computing"),
        ("side", "queues"),
        ("copy", True),
        ("side", "mark"),
        "wait",
    ]
    told.clear()
    assert lanes.enter([(target, torch.ones(2))]).passed()
    assert told == [("computing", "queues"), ("copy", True), ("computing", "mark")]
    made = copies_for(torch.device("cuda", 0))
    assert isinstance(made, subject.Copies)
