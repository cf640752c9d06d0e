"""Models deployed at a party: programs and this party's shares of their weights, in memory and, if wanted, on disk.

A file holds exactly what the provider sent (seeds where shares are seeds), is written beside its final name and renamed
when all three parties have agreed, so a crash or a full disk never leaves half a model behind.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from hush.mpc.compiler.program import Program
from hush.mpc.errors import AbortReason, HushError, PartyError
from hush.mpc.secret import Shared
from hush.mpc.transport import Buffer
from hush.parties import shares
from hush.parties.logs import LOGGER
from hush.parties.status import party_error
from hush.proto.party_pb2 import Copies, Deploy

_MAGIC = b"hush deployment 1\n"
_SUFFIX = ".deployment"
_REMEMBERED = 64  # ids of dropped deployments, so that a neighbour does not wait for them


@dataclass(frozen=True, slots=True, repr=False)
class Deployment:
    """One model at one party."""

    model: str
    id: bytes
    digest: bytes
    data: bytes
    program: Program
    weights: dict[str, Shared | Tensor]
    copies: Copies

    def __repr__(self) -> str:
        return f"Deployment({self.model!r}, {self.digest.hex()[:12]})"


class Store:
    """The models of one party: staged while the three parties compare, then active. Safe for several threads."""

    def __init__(self, party: int, directory: Path | None, capacity: int) -> None:
        self._party, self._directory, self._capacity = party, directory, capacity
        self._active, self._staged = dict[str, Deployment](), dict[bytes, Deployment]()
        self._dropped = deque[bytes](maxlen=_REMEMBERED)
        self._changed = threading.Condition()

    # ------------------------------------------------------------------ what serves
    def models(self) -> list[Deployment]:
        """Active deployments by name."""
        with self._changed:
            return [self._active[name] for name in sorted(self._active)]

    def find(self, model: str) -> Deployment:
        """The active deployment of a name; PartyError(UNKNOWN_MODEL)."""
        with self._changed:
            found = self._active.get(model)
        if found is None:
            raise PartyError(self._party, AbortReason.UNKNOWN_MODEL, f"no model {model[:100]!r} is deployed here")
        return found

    # ------------------------------------------------------------------ deployment
    def stage(self, header: Deploy, program: bytes, frames: Sequence[memoryview]) -> Deployment:
        """Unpack what a provider sent, keep it (on disk under a passing name), and let neighbours compare it."""
        deployment = unpack(self._party, header, program, frames)
        with self._changed:
            if header.deployment in self._staged or any(d.id == header.deployment for d in self._active.values()):
                raise PartyError(self._party, AbortReason.MALFORMED, "a deployment of this id is under way, or serves")
            if header.model not in self._active and len(self._active) + len(self._staged) >= self._capacity:
                raise PartyError(self._party, AbortReason.LIMIT, f"{self._capacity} models are deployed: remove one")
            self._staged[header.deployment] = deployment
        try:
            if self._directory is not None:
                _write(self._party, self._path(deployment.id, ".part"), header, deployment.copies, program, frames)
        except PartyError:
            self.discard(deployment.id)
            raise
        with self._changed:
            self._changed.notify_all()
        return deployment

    def copies(self, deployment: bytes, deadline: float) -> Copies:
        """Hashes of a staged deployment, for a neighbour to compare; waits until it has arrived here or is dropped."""
        with self._changed:
            self._changed.wait_for(lambda: deployment in self._staged or deployment in self._dropped, deadline)
            if deployment in self._staged:
                return self._staged[deployment].copies
            if deployment in self._dropped:
                raise PartyError(self._party, AbortReason.CLOSED, "it has given the deployment up")
        raise party_error(self._party, AbortReason.DEADLINE, "the deployment did not arrive")

    def activate(self, deployment: bytes) -> None:
        """Let a staged deployment serve, in the place of an older one of its name."""
        with self._changed:
            found = self._staged[deployment]
            if self._directory is not None:
                _rename(self._party, self._path(deployment, ".part"), self._path(deployment, _SUFFIX))
            del self._staged[deployment]
            old = self._active.get(found.model)
            self._active[found.model] = found
        if old is not None:
            self._forget(old)

    def discard(self, deployment: bytes) -> None:
        """Drop a deployment that is still staged; nothing if it is not."""
        with self._changed:
            self._staged.pop(deployment, None)
            self._dropped.append(deployment)
            self._changed.notify_all()
        if self._directory is not None:
            self._path(deployment, ".part").unlink(missing_ok=True)

    def remove(self, model: str) -> bool:
        """Take a model out of service; whether there was one. Sessions that run keep it until they end."""
        with self._changed:
            found = self._active.pop(model, None)
        if found is not None:
            self._forget(found)
        return found is not None

    # ------------------------------------------------------------------ disk
    def reload(self) -> None:
        """Load what an earlier process kept. A file that cannot be read is reported and left alone."""
        if self._directory is None:
            return
        _make(self._party, self._directory)
        for stale in self._directory.glob("*.part"):
            stale.unlink()
        for path in sorted(self._directory.glob("*" + _SUFFIX), key=lambda p: p.stat().st_mtime):
            try:
                found = _read(self._party, path)
            except (HushError, OSError, ValueError) as error:
                extra = {"party": self._party, "detail": path.name, "reason": type(error).__name__}
                LOGGER.error("a stored deployment cannot be read", extra=extra)
                continue
            self._active[found.model] = found
            LOGGER.info("deployment reloaded", extra={"party": self._party, "model": found.model})

    def _path(self, deployment: bytes, suffix: str) -> Path:
        assert self._directory is not None
        return self._directory / (deployment.hex() + suffix)

    def _forget(self, deployment: Deployment) -> None:
        if self._directory is not None:
            self._path(deployment.id, _SUFFIX).unlink(missing_ok=True)


def unpack(party: int, header: Deploy, program: bytes, frames: Sequence[memoryview]) -> Deployment:
    """A deployment from what a provider sent, or a file holds. PartyError(DIGEST) if the program is another."""
    loaded = shares.read_program(party, program, header.program)
    weights = shares.unpack_weights(party, loaded, list(header.dtypes), frames)
    copies = shares.copies(party, loaded, header, frames)
    return Deployment(header.model, header.deployment, header.program, program, loaded, weights, copies)


def _write(party: int, path: Path, header: Deploy, copies: Copies, program: bytes, frames: Sequence[Buffer]) -> None:
    _make(party, path.parent)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(_MAGIC)
            for part in (header.SerializeToString(), copies.SerializeToString(), program, *frames):
                file.write(len(part).to_bytes(8, "little"))
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise _storage(party, error) from None


def _read(party: int, path: Path) -> Deployment:
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("not a deployment")
        size = path.stat().st_size
        header, copies = Deploy.FromString(_part(file, size)), Copies.FromString(_part(file, size))
        program, frames = _part(file, size), list[memoryview]()
        while file.tell() < size:
            frames.append(memoryview(_part(file, size)))
    found = unpack(party, header, program, frames)
    if found.copies != copies:
        raise ValueError("the file has changed since it was written")
    return found


def _part(file: BinaryIO, size: int) -> bytes:
    count = int.from_bytes(file.read(8), "little")
    if count > size - file.tell():
        raise ValueError("the file is cut short")
    return file.read(count)


def _make(party: int, directory: Path) -> None:
    _guarded(party, lambda: directory.mkdir(mode=0o700, parents=True, exist_ok=True))


def _rename(party: int, source: Path, target: Path) -> None:
    _guarded(party, lambda: os.replace(source, target))


def _guarded(party: int, action: Callable[[], object]) -> None:
    try:
        action()
    except OSError as error:
        raise _storage(party, error) from None


def _storage(party: int, error: OSError) -> PartyError:
    return PartyError(party, AbortReason.STORAGE, f"its data directory: {error.strerror}")
