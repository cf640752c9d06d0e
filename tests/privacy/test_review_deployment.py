"""What the parties show each other of a deployment, while they compare their copies of the weights' shares."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cache
from itertools import permutations
from pathlib import Path

import pytest
import torch
from torch import nn

from hush.mpc import fixed_point
from hush.mpc.compiler import Program, compile_module
from hush.mpc.errors import PartyError
from hush.parties import shares, tls
from hush.parties.certs import Role
from hush.parties.config import PartyConfig
from hush.parties.keys import VERSION
from hush.parties.service import Service
from hush.parties.store import Store
from hush.parties.wire import Tag
from hush.proto import party_pb2 as pb
from hush.protocols.replicated.sharing import expand

ADDRESSES = ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
PAIRS = list(permutations(range(3), 2))


@cache
def _program() -> Program:
    torch.manual_seed(1)
    return compile_module(nn.Linear(3, 2), (torch.linspace(-1, 1, 6).reshape(2, 3),))


def _frames(program: Program) -> list[list[memoryview]]:
    """Each party's frames of a deployment's weights."""
    found: list[list[memoryview]] = [[], [], []]
    for dealt in shares.weight_frames(program):
        for party, buffers in enumerate(dealt):
            found[party].append(memoryview(b"".join(buffers)))
    return found


def _stage(store: Store, header: pb.Deploy, program: Program, frames: Sequence[memoryview]) -> None:
    incoming = store.begin(header, program.data, program)
    for frame in frames:
        incoming.add(frame)
    store.stage(incoming)


def _services(program: Program, frames: Sequence[Sequence[memoryview]]) -> tuple[list[Service], bytes]:
    """Three parties at which a deployment is staged, and its id."""
    header = pb.Deploy(version=VERSION, model="m", deployment=os.urandom(16), program=bytes.fromhex(program.digest))
    services = []
    for party in range(3):
        store = Store(party, None, 1)
        _stage(store, header, program, frames[party])
        services.append(Service(PartyConfig(index=party, parties=ADDRESSES, insecure=True), None, store))
    return services, header.deployment


def _ask(service: Service, deployment: bytes, asker: int, role: Role | None) -> pb.Copies:
    request = pb.Compare(deployment=deployment, party=asker).SerializeToString()
    return pb.Copies.FromString(service._compare(request, tls.Peer(role, b"")))


@pytest.mark.parametrize(("asker", "asked"), PAIRS)
@pytest.mark.parametrize("secure", [True, False])
def test_a_party_is_shown_the_hash_of_the_component_it_holds_alone(asker: int, asked: int, secure: bool) -> None:
    program = _program()
    services, deployment = _services(program, _frames(program))
    role = Role("party", str(asker)) if secure else None
    shown = _ask(services[asked], deployment, asker, role)
    mine = services[asker]._store.copies(deployment, 1.0)
    assert {shown.own, shown.next} - {b""} <= {mine.own, mine.next}
    assert len({shown.own, shown.next} - {b""}) == 1
    assert shown.common == mine.common


def test_party_0_cannot_try_guesses_of_the_weights() -> None:
    """It makes components 0 and 1 from its seeds. Were it shown a hash of component 2, it could compare that with the
    hash of a guess less both: here the guess is right, and nothing that it is shown says so."""
    program = _program()
    frames = _frames(program)
    services, deployment = _services(program, frames)
    guess = hashlib.sha256()
    for spec, frame in zip(program.weight_specs, frames[0], strict=True):
        known = expand(shares.parse(0, (spec.shape, spec.frac), program.ring, frame))
        assert program.weights is not None
        element = fixed_point.encode(program.weights[spec.name], program.ring, spec.frac)
        guess.update(shares.raw(program.ring.reduce(element - known.parts[0] - known.parts[1])))
    assert services[1]._store.copies(deployment, 1.0).next == guess.digest()  # the guess is right: party 1 holds it
    for party in (1, 2):
        shown = _ask(services[party], deployment, 0, Role("party", "0"))
        assert guess.digest() not in (shown.own, shown.next)


@pytest.mark.parametrize(("claimed", "role"), [(2, Role("party", "0")), (1, None), (7, None), (1, Role("party", "1"))])
def test_nobody_asks_in_another_party_s_name(claimed: int, role: Role | None) -> None:
    services, deployment = _services(_program(), _frames(_program()))
    with pytest.raises(PartyError):
        _ask(services[1], deployment, claimed, role)


class _Context:
    """As much of gRPC's context as a deployment needs."""

    def cancel(self) -> bool:
        return True


def test_a_deployment_of_any_name_lets_the_next_one_in(tmp_path: Path) -> None:
    """An id that is no file name must not keep the place that one deployment at a time has."""
    store = Store(0, tmp_path, 1, bytes(32))
    service = Service(PartyConfig(index=0, parties=ADDRESSES, insecure=True), None, store)
    header = pb.Deploy(version=VERSION, model="m", deployment=bytes(300), program_size=1)
    for _ in range(2):
        calls = service._deploy(iter([Tag.DEPLOY + header.SerializeToString()]), _Context(), tls.Peer(None, b""))  # type: ignore[arg-type]
        with pytest.raises((PartyError, OSError)) as caught:
            next(calls)
        assert "another deployment is under way" not in str(caught.value)


def test_an_id_serves_one_deployment(tmp_path: Path) -> None:
    """Else the parties could agree on an id under which they hold shares of different weights."""
    program = _program()
    header = pb.Deploy(version=VERSION, model="m", deployment=os.urandom(16), program=bytes.fromhex(program.digest))
    store = Store(0, tmp_path, 4, bytes(32))
    _stage(store, header, program, _frames(program)[0])
    store.activate(header.deployment)
    for name in ("m", "n"):
        header.model = name
        with pytest.raises(PartyError):
            _stage(store, header, program, _frames(program)[0])
    assert [d.model for d in store.models()] == ["m"]
