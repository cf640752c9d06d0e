"""Models deployed at a party: programs and this party's shares of their weights, on disk or in memory only.

A deployment arrives weight by weight, is compared with its copies at the other parties, and serves when all three have
agreed. On disk it is encrypted (`parties/shelf.py`); what is half there never serves, and a stored model's weights come
to memory as they are first used, and leave it when others need the room.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from hush.mpc.compiler.program import Program
from hush.mpc.errors import AbortReason, ConfigError, HushError, PartyError
from hush.mpc.secret import Shared
from hush.parties import memory, shares
from hush.parties.device_memory import Tenant
from hush.parties.logs import LOGGER
from hush.parties.shelf import Shelf, announced
from hush.parties.status import party_error
from hush.parties.vault import Reader, VaultError
from hush.parties.weights import StoredWeights
from hush.proto.party_pb2 import Copies, Deploy, Held
from hush.protocols.replicated.encoded import Encoded

_REMEMBERED = 64  # ids of dropped deployments, so that a neighbour does not wait for them
AGE = 72 * 3600.0  # seconds that an interrupted deployment may wait to go on, by default


@dataclass(frozen=True, slots=True, repr=False)
class Deployment:
    """One model at one party."""

    model: str
    id: bytes
    digest: bytes
    data: bytes
    program: Program
    weights: Mapping[str, Shared | Tensor]
    copies: Copies
    encoded: Encoded = field(default_factory=Encoded)
    tenant: Tenant = field(default_factory=Tenant)

    @property
    def missing(self) -> int:
        """Bytes of memory that its weights will take beyond what they take now."""
        return self.weights.missing if isinstance(self.weights, StoredWeights) else 0

    def __repr__(self) -> str:
        return f"Deployment({self.model!r}, {self.digest.hex()[:12]})"


class Incoming:
    """A deployment that arrives: its weights one by one, in the program's order, kept as they come.

    `held` of them are here; `sizes` are those of all their frames. `seeds`: what came as a seed stays one.
    """

    def __init__(
        self, party: int, header: Deploy, data: bytes, program: Program, shelf: Shelf | None, seeds: bool = False
    ) -> None:
        self.header, self.held, self._seeds = header, 0, seeds
        self._party, self._data, self._program, self._shelf = party, data, program, shelf
        self.sizes = shares.weight_sizes(party, program, list(header.dtypes))
        self._copying = shares.Copying(party, program, header)
        self._memory: dict[str, Shared | Tensor] = {}
        self._writer = None if shelf is None else shelf.begin(header, data, self.sizes, self._seen)

    def _seen(self, index: int, frame: memoryview) -> None:
        self._copying.add(self._program.weight_specs[index], frame)
        self.held += 1

    def answer(self) -> Held:
        """What is held, for the provider to go on from."""
        return Held(weights=self.held, copies=self._copying.seeds())

    def add(self, frame: memoryview) -> None:
        """The next weight's frame. PartyError(STORAGE) if the disk does not take it."""
        index, spec = self.held, self._program.weight_specs[self.held]
        if self._writer is not None and self._shelf is not None:
            with self._shelf.guarded():
                self._writer.add(frame)
        else:
            dtypes = list(self.header.dtypes)
            value = shares.unpack_weight(self._party, self._program, dtypes, index, frame, seeded=self._seeds)
            self._memory[spec.name] = value
        self._seen(index, frame)

    def finish(self, broken: Callable[[bytes, VaultError], None]) -> Deployment:
        """The whole of it, on disk for good. `broken`: called with its id if a weight cannot be read later."""
        header, copies, weights = self.header, self._copying.copies(), self._memory
        made = Deployment(header.model, header.deployment, header.program, self._data, self._program, weights, copies)
        if self._writer is None or self._shelf is None:
            return made
        with self._shelf.guarded():
            self._writer.add(copies.SerializeToString())
            self._writer.sync()
            self._writer.close()
            vault = self._shelf.open(self._writer.path)
        return replace(made, weights=_stored(self._party, self._program, header, vault, broken, self._seeds))

    def close(self) -> None:
        """Let its file go; what is in it stays."""
        if self._writer is not None:
            self._writer.close()


