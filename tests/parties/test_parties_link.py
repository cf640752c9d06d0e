"""Links: agreed keys, frames of every size, failures that name the neighbour, and the modelled networks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from parties_harness import LinkEnd, at_once, link_ends, terms, write_trio

from hush.mpc.errors import AbortReason, DeadlineExceeded, PartyError, PartyUnreachable
from hush.mpc.session import Ledger, run, trio_cost
from hush.mpc.step import Round, Spec, Step
from hush.mpc.transport import Transport, memory_trio
from hush.parties import certs, config, tls
from hush.parties.link import Joined, dial
from hush.parties.shaping import NETS, Net, Shaped, shape
from hush.parties.wire import CHUNK, Tag, chunks
from hush.proto.party_pb2 import Confirm, Hello


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trio(tmp_path_factory.mktemp("links"))


@pytest.fixture(scope="module")
def ends(folder: Path) -> Iterator[list[LinkEnd]]:
    with link_ends(folder) as found:
        yield found


@pytest.fixture
def joined(ends: list[LinkEnd], request: pytest.FixtureRequest) -> Iterator[list[Joined]]:
    agreed = terms(request.node.name.encode()[:16].ljust(16, b"."))
    made = at_once(*(lambda e=e: e.join(agreed) for e in ends))
    assert all(isinstance(j, Joined) for j in made), made
    yield made
    hang_up(made)


def hang_up(made: list[Joined]) -> None:
    for j in made:
        j.transport.close()
    for j in made:
        j.transport.join()


def pass_around(index: int, sizes: tuple[int, ...]) -> Step[list[int]]:
    """Each round sends a tensor to the next party and another to the previous; returns the sums of what arrived."""
    sums = []
    for size in sizes:
        mine = torch.arange(size) + 1000 * index
        due = Spec((size,), torch.int64)
        got = yield Round((mine,), (-mine,), (due,), (due,))
        sums += [int(got.from_next[0].sum()), int(got.from_prev[0].sum())]
    return sums


SIZES = (1, 3, CHUNK // 8 - 3, CHUNK // 8 - 2, CHUNK // 8, 3 * CHUNK // 8 + 5)


def run_all(transports: list[Transport]) -> tuple[list[list[int]], object]:
    ledgers = [Ledger() for _ in range(3)]
    results = at_once(*(lambda i=i: run(pass_around(i, SIZES), transports[i], ledgers[i]) for i in range(3)))
    return results, trio_cost(ledgers)


def test_grpc_and_memory_carry_the_same(joined: list[Joined]) -> None:
    over_grpc = run_all([j.transport for j in joined])
    assert over_grpc == run_all(list(memory_trio()))
    assert over_grpc[0][0][:2] == [-1000, 2000]


def test_pairs_share_streams_that_nobody_else_has(joined: list[Joined]) -> None:
    draws = [(j.with_next.planes(1, 8), j.with_prev.planes(1, 8)) for j in joined]
    for i in range(3):
        assert torch.equal(draws[i][0], draws[(i + 1) % 3][1])
    assert len({tuple(d[0].flatten().tolist()) for d in draws}) == 3


def test_keys_are_new_in_every_session_even_of_the_same_name(ends: list[LinkEnd]) -> None:
    drawn = []
    for _ in range(2):
        made = at_once(*(lambda e=e: e.join(terms(b"again".ljust(16)))  for e in ends))  # fmt: skip
        drawn.append([tuple(j.with_next.planes(1, 8).flatten().tolist()) for j in made])
        hang_up(made)
    assert not set(drawn[0]) & set(drawn[1])


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("roster", AbortReason.ROSTER),
        ("program", AbortReason.DIGEST),
        ("deployment", AbortReason.UNKNOWN_MODEL),
        ("client", AbortReason.MALFORMED),
    ],
)
def test_parties_that_disagree_do_not_join(ends: list[LinkEnd], field: str, reason: AbortReason) -> None:
    session = field.encode().ljust(16)
    agreed = [terms(session), terms(session), terms(session, **{field: b"other"})]
    outcomes = at_once(*(lambda e=e, t=t: e.join(t) for e, t in zip(ends, agreed, strict=True)))
    assert all(isinstance(o, PartyError) for o in outcomes), outcomes
    assert any(o.reason is reason for o in outcomes), outcomes


def test_a_frame_of_the_wrong_size_is_refused(joined: list[Joined]) -> None:
    joined[0].transport.send("next", [b"12345678"])
    with pytest.raises(PartyError) as caught:
        joined[1].transport.receive("prev", 7)
    assert (caught.value.party, caught.value.reason) == (0, AbortReason.MALFORMED)


def test_an_abort_carries_the_blame_to_both_neighbours(joined: list[Joined]) -> None:
    joined[0].transport.abort(PartyError(1, AbortReason.DEADLINE))
    for index, source in ((1, "prev"), (2, "next")):
        with pytest.raises(PartyError) as caught:
            joined[index].transport.receive(source, 1)  # type: ignore[arg-type]
        assert (caught.value.party, caught.value.reason) == (1, AbortReason.DEADLINE)


def test_what_was_sent_before_an_abort_still_arrives(joined: list[Joined]) -> None:
    joined[0].transport.send("next", [b"last words"])
    joined[0].transport.close()
    assert bytes(joined[1].transport.receive("prev", 10)) == b"last words"
    with pytest.raises(PartyError, match="party 0: session closed"):
        joined[1].transport.receive("prev", 10)


def test_silence_ends_at_the_deadline(folder: Path, tmp_path: Path) -> None:
    with link_ends(write_trio(tmp_path / "t"), deadline=1.0) as ends:
        made = at_once(*(lambda e=e: e.join(terms()) for e in ends))
        with pytest.raises(DeadlineExceeded) as caught:
            made[0].transport.receive("next", 8)
        assert caught.value.party == 1
        hang_up(made)


def test_a_party_that_is_not_there_is_named_with_its_address(tmp_path: Path) -> None:
    with link_ends(write_trio(tmp_path / "t"), deadline=5.0) as ends:
        ends[1].server.stop(0).wait()
        with pytest.raises(PartyUnreachable, match=ends[0].config.parties[1]) as caught:
            ends[0].join(terms())
        assert caught.value.party == 1


def test_unix_sockets_carry_tls_too(tmp_path: Path) -> None:
    folder = write_trio(tmp_path / "t", [f"unix:{tmp_path}/p{i}" for i in range(3)])
    with link_ends(folder) as ends:
        made = at_once(*(lambda e=e: e.join(terms()) for e in ends))
        assert run_all([j.transport for j in made]) == run_all(list(memory_trio()))
        hang_up(made)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, LinkEnd]]:
    folder = write_trio(tmp_path_factory.mktemp("guarded"))
    end = LinkEnd(config.load_party(folder / "party1.toml"), 2.0)
    yield folder, end
    end.stop()


@pytest.mark.parametrize("who", ["party 0", "client", "of another authority", "expired"])
def test_only_this_authoritys_parties_may_open_links(guarded: tuple[Path, LinkEnd], tmp_path: Path, who: str) -> None:
    folder, end = guarded
    authority = certs.Authority.load(folder)
    if who == "of another authority":
        authority = certs.Authority.create(1)
    role = certs.Role("client", "client") if who == "client" else certs.Role("party", "0")
    start = datetime.now(UTC) - timedelta(days=2) if who == "expired" else None
    pem, key = authority.issue(role, 1, start)
    identity = certs.Identity(role, (folder / "ca.pem").read_bytes(), pem, key)
    address = end.config.parties[1]
    channel = tls.channel(address, 1, identity, max_message=1 << 20, deadline=10.0)
    end.callers.clear()
    wire = dial(channel, 1, address, Hello(party=0), 10.0)
    with pytest.raises(PartyError) as caught:
        wire.take(Tag.CONFIRM, Confirm)
    channel.close()
    assert caught.value.party == 1
    assert end.callers == ([0] if who == "party 0" else [])


@pytest.mark.parametrize("sizes", [(1,), (CHUNK - 1,), (CHUNK,), (16, CHUNK), (16, 3 * CHUNK, 5), (CHUNK - 17, 16)])
def test_chunks_keep_every_byte(sizes: tuple[int, ...]) -> None:
    buffers = [bytes([i + 1]) * n for i, n in enumerate(sizes)]
    messages = list(chunks(buffers))
    assert b"".join(m[1:] for m in messages) == b"".join(buffers)
    assert max(map(len, messages)) <= CHUNK


def test_a_shaped_link_is_late_by_bandwidth_and_half_a_round_trip() -> None:
    trio = memory_trio()
    slow = Shaped(trio[0], Net(bandwidth=8e6, round_trip=0.1))
    begin = time.monotonic()
    slow.send("next", [bytes(100_000)])
    slow.send("next", [bytes(50_000)])
    for size, due in ((100_000, 0.15), (50_000, 0.20)):
        trio[1].receive("prev", size)
        assert time.monotonic() - begin >= due
    slow.close()


def test_shaping_adds_no_bytes_and_delivers_before_an_orderly_end() -> None:
    plain, shaped = list(memory_trio()), [shape(t, "lan") for t in memory_trio()]
    assert run_all(shaped) == run_all(plain)
    assert set(NETS) == {"lan", "wan"}
    for transport in shaped:
        transport.close()
