"""Blocks of the trees of point functions: how one grows into two, and the corrections by which two sides' trees differ
along one path alone. Why that is safe, and on what assumption: `hush.protocols.replicated.dpf`.
"""

from __future__ import annotations

import hashlib

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

BLOCK = 16  # bytes of a seed
LEVEL = BLOCK + 1  # bytes of a level's correction: a seed's, and two control bits
Words = NDArray[np.uint64]  # [..., 2]: a block as two little-endian words
Integers = NDArray[np.uint64]
ONE = np.uint64(1)
_SEED = np.array([0xFFFFFFFFFFFFFFFE, 0xFFFFFFFFFFFFFFFF], dtype=np.uint64)


def fixed(name: bytes) -> bytes:
    """A public AES-128 key that nobody chose: the hash of its name."""
    return hashlib.sha256(b"hush dpf " + name).digest()[:BLOCK]


LEFT, RIGHT = fixed(b"left"), fixed(b"right")


def descend(nodes: list[Words], turn: Integers) -> tuple[NDArray[np.uint8], list[Words]]:
    """One level of both sides' paths: the correction [n, 17], and the next nodes.

    It makes the children where the path is left equal, control bits too, and the control bits of those on it different.
    """
    grown = [(grow(node, LEFT), grow(node, RIGHT)) for node in nodes]
    left, right = grown[0][0] ^ grown[1][0], grown[0][1] ^ grown[1][1]
    right_turn = (turn == ONE)[:, None]
    seed = np.where(right_turn, left, right) & _SEED
    control = (left[:, 0] & ONE) ^ turn ^ ONE, (right[:, 0] & ONE) ^ turn
    kept = np.where(right_turn, joined(seed, control[1]), joined(seed, control[0]))
    after = [np.where(right_turn, b, a) ^ (on(node) & kept) for node, (a, b) in zip(nodes, grown, strict=True)]
    marks = (control[0] | (control[1] << ONE)).astype(np.uint8)[:, None]
    return np.concatenate([as_bytes(seed), marks], 1), after


def grow(nodes: Words, key: bytes) -> Words:
    """AES(s) ^ s of every block."""
    flat = np.ascontiguousarray(nodes)
    room = np.empty(flat.nbytes + BLOCK - 1, np.uint8)  # what OpenSSL wants to be sure of
    Cipher(algorithms.AES(key), modes.ECB()).encryptor().update_into(flat.view(np.uint8).reshape(-1).data, room.data)
    grown: Words = room[: flat.nbytes].view(np.uint64).reshape(flat.shape)
    grown ^= flat
    return grown


def root(seeds: Words, side: int) -> Words:
    """Seeds with the control bit of a side's root."""
    return joined(seeds & _SEED, np.uint64(side))


def joined(seeds: Words, bit: Integers | np.uint64) -> Words:
    """Seeds whose lowest bit is free, with that bit."""
    out = seeds.copy()
    out[..., 0] |= bit
    return out


def on(nodes: Words) -> Words:
    """All ones [..., 1] where the control bit is set."""
    return (np.uint64(0) - (nodes[..., 0] & ONE))[..., None]


def as_words(data: NDArray[np.uint8]) -> Words:
    """Bytes read as words."""
    return np.ascontiguousarray(data).view(np.uint64)


def as_bytes(words: Integers) -> NDArray[np.uint8]:
    """The reverse."""
    return np.ascontiguousarray(words).view(np.uint8)
