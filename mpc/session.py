"""Drivers: carry a step's exchanges out, over a transport or, for tests, in lockstep inside one thread."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from hush.mpc.copies import Copies, copies_for
from hush.mpc.cost import FRAME_HEADER, Cost, Traffic
from hush.mpc.errors import AbortReason, PartyError
from hush.mpc.step import Received, Round, Spec, Step
from hush.mpc.transport import Buffer, Neighbour, Transport

T = TypeVar("T")
_HEADER = struct.Struct("<IIQ")


@dataclass(slots=True)
class Ledger:
    """What one party sent, counted where it is handed to the transport, and its depth stamp."""

    bytes_sent: int = 0
    messages: int = 0
    depth: int = 0
    sequence: dict[str, int] = field(default_factory=lambda: {"next": 0, "prev": 0, "from next": 0, "from prev": 0})

    def snapshot(self) -> tuple[int, int, int]:
        """(bytes sent, messages, depth) so far."""
        return self.bytes_sent, self.messages, self.depth


def trio_cost(ledgers: Sequence[Ledger]) -> Cost:
    """Measured cost of a run from the three parties' ledgers."""
    a, b, c = ledgers
    return Cost(
        max(a.depth, b.depth, c.depth),
        (a.bytes_sent, b.bytes_sent, c.bytes_sent),
        (a.messages, b.messages, c.messages),
    )


def _raw(tensor: Tensor) -> memoryview:
    flat = tensor.detach().contiguous().cpu().reshape(-1)
    return flat.view(torch.uint8).numpy().data


_MAIN = torch.device("cpu")
_SIDES: tuple[Neighbour, Neighbour] = ("next", "prev")


def run(
    step: Step[T], transport: Transport, ledger: Ledger, device: torch.device = _MAIN, copies: Copies | None = None
) -> T:
    """Run one party's step to its end over a transport. What arrives is put on the device that the step computes on.

    `copies`: how messages go to and from a GPU; by default such are made for this run.
    """
    copies = copies or copies_for(device)
    answer: Received | None = None
    while True:
        try:
            wanted: Round = step.send(answer)
        except StopIteration as stop:
            value: T = stop.value
            return value
        _send_round(transport, ledger, wanted, copies)
        from_next = _receive(transport, ledger, "next", wanted.from_next, device, copies)
        from_prev = _receive(transport, ledger, "prev", wanted.from_prev, device, copies)
        answer = Received(from_next, from_prev)


def _send_round(transport: Transport, ledger: Ledger, wanted: Round, copies: Copies | None) -> None:
    stamp, messages = ledger.depth + 1, (wanted.to_next, wanted.to_prev)
    copied = None if copies is None else copies.outgoing(messages)
    for side, to in enumerate(_SIDES):
        buffers = [_raw(t) for t in messages[side] if t.numel()] if copied is None else copied[side]
        _send(transport, ledger, to, buffers, stamp)


def _send(transport: Transport, ledger: Ledger, to: Neighbour, buffers: Sequence[Buffer], stamp: int) -> None:
    size = sum(len(b) for b in buffers)
    if not size:
        return
    header = _HEADER.pack(stamp & 0xFFFFFFFF, ledger.sequence[to], size)
    ledger.sequence[to] += 1
    ledger.bytes_sent += size + FRAME_HEADER
    ledger.messages += 1
    transport.send(to, [header, *buffers])


def _receive(
    transport: Transport,
    ledger: Ledger,
    source: Neighbour,
    specs: tuple[Spec, ...],
    device: torch.device,
    copies: Copies | None,
) -> tuple[Tensor, ...]:
    size = sum(s.nbytes for s in specs)
    if not size:
        return tuple(torch.empty(s.shape, dtype=s.dtype, device=device) for s in specs)
    frame = transport.receive(source, size + FRAME_HEADER)
    stamp, sequence, length = _HEADER.unpack(frame[:FRAME_HEADER])
    due = ledger.sequence[f"from {source}"]
    if length != size or sequence != due:
        neighbour = (transport.party + (1 if source == "next" else -1)) % 3
        raise PartyError(neighbour, AbortReason.MALFORMED, "frame out of order or of the wrong size")
    ledger.sequence[f"from {source}"] += 1
    ledger.depth = max(ledger.depth, stamp)
    payload = frame[FRAME_HEADER:]
    if copies is not None:
        return copies.incoming(payload, specs)
    return tuple(t.to(device, non_blocking=True) for t in _split(payload, specs))


def _split(payload: memoryview, specs: tuple[Spec, ...]) -> tuple[Tensor, ...]:
    tensors, start = [], 0
    for spec in specs:
        piece = payload[start : start + spec.nbytes]
        start += spec.nbytes
        if not spec.nbytes:
            tensors.append(torch.empty(spec.shape, dtype=spec.dtype))
            continue
        if piece.readonly:  # torch wants a writable buffer, and received tensors may be updated in place
            piece = memoryview(bytearray(piece))
        tensors.append(torch.frombuffer(piece, dtype=torch.uint8).view(spec.dtype).reshape(spec.shape))
    return tuple(tensors)


def simulate(steps: Sequence[Step[T]]) -> tuple[list[T], list[Traffic]]:
    """Run three parties' steps in lockstep in this thread. Returns their results and the traffic of each round."""
    results: list[T | None] = [None] * 3
    traffic: list[Traffic] = []
    answers: list[Received | None] = [None] * 3
    while True:
        rounds: list[Round] = []
        for party, step in enumerate(steps):
            try:
                rounds.append(step.send(answers[party]))
            except StopIteration as stop:
                results[party] = stop.value
        if not rounds:
            return results, traffic  # type: ignore[return-value]
        if len(rounds) != 3:
            raise AssertionError("parties disagree on the number of rounds")
        answers = [_deliver(rounds, party) for party in range(3)]
        sizes = [(_nbytes(r.to_next), _nbytes(r.to_prev)) for r in rounds]
        traffic.append(Traffic((sizes[0], sizes[1], sizes[2])))


def _nbytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _deliver(rounds: list[Round], party: int) -> Received:
    own, after, before = rounds[party], rounds[(party + 1) % 3], rounds[(party - 1) % 3]
    _check(own.from_next, after.to_prev)
    _check(own.from_prev, before.to_next)
    return Received(tuple(t.clone() for t in after.to_prev), tuple(t.clone() for t in before.to_next))


def _check(specs: tuple[Spec, ...], tensors: tuple[Tensor, ...]) -> None:
    due = [(tuple(s.shape), s.dtype) for s in specs]
    came = [(tuple(t.shape), t.dtype) for t in tensors]
    if due != came:
        raise AssertionError(f"awaited {due}, was sent {came}")
