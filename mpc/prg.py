"""Pairwise randomness: ChaCha20 keystreams that two parties draw alike and nobody ever draws twice."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from hush.mpc.errors import ProtocolError
from hush.mpc.ring import Ring, backends

KEY_BYTES = 32
_LIMIT = 1 << 32
Source = Callable[[bytes, bytes, int], Tensor]


def keystream(key: bytes, nonce: bytes, nbytes: int) -> Tensor:
    """The first `nbytes` of ChaCha20 (RFC 8439), 32-byte key, 12-byte nonce, counter from 0; uint8."""
    return backends.get().keystream(key, nonce, nbytes)


def nonce(invocation: int, draw: int, domain: int) -> bytes:
    """That of a draw: each once in a key's life."""
    return struct.pack("<III", invocation, draw, domain)


class Randomness(Protocol):
    """Uniform draws that are the same at both holders when drawn in the same order."""

    def elements(self, shape: tuple[int, ...], ring: Ring) -> Tensor:
        """Uniform ring elements."""

    def planes(self, planes: int, words: int) -> Tensor:
        """Uniform bit planes, int64 [planes, words]."""


class Stream:
    """The draws of one key: nonce = (invocation, draw number, domain), each used once in the key's life.

    The key belongs to one session and one pair of parties (HKDF over their X25519 secret), so a stream id is (session,
    pair, invocation, draw). Draw numbers are counted by the protocol's own order of operations, which is public and the
    same at both ends; `position` lets the two ends assert that. Counters only grow and are never loaded from anywhere:
    a new process means a new session and new keys. Draws are made where they are used (`made_by`): every backend makes
    the same ones.
    """

    __slots__ = ("_domain", "_draw", "_invocation", "_key", "_source")

    def __init__(self, key: bytes, domain: int = 0) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a stream key has {KEY_BYTES} bytes, not {len(key)}")
        self._key, self._domain, self._invocation, self._draw = key, domain, 0, 0
        self._source: Source = keystream

    def made_by(self, source: Source) -> None:
        """Let a backend's `keystream` make the draws, on its device."""
        self._source = source

    @property
    def position(self) -> tuple[int, int]:
        """(invocation, draws made in it): equal at both ends at every checkpoint."""
        return self._invocation, self._draw

    def next_invocation(self) -> None:
        """Start the next invocation of a program: a fresh nonce space."""
        self._invocation, self._draw = self._invocation + 1, 0
        if self._invocation >= _LIMIT:
            raise ProtocolError("a session's invocations are exhausted: open a new session")

    def _bytes(self, nbytes: int) -> Tensor:
        drawn = nonce(self._invocation, self._draw, self._domain)
        self._draw += 1
        if self._draw >= _LIMIT or nbytes > 64 * _LIMIT:
            raise ProtocolError("an invocation's randomness is exhausted: split the program")
        return self._source(self._key, drawn, nbytes)

    def elements(self, shape: tuple[int, ...], ring: Ring) -> Tensor:
        """Uniform ring elements of a shape."""
        count = 1
        for extent in shape:
            count *= extent
        raw = self._bytes(count * ring.dtype.itemsize).view(ring.dtype).reshape(shape)
        return ring.settle(raw)

    def planes(self, planes: int, words: int) -> Tensor:
        """Uniform bit planes, int64 [planes, words]."""
        return self._bytes(planes * words * 8).view(torch.int64).reshape(planes, words)

    def __repr__(self) -> str:
        return f"Stream(position={self.position})"
