"""Files encrypted at rest: sections one after another, written as they arrive and read back one by one.

    magic | key check [8] | deployment [16] | party [1] | section | section | ...
    section = salt [16] | size [8] | chunk | chunk | ...         chunk = AES-256-GCM of at most 1 MiB, tag [16]

One key a deployment and party, HKDF of the party's storage key; from it one key a section, HKDF of its salt and index.
The salt is drawn anew each time a section is written, so a section that is written again after an interruption has
another key, and a chunk's number serves as its nonce: no pair of key and nonce is ever used twice. Deployment, party,
section, chunk and size are associated data, so chunks cannot be moved, swapped or left out; what closes a file is a
section of its own, so it cannot be cut either. An empty section has one empty chunk. The key check is an HKDF output of
its own: it tells another key from a damaged file, and nothing about the key.

Whoever can write to the folder may delete a file or bring back an older one; encryption does not prevent that.
"""

from __future__ import annotations

import hmac
import mmap
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from hush.mpc.errors import ConfigError, HushError
from hush.mpc.transport import Buffer

KEY_BYTES = 32
_MAGIC = b"hush deployment 2\n"
_OLD = b"hush deployment 1\n"
_CHUNK = 1 << 20
_SYNC = 256 << 20  # bytes after which the disk must have them, so that nobody waits long for the last ones
_TAG, _SALT, _CHECK, _ID = 16, 16, 8, 16
_SIZE = struct.Struct("<Q")
_PLACE = struct.Struct("<16sBQQQ")  # deployment, party, section, chunk, the section's size
_HEAD = len(_MAGIC) + _CHECK + _ID + 1


class VaultError(HushError):
    """A stored file that cannot be read: another key's, damaged, cut short, or no such file at all."""


