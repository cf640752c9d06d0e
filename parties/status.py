"""Failures on their way between processes: one `Abort` message, and the gRPC status that carries it to a client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import grpc

from hush.mpc.errors import AbortReason, DeadlineExceeded, PartyError, PartyUnreachable
from hush.proto.party_pb2 import Abort

CANNOT_CONNECT = (
    "failed to connect"  # how gRPC's text begins where nobody answered; a connection lost later reads otherwise
)
_TRAILER = "hush-abort-bin"
_CODES = {
    AbortReason.UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
    AbortReason.DISCONNECTED: grpc.StatusCode.UNAVAILABLE,
    AbortReason.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    AbortReason.LIMIT: grpc.StatusCode.RESOURCE_EXHAUSTED,
    AbortReason.STORAGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    AbortReason.UNKNOWN_MODEL: grpc.StatusCode.NOT_FOUND,
    AbortReason.DIGEST: grpc.StatusCode.FAILED_PRECONDITION,
    AbortReason.ROSTER: grpc.StatusCode.FAILED_PRECONDITION,
    AbortReason.INPUT: grpc.StatusCode.INVALID_ARGUMENT,
    AbortReason.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    AbortReason.INTERNAL: grpc.StatusCode.INTERNAL,
}


def abort_of(error: PartyError) -> Abort:
    """An error as a message."""
    party = -1 if error.party is None else error.party
    return Abort(party=party, reason=error.reason.name, detail=error.detail)


def error_of(abort: Abort, sender: int | None) -> PartyError:
    """A message as an error; a reason outside the closed list counts against the sender."""
    if abort.reason not in AbortReason.__members__ or abort.party not in (-1, 0, 1, 2):
        return PartyError(sender, AbortReason.MALFORMED, "an unreadable abort")
    party = None if abort.party == -1 else abort.party
    return party_error(party, AbortReason[abort.reason], abort.detail[:500])


def party_error(party: int | None, reason: AbortReason, detail: str = "") -> PartyError:
    """The error class that belongs to a reason."""
    if reason is AbortReason.UNREACHABLE:
        return PartyUnreachable(party, reason, detail)
    if reason is AbortReason.DEADLINE:
        return DeadlineExceeded(party, reason, detail)
    return PartyError(party, reason, detail)


def fail(context: grpc.ServicerContext, error: PartyError) -> NoReturn:
    """End a call with an error's status; the whole error travels in the trailers."""
    context.set_trailing_metadata(((_TRAILER, abort_of(error).SerializeToString()),))
    context.abort(_CODES.get(error.reason, grpc.StatusCode.ABORTED), str(error))
    raise AssertionError("abort returns nowhere")


def error_from_call(failure: grpc.RpcError, party: int, address: str) -> PartyError:
    """What a failed call to a party means to its caller."""
    if not isinstance(failure, grpc.Call):
        return PartyError(party, AbortReason.DISCONNECTED)
    trailers: Mapping[str, object] = dict(failure.trailing_metadata() or ())
    found = trailers.get(_TRAILER)
    if isinstance(found, bytes):
        return error_of(Abort.FromString(found), party)
    code, text = failure.code(), failure.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return party_error(party, AbortReason.DEADLINE, address)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return party_error(party, AbortReason.LIMIT, text)
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return party_error(party, AbortReason.INPUT, text)
    if code is grpc.StatusCode.UNAVAILABLE and CANNOT_CONNECT in text.lower():
        return party_error(party, AbortReason.UNREACHABLE, f"{address}{_tls_hint(text)}")
    return party_error(party, AbortReason.DISCONNECTED, address)


def _tls_hint(text: str) -> str:
    lowered = text.lower()
    if "ssl" in lowered or "tls" in lowered or "certificate" in lowered or "handshake" in lowered:
        return "; the TLS handshake failed: both ends need certificates of one authority, not expired"
    return ""
