"""What goes wrong, as OpenAI's clients expect to be told."""

from __future__ import annotations

from typing import Any

from hush.mpc.errors import AbortReason, HushError, ModelError, PartyError, RangeError, UserError

INVALID = "invalid_request_error"
_UNAVAILABLE = 503


class Refusal(Exception):  # noqa: N818 - an answer, not a failure of ours
    """An HTTP status and the body `{"error": {message, type, param, code}}`."""

    def __init__(
        self, status: int, message: str, *, kind: str = INVALID, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def invalid(message: str, param: str | None = None, code: str | None = None) -> Refusal:
    """The request cannot be served as it is."""
    return Refusal(400, message, param=param, code=code)


def too_long(message: str, param: str) -> Refusal:
    """Prompt or answer do not fit."""
    return invalid(message, param, "context_length_exceeded")


def unknown_model(model: str, known: str) -> Refusal:
    """Not deployed."""
    message = f"The model '{model}' is not deployed; the parties have {known}."
    return Refusal(404, message, param="model", code="model_not_found")


def refusal(error: HushError) -> Refusal:
    """An error of ours as a client is told it: its own to mend, or the parties'. Never retried by itself."""
    if isinstance(error, PartyError) and error.reason is AbortReason.UNKNOWN_MODEL:
        return Refusal(404, str(error), param="model", code="model_not_found")
    if isinstance(error, PartyError):
        return Refusal(_UNAVAILABLE, str(error), kind="server_error", code=error.reason.name.lower())
    if isinstance(error, ModelError):
        return invalid(str(error), "model")
    if isinstance(error, RangeError):
        return invalid(str(error), "prompt")
    if isinstance(error, UserError):
        return invalid(str(error))
    return Refusal(_UNAVAILABLE, str(error), kind="server_error", code="protocol_error")


def unexpected() -> Refusal:
    """A fault of the proxy itself. Its text stays here: nobody knows what it quotes."""
    return Refusal(500, "The proxy failed; its terminal says where.", kind="server_error", code="internal_error")
