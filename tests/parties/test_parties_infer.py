"""Deploying and inferring through three real processes over mutual TLS: answers, exact costs, harmless refusals."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
import torch
from torch import Tensor, nn

import hush
from hush.mpc.compiler import Program, compile_module
from hush.mpc.errors import AbortReason, PartyError, ProgramError, RangeError, ShapeError
from hush.parties import certs, health, shares, tls
from hush.parties.client import Client, connect, connect_async, deploy, remove
from hush.parties.config import ClientConfig, Limits, TlsFiles
from hush.parties.cost import predicted
from hush.parties.local import LocalTrio
from hush.parties.remote import Session
from hush.parties.threads import ThreadTrio

BOUND = 2e-3


class Net(nn.Module):
    """A small network with a nested result and a leaf that is None."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor, scale: float = 1.0) -> dict[str, Any]:
        hidden = torch.relu(self.first(x)) * scale
        return {"out": self.second(hidden), "hidden": (hidden, None)}


X = torch.linspace(-2, 2, 24).reshape(3, 8)


@pytest.fixture(scope="module")
def program() -> Program:
    return compile_module(Net(), (X,), ranges={"x": 4.0})


@pytest.fixture(scope="module")
def trio(program: Program) -> Iterator[LocalTrio]:
    with LocalTrio(limits=Limits(max_sessions=3, deadline_s=20, max_message_mib=2), threads=1) as made:
        deploy(program, made.provider_config, "net")
        yield made


@pytest.fixture
def client(trio: LocalTrio) -> Iterator[Client]:
    with connect(trio.config) as made:
        yield made


def close(found: Any, module: nn.Module = Net(), x: Tensor = X) -> bool:  # noqa: B008
    with torch.no_grad():
        due = module(x)
    same = torch.allclose(found["out"], due["out"], atol=BOUND) and found["hidden"][1] is None
    return same and torch.allclose(found["hidden"][0], due["hidden"][0], atol=BOUND)


def test_the_answer_is_the_modules_in_its_nesting(client: Client) -> None:
    for shift in (0.0, 1.0):
        assert close(client.infer("net", X + shift), x=X + shift)


def test_grpc_memory_and_prediction_cost_the_same(client: Client, program: Program) -> None:
    client.infer("net", X)
    over_grpc = client.last_report
    with ThreadTrio(program) as threads:
        in_memory = threads.infer((X,))
    assert close(in_memory.output)
    assert over_grpc is not None
    assert over_grpc.cost == in_memory.report.cost == predicted(program)
    assert over_grpc.client_bytes == in_memory.report.client_bytes
    rows = [
        [(r.name, r.bytes_sent, r.messages, r.rounds) for r in report.layers]
        for report in (over_grpc, in_memory.report)
    ]
    assert rows[0] == rows[1]
    assert sum(r.rounds for r in over_grpc.layers) == over_grpc.cost.rounds
    measured = {r.name: (r.rounds, r.bytes_sent) for r in over_grpc.layers}
    assert measured == {n: (c.rounds, c.bytes_sent) for n, c in program.layer_costs.items()}


def test_progress_names_the_layers(client: Client) -> None:
    seen: list[str] = []
    client.run("net", (X,), progress=seen.append)
    assert {"first", "second"} <= set(seen)


def test_public_weights(trio: LocalTrio, client: Client) -> None:
    public = compile_module(Net(1), (X,), weights="public", ranges={"x": 4.0})
    deploy(public, trio.provider_config, "public")
    assert close(client.infer("public", X), Net(1))
    assert client.last_report is not None
    assert client.last_report.cost == predicted(public)


