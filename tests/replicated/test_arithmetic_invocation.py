"""The frame of an invocation: fresh randomness, equal inputs, equal counters."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hush.mpc.errors import AbortReason, PartyError
from hush.mpc.prg import Stream
from hush.mpc.session import simulate
from hush.mpc.step import Step
from hush.protocols.replicated import costs
from hush.protocols.replicated.invocation import agree_on_counters, agree_on_inputs, invocation
from hush.protocols.replicated.zero import zero
from tests.support.trio import Trio


def framed(trio: Trio, secret: list, times: int = 1) -> tuple[list, list]:
    """Run x * x in an invocation at each party."""

    def program(index: int) -> Step[object]:
        protocol, result = trio.protocols[index], None
        for _ in range(times):
            body = lambda: protocol.mul(secret[index], secret[index])  # noqa: E731
            result = yield from invocation(protocol.party, [secret[index]], body)
        return result

    return simulate([program(i) for i in range(3)])


def test_the_frame_adds_its_two_rounds_to_the_program() -> None:
    trio = Trio()
    x = trio.share(torch.tensor([1.5, -2.0]))
    product, traffic = framed(trio, x)
    assert torch.allclose(trio.reveal(product), torch.tensor([2.25, 4.0], dtype=torch.float64), atol=2.0**-17)
    body = trio.predict(lambda p, a: p.mul(a, a), x)
    assert traffic == [*costs.invocation_before(), *body, *costs.invocation_after()]


def test_every_invocation_draws_from_a_space_of_its_own() -> None:
    trio = Trio()
    framed(trio, trio.share(torch.ones(3)), times=2)
    for party in trio.parties:
        assert isinstance(party.with_next, Stream)
        assert party.with_next.position[0] == 2
    before = zero(trio.parties[0], 4, trio.ring)
    for stream in (trio.parties[0].with_next, trio.parties[0].with_prev):
        assert isinstance(stream, Stream)
        stream.next_invocation()
    assert not torch.equal(before, zero(trio.parties[0], 4, trio.ring))


@pytest.mark.parametrize("party", range(3))
@pytest.mark.parametrize("part", range(2))
def test_unequal_copies_of_an_input_end_the_session(party: int, part: int) -> None:
    trio = Trio()
    x, bits = trio.share(torch.ones(2, 3)), trio.share_bits(torch.ones(1, 5, dtype=torch.int64))
    parts = [p.clone() for p in x[party].parts]
    parts[part].view(-1)[5] ^= 1
    x[party] = replace(x[party], parts=tuple(parts))
    neighbour = (party + (1 if part else -1)) % 3
    steps = [agree_on_inputs(trio.parties[i], [bits[i], x[i]]) for i in range(3)]
    with pytest.raises(PartyError) as caught:
        simulate(steps)
    assert caught.value.reason is AbortReason.INPUT
    assert caught.value.party in (party, neighbour)


@pytest.mark.parametrize("change", ["shape", "frac", "count"])
def test_inputs_of_unequal_kind_end_the_session(change: str) -> None:
    trio = Trio()
    x = [[s] for s in trio.share(torch.ones(6))]
    own = x[1][0]
    x[1] = {"shape": [own.reshape(2, 3)], "frac": [own.with_frac(3)], "count": [own, own]}[change]
    with pytest.raises(PartyError, match="input rejected"):
        simulate([agree_on_inputs(trio.parties[i], x[i]) for i in range(3)])


def test_equal_inputs_pass_whatever_their_memory_layout() -> None:
    trio = Trio()
    x = trio.share(torch.arange(6.0).reshape(2, 3))
    x[0] = x[0].local(lambda t: t.t().contiguous().t())
    _, traffic = simulate([agree_on_inputs(trio.parties[i], [x[i]]) for i in range(3)])
    assert traffic == costs.invocation_before()


def test_counters_that_ran_apart_end_the_session() -> None:
    trio = Trio()
    trio.parties[2].with_next.elements((1,), trio.ring)
    with pytest.raises(PartyError) as caught:
        simulate([agree_on_counters(party) for party in trio.parties])
    assert caught.value.reason is AbortReason.COUNTERS
    assert caught.value.party in (0, 2)
