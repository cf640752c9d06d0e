"""Asking parties how they are, through the standard gRPC health service."""

from __future__ import annotations

import time
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hush.parties import tls
from hush.parties.certs import Identity
from hush.parties.config import MIB, Config, as_client
from hush.parties.status import error_from_call

_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """How one party is."""

    party: int
    address: str
    well: bool
    note: str


def check(config: Config) -> list[Answer]:
    """Ask the three parties of a client's configuration. ConfigError if that cannot serve; a party's silence is an
    answer."""
    settings = as_client(config)
    identity = settings.identity("client")
    return [ask(address, party, identity) for party, address in enumerate(settings.parties)]


def ask(address: str, party: int, identity: Identity | None, patience: float = _PATIENCE) -> Answer:
    """Ask one party."""
    channel = tls.channel(address, party, identity, max_message=MIB, deadline=patience)
    begin = time.perf_counter()
    try:
        request = health_pb2.HealthCheckRequest()
        reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=patience)
    except grpc.RpcError as failure:
        return Answer(party, address, False, error_from_call(failure, party, address).reason.value)
    finally:
        channel.close()
    well = reply.status == health_pb2.HealthCheckResponse.SERVING
    took = (time.perf_counter() - begin) * 1000
    return Answer(party, address, well, f"serving ({took:.0f} ms)" if well else "not serving")
