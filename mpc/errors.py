"""Every error and warning of Hush.

HushError
├── UserError             what the caller can mend: names the thing, the place and the way out
│   ├── ShapeError        a tensor's shape or dtype is not the declared one
│   ├── RangeError        a value outside the declared range, NaN or infinite
│   ├── UnsupportedOp     an ATen op without a rule
│   ├── ProgramError      a program that cannot be read, or another model's
│   ├── ConfigError       a configuration, certificate or file that cannot serve
│   └── ModelError        an unknown model, or a checkpoint that does not fit it
├── ProtocolError         a neighbour departed from the protocol (size, order, digest, counters)
└── PartyError            a party failed; `.party` names it, `.reason` is one of a closed list
    ├── PartyUnreachable
    └── DeadlineExceeded
"""

from __future__ import annotations

from enum import Enum


class HushWarning(UserWarning):
    """Something works, but not as the caller would expect."""


class HushError(Exception):
    """Base of every error that Hush raises on purpose."""


class UserError(HushError):
    """The caller can mend it."""


class ShapeError(UserError):
    """A tensor's shape or dtype is not the declared one."""


class RangeError(UserError):
    """A value lies outside the declared range, or is NaN or infinite."""


class UnsupportedOp(UserError):  # noqa: N818
    """An ATen op that no rule covers."""


class ProgramError(UserError):
    """A program that cannot be read, or that belongs to another model."""


class ConfigError(UserError):
    """A configuration, certificate or file that cannot serve."""


class ModelError(UserError):
    """An unknown model, or a checkpoint that does not fit it."""


class ProtocolError(HushError):
    """A neighbour departed from the protocol: wrong size, order, digest or counters."""


class AbortReason(Enum):
    """Why a session ended early: a closed list, so that no reason can carry a secret."""

    UNREACHABLE = "unreachable"
    DEADLINE = "deadline exceeded"
    DISCONNECTED = "connection lost"
    MALFORMED = "malformed message"
    DIGEST = "program digest differs"
    ROSTER = "roster differs"
    COUNTERS = "randomness counters differ"
    INPUT = "input rejected"
    LIMIT = "limit reached"
    UNKNOWN_MODEL = "model not deployed"
    STORAGE = "storage failed"
    CLOSED = "session closed"
    INTERNAL = "internal error"


class PartyError(HushError):
    """A party failed. `party` is its index (None: unknown), `reason` says why."""

    def __init__(self, party: int | None, reason: AbortReason, detail: str = "") -> None:
        self.party, self.reason, self.detail = party, reason, detail
        who = "a party" if party is None else f"party {party}"
        super().__init__(f"{who}: {reason.value}" + (f" ({detail})" if detail else ""))


class PartyUnreachable(PartyError):  # noqa: N818
    """A party could not be reached."""


class DeadlineExceeded(PartyError):  # noqa: N818
    """A party did not answer within the deadline."""
