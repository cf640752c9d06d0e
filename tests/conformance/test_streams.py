"""No keystream is drawn twice: not in a session, not after a restart, not in a session that is tried again.

Every use of the cipher is written down where it happens. Each (key, nonce) may occur twice in all: once at either
holder.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from typing import Any

import pytest

from hush.mpc import prg
from hush.mpc.errors import AbortReason, PartyError
from hush.mpc.ring import RING64
from hush.mpc.session import simulate
from hush.mpc.step import Step
from hush.parties.keys import Agreement, Terms
from hush.protocols.replicated.invocation import invocation
from tests.conformance.harness import Case, Setting, share
from tests.conformance.rows import ROWS
from tests.support.trio import Trio, party_step

Use = tuple[bytes, bytes, int]  # key, nonce, bytes


@pytest.fixture
def uses(monkeypatch: pytest.MonkeyPatch) -> list[Use]:
    """Every keystream made from here on."""
    seen: list[Use] = []
    real = prg.keystream

    def recorded(key: bytes, nonce: bytes, nbytes: int) -> Any:
        seen.append((key, nonce, nbytes))
        return real(key, nonce, nbytes)

    monkeypatch.setattr(prg, "keystream", recorded)
    return seen


def _agreed_keys(terms: Terms) -> list[bytes]:
    """The three pairs' stream keys, as parties agree on them in a session."""
    keys = []
    for i in range(3):
        ends = [Agreement(p, bytes([p]) * 32, terms) for p in (i, (i + 1) % 3)]
        hellos = [end.hello() for end in ends]
        mine = ends[0].agree(hellos[1], (i + 1) % 3)
        theirs = ends[1].agree(hellos[0], i)
        assert mine.stream == theirs.stream
        keys.append(mine.stream)
    return keys


def _terms() -> Terms:
    return Terms(os.urandom(16), b"roster", b"program", b"deployment", b"client")


def _case(name: str, seed: int) -> Case:
    return ROWS[name].make(Setting(RING64, 18, (65,), seed))


def _invoke(trio: Trio, names: list[str], seed: int) -> None:
    """One invocation that runs some rows of the table one after the other."""
    cases = [_case(name, seed) for name in names]
    handles = [share(trio, case) for case in cases]

    def program(index: int) -> Any:
        def body() -> Any:
            for case, given in zip(cases, handles, strict=True):
                yield from party_step(trio, case.program, index, given)

        return invocation(trio.parties[index], [], body)

    simulate([program(i) for i in range(3)])


def _once_at_each_holder(uses: list[Use]) -> set[tuple[bytes, bytes]]:
    """Checks the law over all uses so far; returns the (key, nonce) pairs."""
    times = Counter((key, nonce) for key, nonce, _ in uses)
    sizes = {(key, nonce, nbytes) for key, nonce, nbytes in uses}
    assert set(times.values()) == {2}, "a keystream that was not drawn exactly once by each of two holders"
    assert len(sizes) == len(times), "holders that took different amounts of one keystream"
    return set(times)


NAMES = [name for name, r in ROWS.items() if 64 in r.rings]


def test_every_row_in_several_invocations_draws_anew(uses: list[Use]) -> None:
    trio = Trio(keys=_agreed_keys(_terms()))
    for seed in (1, 1, 2):  # the same inputs again as well
        _invoke(trio, NAMES, seed)
    pairs = _once_at_each_holder(uses)
    assert len({key for key, _ in pairs}) == 3
    assert len(pairs) > 3 * len(NAMES)


def test_a_session_after_a_restart_has_other_keys(uses: list[Use]) -> None:
    """The same terms, session id included: ephemeral keys make all the difference."""
    terms = _terms()
    first = _agreed_keys(terms)
    _invoke(Trio(keys=first), ["mul", "negative"], 1)
    again = _agreed_keys(terms)
    assert not set(first) & set(again)
    _invoke(Trio(keys=again), ["mul", "negative"], 1)
    assert len({key for key, _ in _once_at_each_holder(uses)}) == 6


def _cut_off(step: Step[Any], rounds: int) -> Step[Any]:
    """The step until its neighbour is lost, after so many rounds."""
    answer: Any = None
    for _ in range(rounds):
        answer = yield step.send(answer)
    raise PartyError(None, AbortReason.DISCONNECTED)


def test_a_session_tried_again_after_a_failure_makes_no_mask_twice(uses: list[Use]) -> None:
    """The parties compare inputs, draw and send; then one is lost, and the client opens a new session."""
    terms = _terms()
    trio, case = Trio(keys=_agreed_keys(terms)), _case("matmul", 1)
    handles = share(trio, case)
    steps = [
        _cut_off(invocation(trio.parties[i], [], partial(party_step, trio, case.program, i, handles)), 2)
        for i in range(3)
    ]
    with pytest.raises(PartyError):
        simulate(steps)
    failed = {(key, nonce) for key, nonce, _ in uses}
    assert len(failed) >= 3
    uses.clear()
    _invoke(Trio(keys=_agreed_keys(terms)), ["matmul"], 1)
    assert not failed & _once_at_each_holder(uses)


def test_the_record_notices_a_repeated_draw(uses: list[Use]) -> None:
    """A session resumed under its old keys would be found."""
    keys = _agreed_keys(_terms())
    for _ in range(2):
        _invoke(Trio(keys=keys), ["mul"], 1)
    with pytest.raises(AssertionError, match="exactly once"):
        _once_at_each_holder(uses)