def test_a_module_is_deployed_with_an_example_and_replaced_and_removed(trio: LocalTrio) -> None:
    for seed in (2, 3):
        hush.deploy(Net(seed), trio.provider_config, "replaced", args=(X,))
        with hush.connect(trio.config) as client:
            assert close(client.infer("replaced", X), Net(seed))
    assert remove(trio.provider_config, "replaced")
    assert not remove(trio.provider_config, "replaced")
    with hush.connect(trio.config) as client:
        assert "replaced" not in [m.name for m in client.models()]
        with pytest.raises(PartyError, match="'replaced' is not deployed; it has"):
            client.infer("replaced", X)


def test_the_asynchronous_client_is_the_same(trio: LocalTrio) -> None:
    async def ask() -> Any:
        async with await connect_async(trio.config) as client:
            answer = await client.infer("net", X)
            return answer, await client.models(), client.last_report

    answer, models, report = asyncio.run(ask())
    assert close(answer)
    assert "net" in [m.name for m in models]
    assert report is not None


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (torch.zeros(3, 7), ShapeError, "compiled for"),
        (torch.full((3, 8), float("nan")), RangeError, "NaN"),
        (torch.full((3, 8), 1e6), RangeError, "exceeds the compiled range"),
        (torch.zeros(3, 8, dtype=torch.int64), ShapeError, "dtype"),
    ],
)
def test_bad_input_stays_at_the_client(client: Client, bad: Tensor, error: type[Exception], message: str) -> None:
    client.infer("net", X)
    session = client.session("net")
    with pytest.raises(error, match=message):
        client.infer("net", bad)
    assert close(client.infer("net", X))
    assert client.session("net") is session


def test_another_program_is_refused_by_its_digest(client: Client) -> None:
    client.use("net", compile_module(Net(), (torch.cat([X, X]),)))
    with pytest.raises(PartyError) as caught:
        client.infer("net", torch.cat([X, X]))
    assert caught.value.reason is AbortReason.DIGEST
    assert caught.value.party in (0, 1, 2)


def test_another_roster_is_refused(trio: LocalTrio, program: Program) -> None:
    swapped = trio.config.model_copy(update={"parties": (*trio.addresses[:2], trio.addresses[2] + "x")})
    with connect(trio.config) as client:
        client._parties.roster = swapped.roster()  # a client that was given another list
        with pytest.raises(PartyError) as caught:
            client.infer("net", X)
    assert caught.value.reason is AbortReason.ROSTER