def create_key(path: Path) -> None:
    """Write a new storage key, 64 hexadecimal digits, that only its owner may read. ConfigError if there is one."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(os.urandom(KEY_BYTES).hex() + "\n")
    except FileExistsError:
        raise ConfigError(f"{path} is there already: what was stored under it could not be read without it") from None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def load_key(path: Path) -> bytes:
    """A storage key from its file. ConfigError if it is missing, malformed, or open to other users."""
    try:
        text, mode = path.read_text().strip(), path.stat().st_mode
    except OSError as error:
        way = f"make one with `hush certs storage-key {path}`"
        raise ConfigError(f"cannot read the storage key {path}: {error.strerror}; {way}") from None
    except UnicodeDecodeError:
        text, mode = "", 0
    if stat.S_IMODE(mode) & 0o007:
        raise ConfigError(f"the storage key {path} can be read by anybody on this machine: chmod 600 it")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{path} holds no storage key: {2 * KEY_BYTES} hexadecimal digits are due")
    return key


class Seal:
    """The keys of one deployment at one party."""

    def __init__(self, key: bytes, deployment: bytes, party: int) -> None:
        self._deployment, self._party = deployment, party
        self.check = _derive(key, b"", b"hush storage key check", _CHECK)
        self._key = _derive(key, deployment, b"hush deployment key" + bytes([party]), KEY_BYTES)

    @property
    def head(self) -> bytes:
        """How a file begins."""
        return _MAGIC + self.check + self._deployment + bytes([self._party])

    def section(self, index: int, salt: bytes) -> AESGCM:
        """The cipher of one section."""
        info = b"hush section" + _SIZE.pack(index) + salt
        return AESGCM(HKDFExpand(SHA256(), KEY_BYTES, info).derive(self._key))

    def place(self, section: int, chunk: int, size: int) -> bytes:
        """What a chunk is bound to."""
        return _PLACE.pack(self._deployment, self._party, section, chunk, size)


def _derive(key: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    return HKDF(SHA256(), size, salt or None, info).derive(key)


def _chunks(size: int) -> Iterator[tuple[int, int]]:
    """(number, size) of the chunks of a section; one at least."""
    for number in range(max(1, -(-size // _CHUNK))):
        yield number, min(_CHUNK, size - number * _CHUNK)


def _nonce(chunk: int) -> bytes:
    return chunk.to_bytes(12, "little")


def stored_size(size: int) -> int:
    """Bytes that a section takes in a file."""
    return _SALT + _SIZE.size + size + _TAG * max(1, -(-size // _CHUNK))


class Writer:
    """A file under way: sections are encrypted and written as they come. OSError if the disk does not take them."""

    def __init__(self, path: Path, seal: Seal, *, sections: int = 0, end: int = 0) -> None:
        """A new file; or with `sections` and `end` one that goes on after those, its rest cut off."""
        self.path, self._seal, self.sections, self._unsynced = path, seal, sections, 0
        flags = os.O_RDWR | os.O_CREAT | (0 if sections else os.O_TRUNC)
        self._file: BinaryIO = os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)
        if sections:
            self._file.truncate(end)
            self._file.seek(end)
        else:
            self._write(seal.head)

    def add(self, data: Buffer) -> None:
        """The next section."""
        view, salt = memoryview(data).cast("B") if len(data) else memoryview(b""), os.urandom(_SALT)
        cipher, size = self._seal.section(self.sections, salt), len(view)
        self._write(salt + _SIZE.pack(size))
        for chunk, length in _chunks(size):
            start = chunk * _CHUNK
            place = self._seal.place(self.sections, chunk, size)
            self._write(cipher.encrypt(_nonce(chunk), view[start : start + length], place))
        self.sections += 1
        self._unsynced += size
        if self._unsynced > _SYNC:
            self.sync()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while len(view):
            view = view[self._file.write(view) :]

    def sync(self) -> None:
        """Have the disk take everything."""
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def close(self) -> None:
        """Let the file go; safe to call twice."""
        self._file.close()


class Reader:
    """A finished or half-written file, memory-mapped; sections are decrypted and checked one by one.

    VaultError if the key is another or the file is not this deployment's. Of a file that was cut in the middle of a
    section, the sections before it can be read.
    """

    def __init__(self, path: Path, key: bytes, party: int) -> None:
        self.path = path
        with path.open("rb") as file:
            self._descriptor = os.dup(file.fileno())
            self._length = os.fstat(file.fileno()).st_size
            head = file.read(_HEAD)
            if head.startswith(_OLD):
                self._fail("is of an earlier version of Hush, which did not encrypt: deploy the model again")
            if len(head) < _HEAD or not head.startswith(_MAGIC):
                self._fail("is no stored deployment, or was cut short")
            self.deployment = head[-_ID - 1 : -1]
            self._seal = Seal(key, self.deployment, party)
            if not hmac.compare_digest(head[len(_MAGIC) :][:_CHECK], self._seal.check):
                self._fail("was encrypted with another storage key")
            if head != self._seal.head:
                self._fail("is another party's")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._places = list(self._walk())

    def _walk(self) -> Iterator[tuple[int, int]]:
        """(place, size) of each whole section."""
        at = _HEAD
        while at + _SALT + _SIZE.size <= self._length:
            (size,) = _SIZE.unpack_from(self._map, at + _SALT)
            after = at + stored_size(size)
            if after > self._length:
                return
            yield at, size
            at = after

    @property
    def sizes(self) -> list[int]:
        """Sizes of the whole sections, as the file says; that they are true is known once a section was read."""
        return [size for _, size in self._places]

    def end(self, sections: int) -> int:
        """Where so many sections end in the file."""
        if not sections:
            return _HEAD
        at, size = self._places[sections - 1]
        return at + stored_size(size)

    @property
    def complete(self) -> bool:
        """Whether the file ends where a section does."""
        return self.end(len(self._places)) == self._length

    def read(self, section: int) -> memoryview:
        """A section in memory of its own. VaultError if it is not what was written there."""
        if section >= len(self._places):
            self._fail("was cut short")
        at, size = self._places[section]
        out = memoryview(np.empty(size, np.uint8).data) if size else memoryview(b"")
        for start, chunk in self._decrypted(section, at, size):
            if chunk:
                out[start : start + len(chunk)] = chunk
        return out

    def verify(self) -> None:
        """Check every section without keeping it. VaultError as `read`."""
        for section, (at, size) in enumerate(self._places):
            for _ in self._decrypted(section, at, size):
                pass
        if not self.complete:
            self._fail("was cut short")

    def _decrypted(self, section: int, at: int, size: int) -> Iterator[tuple[int, bytes]]:
        if os.fstat(self._descriptor).st_size < self._length:
            self._fail("was cut short")  # and reading the map there would end the process
        cipher = self._seal.section(section, self._map[at : at + _SALT])
        place, start = at + _SALT + _SIZE.size, 0
        with memoryview(self._map) as view:
            for chunk, length in _chunks(size):
                sealed = view[place : place + length + _TAG]
                try:
                    yield start, cipher.decrypt(_nonce(chunk), sealed, self._seal.place(section, chunk, size))
                except InvalidTag:
                    self._fail("is damaged, or was changed")
                finally:
                    sealed.release()
                place, start = place + length + _TAG, start + length
        self._forget(at, place)

    def _forget(self, start: int, end: int) -> None:
        """Tell the system that these pages are not needed in memory."""
        if hasattr(self._map, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            start -= start % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, start, end - start)

    def _fail(self, what: str) -> None:
        raise VaultError(f"{self.path.name} {what}")

    def close(self) -> None:
        """Let the file go; safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            if hasattr(self, "_map"):
                self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.close()