def _stored(
    party: int,
    program: Program,
    header: Deploy,
    vault: Reader,
    broken: Callable[[bytes, VaultError], None],
    seeds: bool,
) -> StoredWeights:
    told = partial(broken, header.deployment)
    return StoredWeights(party, program, list(header.dtypes), vault, told, seeds=seeds)


class Store:
    """The models of one party: staged while the three parties compare, then active. Safe for several threads.

    With a `directory` they are kept there under a `key`, and interrupted deployments wait up to `age` seconds. `seeds`:
    the party computes where components that came as seeds are expanded, so main memory keeps them as they came.
    """

    def __init__(
        self,
        party: int,
        directory: Path | None,
        capacity: int,
        key: bytes | None = None,
        age: float = AGE,
        *,
        seeds: bool = False,
    ) -> None:
        if directory is not None and key is None:
            raise ConfigError("a data directory needs a storage key")
        self._party, self._capacity, self._age, self.seeds = party, capacity, age, seeds
        self._shelf = None if directory is None or key is None else Shelf(party, directory, key)
        self._active, self._staged = dict[str, Deployment](), dict[bytes, Deployment]()
        self._arriving: dict[bytes, Incoming] = {}
        self._broken: dict[str, tuple[bytes, str]] = {}  # by model: id, and what is wrong with its file
        self._dropped, self._given_up = deque[bytes](maxlen=_REMEMBERED), deque[bytes](maxlen=_REMEMBERED)
        self._users, self._used = Counter[bytes](), dict[bytes, float]()
        self._changed = threading.Condition()

    # ------------------------------------------------------------------ what serves
    @property
    def stores(self) -> bool:
        """Whether models are kept on disk."""
        return self._shelf is not None

    def models(self) -> list[Deployment]:
        """Active deployments by name."""
        with self._changed:
            return [self._active[name] for name in sorted(self._active)]

    def find(self, model: str) -> Deployment:
        """The active deployment of a name; PartyError(UNKNOWN_MODEL), or (STORAGE) if its file cannot be read."""
        with self._changed:
            found, fault = self._active.get(model), self._broken.get(model)
        if found is not None:
            return found
        if fault is not None:
            raise PartyError(self._party, AbortReason.STORAGE, f"its copy of {model[:100]!r}: {fault[1]}")
        raise PartyError(self._party, AbortReason.UNKNOWN_MODEL, f"no model {model[:100]!r} is deployed here")

    @contextmanager
    def using(self, deployment: Deployment) -> Iterator[None]:
        """Keep its weights in memory meanwhile."""
        with self._changed:
            self._users[deployment.id] += 1
        try:
            yield
        finally:
            with self._changed:
                self._users[deployment.id] -= 1
                self._used[deployment.id] = time.monotonic()

    def relieve(self, fits: Callable[[], bool]) -> bool:
        """Until `fits`, drop the weights in memory of stored models that nobody uses, the longest unused first."""
        with self._changed:
            idle = [d for d in self._active.values() if not self._users[d.id]]
            idle.sort(key=lambda d: self._used.get(d.id, 0.0))
        for deployment in idle:
            if fits():
                return True
            if isinstance(deployment.weights, StoredWeights):
                deployment.weights.drop()
                memory.trim()
        return fits()

    # ------------------------------------------------------------------ deployment
    def begin(self, header: Deploy, data: bytes, program: Program) -> Incoming:
        """A deployment that a provider announces. PartyError(LIMIT) if there are too many, (MALFORMED) for an id in
        use, (STORAGE)."""
        with self._changed:
            self._admit(header)
            self._dropped = deque((d for d in self._dropped if d != header.deployment), _REMEMBERED)
            self._given_up = deque((d for d in self._given_up if d != header.deployment), _REMEMBERED)
        if self._shelf is not None:
            self._shelf.sweep(self._age, header.deployment)
        try:
            incoming = Incoming(self._party, header, data, program, self._shelf, self.seeds)
        except PartyError:
            self.discard(header.deployment)
            raise
        with self._changed:
            self._arriving[header.deployment] = incoming
        return incoming

    def _admit(self, header: Deploy) -> None:
        taken = {*self._staged, *self._arriving, *(d.id for d in self._active.values())}
        if header.deployment in taken:
            raise PartyError(self._party, AbortReason.MALFORMED, "a deployment of this id is under way, or serves")
        if header.model not in self._active and len(self._active) + len(self._staged) >= self._capacity:
            raise PartyError(self._party, AbortReason.LIMIT, f"{self._capacity} models are deployed: remove one")

    def stage(self, incoming: Incoming) -> Deployment:
        """Let neighbours compare a deployment that has arrived whole."""
        deployment = incoming.finish(self._report_broken)
        with self._changed:
            self._arriving.pop(deployment.id, None)
            self._staged[deployment.id] = deployment
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
            if self._shelf is not None:
                self._shelf.finish(deployment)
            del self._staged[deployment]
            old, broken = self._active.get(found.model), self._broken.pop(found.model, None)
            self._active[found.model] = found
        if self._shelf is None:
            return
        for stale in (None if old is None else old.id, None if broken is None else broken[0]):
            if stale is not None:
                self._shelf.forget(stale)
        self._shelf.supersede(found.model)

    def discard(self, deployment: bytes, *, keep: bool = False) -> None:
        """Drop a deployment that does not serve yet; nothing if it does. `keep` what is on disk, to go on from."""
        with self._changed:
            self._staged.pop(deployment, None)
            incoming = self._arriving.pop(deployment, None)
            self._dropped.append(deployment)
            keep = keep and deployment not in self._given_up
            self._changed.notify_all()
        if incoming is not None:
            incoming.close()
        if self._shelf is not None and not keep:
            self._shelf.drop(deployment)

    def give_up(self, deployment: bytes) -> None:
        """Remove what was kept of an interrupted deployment, or will be if it is still on its way out."""
        with self._changed:
            self._given_up.append(deployment)
            busy = deployment in self._arriving or deployment in self._staged
        if self._shelf is not None and not busy:
            self._shelf.drop(deployment)

    def remove(self, model: str) -> bool:
        """Take a model out of service; whether there was one. Sessions that run keep it until they end."""
        with self._changed:
            found, broken = self._active.pop(model, None), self._broken.pop(model, None)
        if self._shelf is not None:
            for stale in (None if found is None else found.id, None if broken is None else broken[0]):
                if stale is not None:
                    self._shelf.forget(stale)
        return found is not None or broken is not None

    # ------------------------------------------------------------------ disk
    def reload(self) -> None:
        """Find what an earlier process kept. A file that cannot be read is reported and left alone; the others serve.

        Announcement, program and the file's end are checked here, each weight when it is first used.
        """
        if self._shelf is None:
            return
        for path in self._shelf.finished():
            try:
                self._reload(self._shelf, path)
            except (HushError, OSError) as error:
                self._log_broken(error, path.name)
        self._shelf.clear()
        self._shelf.sweep(self._age)

    def _reload(self, shelf: Shelf, path: Path) -> None:
        vault = shelf.open(path)
        header = announced(vault)
        try:
            data, program, copies = shelf.load(vault, header)
        except (HushError, OSError) as error:
            self._broken[header.model] = (header.deployment, _told(error))
            raise
        weights = _stored(self._party, program, header, vault, self._report_broken, self.seeds)
        found = Deployment(header.model, header.deployment, header.program, data, program, weights, copies)
        old = self._active.get(found.model)
        self._active[found.model] = found
        self._broken.pop(found.model, None)
        if old is not None:
            shelf.forget(old.id)  # replaced, and the process ended before it was removed
        LOGGER.info("deployment reloaded", extra={"party": self._party, "model": found.model})

    def _report_broken(self, deployment: bytes, error: VaultError) -> None:
        """A weight cannot be read: the model is taken out of service here, and whoever asks for it is told why."""
        with self._changed:
            for model in [name for name, d in self._active.items() if d.id == deployment]:
                del self._active[model]
                self._broken[model] = (deployment, _told(error))
                self._log_broken(error, model=model)

    def _log_broken(self, error: Exception, file: str = "", **more: str) -> None:
        extra = {"party": self._party, "reason": AbortReason.STORAGE.name, "detail": _told(error) or file} | more
        LOGGER.error("a stored deployment cannot be read", extra=extra)


def _told(error: Exception) -> str:
    """What may be said of an error with a file: our own words, or the system's."""
    return str(error) if isinstance(error, HushError) else str(getattr(error, "strerror", type(error).__name__))