def test_a_client_whose_copies_differ_is_refused_and_parties_serve_on(
    trio: LocalTrio, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = shares.share

    def cheat(*args: Any) -> list[list[Any]]:
        frames = honest(*args)
        frames[0][1] = os.urandom(32)  # party 0's copy of component 1 is not party 1's
        return frames

    monkeypatch.setattr(shares, "share", cheat)
    with pytest.raises(PartyError) as caught:
        client.infer("net", X)
    assert caught.value.reason is AbortReason.INPUT
    monkeypatch.undo()
    assert close(client.infer("net", X))


def test_frames_of_the_wrong_size_are_refused_and_parties_serve_on(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = shares.share
    monkeypatch.setattr(shares, "share", lambda *a: [[*f, b"more"] for f in honest(*a)])
    with pytest.raises(PartyError) as caught:
        client.infer("net", X)
    assert caught.value.reason is AbortReason.MALFORMED
    monkeypatch.undo()
    assert close(client.infer("net", X))


def test_one_session_too_many_is_refused(trio: LocalTrio) -> None:
    clients = [connect(trio.config) for _ in range(4)]
    try:
        for one in clients[:3]:
            assert close(one.infer("net", X))
        with pytest.raises(PartyError, match="3 sessions are open here") as caught:
            clients[3].infer("net", X)
        assert caught.value.reason is AbortReason.LIMIT
        clients[0].close()
        assert close(eventually(lambda: clients[3].infer("net", X)))
    finally:
        for one in clients:
            one.close()


def eventually(job: Any, tries: int = 50) -> Any:
    """A party notices within moments that a session has ended."""
    import time

    for _ in range(tries - 1):
        try:
            return job()
        except PartyError:
            time.sleep(0.1)
    return job()


def test_a_message_over_the_limit_is_refused_and_parties_serve_on(trio: LocalTrio, client: Client) -> None:
    channel = raw_channel(trio, "client")
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/hush.Party/Info")(bytes(3 << 20), timeout=20)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    channel.close()
    assert close(client.infer("net", X))


def raw_channel(trio: LocalTrio, kind: str, party: int = 0) -> grpc.Channel:
    identity = ClientConfig(parties=trio.addresses, tls=trio._tls(kind)).identity(kind)
    return tls.channel(trio.addresses[party], party, identity, max_message=1 << 20, deadline=10)


@pytest.mark.parametrize(
    ("kind", "method"), [("client", "Deploy"), ("client", "Link"), ("provider", "Session"), ("provider", "Link")]
)
def test_each_call_is_for_its_role(trio: LocalTrio, kind: str, method: str) -> None:
    channel = raw_channel(trio, kind)
    with pytest.raises(grpc.RpcError) as caught:
        list(channel.stream_stream(f"/hush.Party/{method}")(iter([b"x"]), timeout=20))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    channel.close()


def test_a_client_of_another_authority_gets_nothing(trio: LocalTrio, tmp_path: Any) -> None:
    certs.create(tmp_path, days=1)
    files = TlsFiles(authority=tmp_path / "ca.pem", certificate=tmp_path / "client.pem", key=tmp_path / "client.key")
    with (
        connect(ClientConfig(parties=trio.addresses, tls=files, deadline_s=5)) as stranger,
        pytest.raises(PartyError, match="party 0"),
    ):
        stranger.models()


def test_the_program_that_a_party_sends_must_have_its_digest(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client._parties, "program", lambda party, digest: b"another")
    with pytest.raises(PartyError) as caught:
        client.program("net")
    assert (caught.value.party, caught.value.reason) == (0, AbortReason.DIGEST)


def test_a_provider_whose_copies_differ_deploys_nothing(
    trio: LocalTrio, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = shares.weight_frames

    def cheat(*args: Any) -> Iterator[Any]:
        for frames in honest(*args):
            frames[0][1] = os.urandom(32)
            yield frames

    monkeypatch.setattr(shares, "weight_frames", cheat)
    with pytest.raises(PartyError) as caught:
        deploy(program, trio.provider_config, "uneven")
    assert caught.value.reason is AbortReason.DIGEST
    monkeypatch.undo()
    with connect(trio.config) as client:
        assert "uneven" not in [m.name for m in client.models()]
    deploy(program, trio.provider_config, "uneven")
    assert remove(trio.provider_config, "uneven")


def test_a_program_without_weights_cannot_be_deployed(trio: LocalTrio, program: Program) -> None:
    with pytest.raises(ProgramError, match="bind it"):
        deploy(replace(program, weights=None), trio.provider_config, "empty")
    with pytest.raises(ProgramError, match="example call"):
        deploy(Net(), trio.provider_config, "uncompiled")


def test_parties_say_how_they_are(trio: LocalTrio) -> None:
    assert all(a.well for a in health.check(trio.config))
    away = trio.config.model_copy(update={"parties": (*trio.addresses[:2], "127.0.0.1:1")})
    answers = health.check(away)
    assert [a.well for a in answers] == [True, True, False]
    assert answers[2].note == "unreachable"


def test_logs_are_json_and_hold_no_share(trio: LocalTrio, client: Client) -> None:
    import json

    client.infer("net", X)
    for party in range(3):
        lines = [json.loads(line) for line in trio.log(party).splitlines()]
        assert "invocation answered" in [line["event"] for line in lines]
        assert "tensor(" not in trio.log(party)


def test_a_session_is_not_for_a_model_that_is_not_there(client: Client, program: Program) -> None:
    with pytest.raises(PartyError) as caught:
        Session(client._parties, "nowhere", program, 10.0)
    assert caught.value.reason is AbortReason.UNKNOWN_MODEL
