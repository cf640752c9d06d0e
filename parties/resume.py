"""Going on with an interrupted deployment: seeds that come out alike for the same weights, and for no others.

A deployment that can go on has a secret of 256 bits, drawn once and kept in a file of the provider's (mode 0600) until
the model serves. The seeds of a weight are HMACs, under one key of that secret, of its place and of a tag of the weight
itself: an HMAC, under another key, of its ring elements, shape and scale. So

- the same weight at the same place gets the same seeds: parties 0, 1, 2 can be given shares that fit those of before;
- a weight that has changed in between gets other seeds. Were it dealt under the old ones, parties 1 and 2 would hold
  x - c0 - c1 and x' - c0 - c1, and their difference x' - x is the change itself;
- to whoever lacks the secret the seeds are random: they tell nothing of the weight, and nobody can test a guess of it
  by them. With the secret one could, so the file must not reach a party. The weights themselves are not in it.

Two deployments never share a secret, so no seed serves two. What the parties hold is compared with what the provider
would deal now, by hashes of the seeds, before anything goes on; if a weight has changed all begins anew.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from hush.mpc.compiler import WeightSpec
from hush.mpc.errors import AbortReason, ConfigError
from hush.parties import certs, shares

DEPLOYMENT_BYTES = 16
_SECRET_BYTES = 32
PASSING = frozenset(
    {
        AbortReason.UNREACHABLE,
        AbortReason.DISCONNECTED,
        AbortReason.DEADLINE,
        AbortReason.CLOSED,
        AbortReason.LIMIT,
    }
)
"""Why a deployment may end and yet go on later; for any other reason it is given up."""


@dataclass(frozen=True, slots=True, repr=False)
class Ticket:
    """A deployment's id and secret; `path` of the file that it can go on from, `again` if it was read from there."""

    deployment: bytes
    secret: bytes
    path: Path
    again: bool = False

    def seeds(self, index: int, spec: WeightSpec, elements: Tensor) -> tuple[bytes, bytes]:
        """The seeds of components 0 and 1 of a weight, from its place in the program and its ring elements."""
        kind = json.dumps([index, spec.name, list(elements.shape), str(elements.dtype), spec.frac]).encode()
        tag = hmac.new(self._key(b"tag"), len(kind).to_bytes(8, "little") + kind, sha256)
        tag.update(shares.raw(elements))
        key, bound = self._key(b"seed"), tag.digest()
        made = (hmac.digest(key, bytes([c]) + index.to_bytes(8, "little") + bound, "sha256") for c in range(2))
        return next(made), next(made)

    def _key(self, purpose: bytes) -> bytes:
        return hmac.digest(self.secret, b"hush deployment " + purpose + self.deployment, "sha256")

    def __repr__(self) -> str:
        return f"Ticket({self.deployment.hex()[:8]})"


def take(path: Path, what: Mapping[str, str]) -> Ticket:
    """The ticket of a file, if it is for the same: program, name and parties. Else a new one, written there.

    ConfigError if the file cannot be written: without it the deployment could not go on.
    """
    found = _read(path, what)
    return found if found is not None else new(path, what)


def new(path: Path, what: Mapping[str, str]) -> Ticket:
    """A new deployment's ticket, in place of what the file held."""
    made = Ticket(os.urandom(DEPLOYMENT_BYTES), os.urandom(_SECRET_BYTES), path)
    held = {"deployment": made.deployment.hex(), "secret": made.secret.hex(), **what}
    try:
        certs.write_secret(path, json.dumps(held).encode())
    except OSError as error:
        raise ConfigError(f"cannot write {path}, from which a deployment could go on: {error.strerror}") from None
    return made


def _read(path: Path, what: Mapping[str, str]) -> Ticket | None:
    try:
        held: Any = json.loads(path.read_text())
        deployment, secret = bytes.fromhex(held["deployment"]), bytes.fromhex(held["secret"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if len(deployment) != DEPLOYMENT_BYTES or len(secret) != _SECRET_BYTES:
        return None
    return Ticket(deployment, secret, path, True) if {k: held.get(k) for k in what} == dict(what) else None
