"""The folder in which a party keeps deployments: encrypted files (`parties/vault.py`), one a deployment.

ID.deployment serves. ID.part and ID.partial are under way: the first is gone when its deployment ends or the party
starts, the second waits for a deployment that was interrupted to go on, as long as the age limit lets it. Sections:
the announcement, the program, a weight each as the provider sent it, and last the hashes that the parties compared.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from hush.mpc.compiler import Program
from hush.mpc.errors import AbortReason, HushError, PartyError
from hush.parties import shares
from hush.parties.vault import Reader, Seal, VaultError, Writer, stored_size
from hush.parties.weights import FIRST
from hush.proto.party_pb2 import Copies, Deploy

_MOST_KEPT = 4  # interrupted deployments
SERVES, PASSING, KEPT = ".deployment", ".part", ".partial"


@dataclass(frozen=True, slots=True)
class Stored:
    """One file that serves, or should: its model ("" if that cannot be read), bytes, and what is wrong with it."""

    path: Path
    model: str
    size: int
    fault: str


class Shelf:
    """One party's folder and the key that it is encrypted with."""

    def __init__(self, party: int, directory: Path, key: bytes) -> None:
        self._party, self._directory, self._key = party, directory, key

    def path(self, deployment: bytes, suffix: str = SERVES) -> Path:
        """Where a deployment's file is."""
        return self._directory / (deployment.hex() + suffix)

    def open(self, path: Path) -> Reader:
        """A file, memory-mapped. VaultError as `Reader`, OSError if it is not there."""
        return Reader(path, self._key, self._party)

    # ------------------------------------------------------------------ writing
    def begin(
        self, header: Deploy, program: bytes, sizes: Sequence[int], seen: Callable[[int, memoryview], None]
    ) -> Writer:
        """The file of a deployment that arrives, at the place from which it goes on: `seen` is given the weights that
        were kept of it, each checked as it is read. PartyError(STORAGE) if there is no room."""
        path = self.path(header.deployment, KEPT if header.resumable else PASSING)
        seal = Seal(self._key, header.deployment, self._party)
        with self.guarded():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            held, end = self._held(path, header, program, sizes, seen) if header.resumable else (-1, 0)
            self._check_room(sum(stored_size(n) for n in sizes[max(0, held) :]) + stored_size(len(program)))
            if held >= 0:
                return Writer(path, seal, sections=FIRST + held, end=end)
            writer = Writer(path, seal)
            try:
                writer.add(header.SerializeToString())
                writer.add(program)
            except OSError:
                writer.close()
                raise
            return writer

    def _held(
        self,
        path: Path,
        header: Deploy,
        program: bytes,
        sizes: Sequence[int],
        seen: Callable[[int, memoryview], None],
    ) -> tuple[int, int]:
        """How many weights are whole in a kept file, and where they end; -1 if it is none of this deployment."""
        try:
            with self.open(path) as file:
                if announced(file) != header or file.read(1) != program:
                    return -1, 0
                held = 0
                for index, size in enumerate(sizes):
                    if FIRST + index >= len(file.sizes) or file.sizes[FIRST + index] != size:
                        break
                    try:
                        frame = file.read(FIRST + index)
                    except VaultError:
                        break  # half of it was written when the machine stopped
                    seen(index, frame)
                    held += 1
                return held, file.end(FIRST + held)
        except (VaultError, FileNotFoundError):
            return -1, 0

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self._directory).free
        if needed > free:
            detail = f"its data directory: {needed / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free"
            raise PartyError(self._party, AbortReason.STORAGE, detail)

    def finish(self, deployment: bytes) -> None:
        """Let a deployment's file, complete on disk, be the one that is loaded at the next start."""
        with self.guarded():
            source = next(p for p in self._under_way(deployment) if p.exists())
            os.replace(source, self.path(deployment))
            folder = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    # ------------------------------------------------------------------ removing
    def drop(self, deployment: bytes) -> None:
        """Remove what is under way of a deployment."""
        for path in self._under_way(deployment):
            path.unlink(missing_ok=True)

    def forget(self, deployment: bytes) -> None:
        """Remove the file of a deployment that serves no longer."""
        self.path(deployment).unlink(missing_ok=True)

    def _under_way(self, deployment: bytes) -> list[Path]:
        return [self.path(deployment, PASSING), self.path(deployment, KEPT)]

    def supersede(self, model: str) -> None:
        """Remove what was kept of interrupted deployments of a model, now that one has succeeded."""
        for path in self._directory.glob("*" + KEPT):
            try:
                with self.open(path) as file:
                    stale = announced(file).model == model
            except (VaultError, OSError):
                stale = True  # nothing can go on from it
            if stale:
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what an earlier process had under way and cannot go on from."""
        for path in self._directory.glob("*" + PASSING):
            path.unlink(missing_ok=True)

    def sweep(self, age: float, wanted: bytes | None = None) -> None:
        """Remove interrupted deployments that are older than `age` seconds, and the oldest if there are too many. The
        one that is `wanted` now is spared if it is young enough."""
        with suppress(FileNotFoundError):
            kept = sorted(self._directory.glob("*" + KEPT), key=lambda p: p.stat().st_mtime, reverse=True)
            others = [p for p in kept if wanted is None or p != self.path(wanted, KEPT)]
            old = [p for p in kept if time.time() - p.stat().st_mtime > age]
            for path in {*old, *others[_MOST_KEPT:]}:
                path.unlink(missing_ok=True)

    # ------------------------------------------------------------------ reading
    def finished(self) -> list[Path]:
        """Files of deployments that serve, the oldest first."""
        with self.guarded():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return sorted(self._directory.glob("*" + SERVES), key=lambda p: p.stat().st_mtime)

    def load(self, vault: Reader, header: Deploy) -> tuple[bytes, Program, Copies]:
        """Program and hashes of a file that is complete. VaultError, or PartyError of a program, if it is not."""
        data = bytes(vault.read(FIRST - 1))
        program = shares.read_program(self._party, data, header.program)
        return data, program, compared(vault, shares.weight_sizes(self._party, program, list(header.dtypes)))

    def survey(self) -> Iterator[Stored]:
        """Every stored model, with all of its file decrypted and checked."""
        for path in self.finished():
            model, fault = "", ""
            try:
                with self.open(path) as vault:
                    header = announced(vault)
                    model = header.model
                    self.load(vault, header)
                    vault.verify()
            except (HushError, OSError) as error:
                fault = str(error)
            yield Stored(path, model, path.stat().st_size, fault)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """What the system says of the disk as PartyError(STORAGE)."""
        try:
            yield
        except OSError as error:
            detail = f"its data directory: {error.strerror}"
            raise PartyError(self._party, AbortReason.STORAGE, detail) from None


def announced(file: Reader) -> Deploy:
    """A file's first section. VaultError if the file is not what its name says."""
    try:
        header = Deploy.FromString(bytes(file.read(0)))
    except DecodeError:
        raise VaultError(f"{file.path.name} holds no deployment of this version of Hush") from None
    if header.deployment != file.deployment or file.path.stem != file.deployment.hex():
        raise VaultError(f"{file.path.name} is the file of another deployment")
    return header


def compared(file: Reader, sizes: Sequence[int]) -> Copies:
    """A complete file's last section. VaultError unless the file has just the weights of these sizes."""
    if file.sizes[FIRST:-1] != list(sizes) or not file.complete:
        raise VaultError(f"{file.path.name} was cut short, or is damaged")
    try:
        return Copies.FromString(bytes(file.read(FIRST + len(sizes))))
    except DecodeError:
        raise VaultError(f"{file.path.name} holds no deployment of this version of Hush") from None
