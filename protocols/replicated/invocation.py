"""The frame around one run of a program: equal inputs before it, equal counters after it.

These checks catch a client that deals unequal copies, and parties whose randomness ran apart. They do not make the
protocol secure against a party that departs from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

from hush.mpc.errors import AbortReason, PartyError
from hush.mpc.points import Points
from hush.mpc.prg import Stream
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.step import Received, Round, Spec, Step
from hush.protocols.replicated.party import Party

T = TypeVar("T")
DIGEST_BYTES = 32
POSITION_BYTES = 8
_DIGEST = Spec((DIGEST_BYTES,), torch.uint8)
_POSITION = Spec((POSITION_BYTES,), torch.uint8)


def invocation(
    party: Party, inputs: Iterable[Shared | SharedBits | Points], program: Callable[[], Step[T]], request: bytes = b""
) -> Step[T]:
    """Run a program in an invocation of its own. `request`: what was asked for, in public, which all must have alike.

    1. Both streams enter their next invocation: no mask of an earlier run is drawn again.
    2. `agree_on_inputs` (1 round). 3. The program. 4. `agree_on_counters` (1 round).
    """
    for stream in streams(party):
        stream.next_invocation()
    yield from agree_on_inputs(party, inputs, request)
    result = yield from program()
    yield from agree_on_counters(party)
    return result


def agree_on_inputs(party: Party, inputs: Iterable[Shared | SharedBits | Points], request: bytes = b"") -> Step[None]:
    """Compare SHA-256 over the two copies of every input component; PartyError(INPUT) if they differ.

    1. Party i sends the digest of all its x_i to party i-1, that of all its x_{i+1} to party i+1: 32 bytes each. Both
       cover the request, and of keys (`Points`) their number only: no two parties have a key in common.

    Views: digests of components that the receiver holds itself, unless whoever dealt them cheated. Rounds 1; 64 bytes a
    party. The error names the neighbour whose copy differs; if all parties are honest the dealer is at fault.
    """
    own, following = hashlib.sha256(request), hashlib.sha256(request)
    for value in inputs:
        header = repr((type(value).__name__, tuple(value.shape), _kind(value))).encode()
        for digest, part in zip((own, following), value.parts, strict=True):
            digest.update(header)
            if isinstance(value, Points):
                continue
            digest.update(part.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)
    answer = yield _both_ways(_tensor(following.digest()), _tensor(own.digest()), _DIGEST)
    _compare(party, answer, following.digest(), own.digest(), AbortReason.INPUT)


def agree_on_counters(party: Party) -> Step[None]:
    """Compare the positions of the pairwise streams; PartyError(COUNTERS) if they differ.

    1. Each party sends each neighbour the (invocation, draws) of the stream that they share: 8 bytes.

    Views: public counts. Rounds 1; 16 bytes a party.
    """
    following, own = (_position(stream) for stream in streams(party))
    answer = yield _both_ways(_tensor(following), _tensor(own), _POSITION)
    _compare(party, answer, following, own, AbortReason.COUNTERS)


def streams(party: Party) -> tuple[Stream, Stream]:
    """The streams shared with the next and the previous party, which must count."""
    pair = party.with_next, party.with_prev
    if not isinstance(pair[0], Stream) or not isinstance(pair[1], Stream):
        raise TypeError("an invocation needs counted streams (hush.mpc.prg.Stream) at the party")
    return pair[0], pair[1]


def _kind(value: Shared | SharedBits | Points) -> tuple[int, ...]:
    if isinstance(value, Points):
        return (value.classes,)
    return (value.frac, value.ring.bits) if isinstance(value, Shared) else (value.planes,)


def _position(stream: Stream) -> bytes:
    return b"".join(count.to_bytes(4, "little") for count in stream.position)


def _tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _both_ways(to_next: Tensor, to_prev: Tensor, spec: Spec) -> Round:
    return Round((to_next,), (to_prev,), (spec,), (spec,))


def _compare(party: Party, answer: Received, following: bytes, own: bytes, reason: AbortReason) -> None:
    """What the next party sent must equal `following`, what the previous one sent `own`."""
    came = torch.cat([answer.from_next[0], answer.from_prev[0]]).cpu().numpy().tobytes()  # of a GPU, one wait for both
    for step, found, due in ((1, came[: len(following)], following), (-1, came[len(following) :], own)):
        if found != due:
            raise PartyError((party.index + step) % 3, reason, f"differs from party {party.index}'s")
