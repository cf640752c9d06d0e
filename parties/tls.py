"""Channels and servers with mutual TLS, and who is at the other end.

Whoever dials a party demands the name `party-N.hush` in its certificate, on TCP and on unix sockets alike; whoever
serves demands a certificate of the same authority and reads the role from it. Without TLS (`insecure`) nobody is
checked.
"""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import grpc.experimental

from hush.parties import certs

Option = tuple[str, int | str]
_WINDOW = 16 << 20  # bytes in flight on a stream before its reader has asked for them


@dataclass(frozen=True, slots=True)
class Peer:
    """Who called: role None only where TLS is off."""

    role: certs.Role | None
    fingerprint: bytes


def _common(max_message: int, deadline: float) -> list[Option]:
    """Keepalive finds a stalled machine within the deadline. Retries are off: a retried step would reuse masks."""
    every, patience = max(250, int(deadline * 1000 / 3)), max(250, int(deadline * 1000 / 2))
    return [
        ("grpc.max_receive_message_length", max_message),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", every),
        ("grpc.keepalive_timeout_ms", patience),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.lookahead_bytes", _WINDOW),
        ("grpc.enable_retries", 0),
    ]


def channel_options(max_message: int, deadline: float) -> list[Option]:
    """Options of a channel: its own connection, quick to try again while the other side is starting."""
    return [
        *_common(max_message, deadline),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        (
            "grpc.min_reconnect_backoff_ms",
            max(1000, int(deadline * 500)),
        ),  # which is also the time a handshake may take
        ("grpc.max_reconnect_backoff_ms", max(1000, int(deadline * 500))),
    ]


def server_options(max_message: int, deadline: float) -> list[Option]:
    """Options of a server: pings are allowed, and an address is never shared between two servers."""
    return [
        *_common(max_message, deadline),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 100),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.so_reuseport", 0),
    ]


def channel(
    address: str,
    party: int,
    identity: certs.Identity | None,
    *,
    max_message: int,
    deadline: float,
    streams: bool = False,
) -> grpc.Channel:
    """A channel to a party. With an identity, TLS both ways and the party's name demanded; without, plain text.

    `streams`: whoever reads a stream from the server polls for itself, without a thread in between.
    """
    options = channel_options(max_message, deadline)
    if streams:
        options.append((grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1))
    if identity is None:
        return grpc.insecure_channel(address, options)
    credentials = grpc.ssl_channel_credentials(identity.authority, identity.key, identity.certificate)
    name = certs.party_host(party)
    options += [("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)]
    return grpc.secure_channel(address, credentials, options)


def listen(server: grpc.Server, address: str, identity: certs.Identity | None) -> int:
    """Bind a server to an address; returns the port (unix sockets: 1). RuntimeError if it is taken."""
    if identity is None:
        return server.add_insecure_port(address)
    pair = [(identity.key, identity.certificate)]
    credentials = grpc.ssl_server_credentials(pair, identity.authority, require_client_auth=True)
    return server.add_secure_port(address, credentials)


def peer(context: grpc.ServicerContext) -> Peer:
    """Who is at the other end of a call, from the certificate that TLS has verified."""
    found = context.auth_context().get("x509_pem_cert")
    if not found:
        return Peer(None, b"")
    pem = bytes(next(iter(found)))
    return Peer(certs.role_of(certs.parse(pem)), certs.fingerprint(pem))


def require(context: grpc.ServicerContext, secure: bool, *kinds: str) -> Peer:
    """The caller, if it plays one of these roles; PERMISSION_DENIED (which ends the call) if not."""
    caller = peer(context)
    if secure and (caller.role is None or caller.role.kind not in kinds):
        has = caller.role.uri if caller.role else "no role"
        context.abort(grpc.StatusCode.PERMISSION_DENIED, f"needs a {' or '.join(kinds)} certificate, not {has}")
    return caller
