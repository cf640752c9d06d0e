"""Distributed point functions: two short keys for one secret place, each of which alone tells nothing of it.

`deal(places, classes)` makes two keys a place x in 0..classes-1; `expand(key, side)` turns each into a vector over the
ring, and the two vectors add up to the unit vector of x. After Boyle, Gilboa, Ishai, "Function Secret Sharing:
Improvements and Extensions", CCS 2016 (BGI16), figure 1, with early termination: the last level of the tree is not
grown, its two values are the halves of one leaf.

A key is a seed at the root, a correction for each level, and one for the leaves: 16 + 17 d + 16 bytes with
d = ceil(log2(classes)) - 1, 287 bytes at 50,257 classes. Its size is a function of `classes` alone. Both sides expand
the same tree; off the path to x their nodes are equal (their leaves cancel), on it they are independent, and the last
correction makes the difference of the leaves there the unit vector's entries.

Assumption: what BGI16 needs is a pseudorandom generator G with seeds of 128 bits. Ours is AES-128 under fixed public
keys in the form of Matyas, Meyer and Oseas, G(s) = (AES_K0(s) ^ s, AES_K1(s) ^ s), AES_K2(s) ^ s for the leaves, as
usual for this purpose: pseudorandom if AES under fixed keys behaves as a random permutation that anybody may evaluate.
The lowest bit of a node is its control bit and is cleared in its seed, so seeds have 127 bits of entropy.

Cost: dealing 4 AES blocks a level, both keys together; expanding 3 AES blocks per two values, in whole levels at once.
"""

from __future__ import annotations

import hashlib
import os

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 16  # bytes of a seed
_LEVEL = BLOCK + 1  # bytes of a level's correction: a seed's, and two control bits
_PER_LEAF = 2  # ring elements of 64 bits in a leaf
_BATCH = 4  # keys expanded at once: their widest level stays in a core's cache
Words = NDArray[np.uint64]  # [..., 2]: a block as two little-endian words
_CLEAR = np.array([0xFFFFFFFFFFFFFFFE, 0xFFFFFFFFFFFFFFFF], dtype=np.uint64)


def _fixed(name: bytes) -> algorithms.AES:
    """A public key that nobody chose: the hash of its name."""
    return algorithms.AES(hashlib.sha256(b"hush dpf " + name).digest()[:BLOCK])


_LEFT, _RIGHT, _LEAF = _fixed(b"left"), _fixed(b"right"), _fixed(b"leaf")


def depth(classes: int) -> int:
    """Levels of the tree: its leaves hold two values each."""
    if classes < 1:
        raise ValueError("a point function needs at least one class")
    return max(0, (classes - 1).bit_length() - 1)


def key_bytes(classes: int) -> int:
    """Size of one key of one place."""
    return BLOCK + _LEVEL * depth(classes) + BLOCK


# ---------------------------------------------------------------------- dealing
def deal(places: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Two keys for each place [n]: uint8 [n, key_bytes(classes)], from fresh seeds of the system's generator.

    Places are in 0..classes-1, else ValueError.
    """
    if places.numel() and (int(places.min()) < 0 or int(places.max()) >= classes):
        raise ValueError(f"places lie in 0..{classes - 1}")
    count, levels = places.numel(), depth(classes)
    x = places.reshape(-1).numpy().astype(np.uint64)
    seeds = [_random(count) for _ in range(2)]
    bits = [np.zeros(count, np.uint64), np.ones(count, np.uint64)]
    parts = [[_bytes(s)] for s in seeds]
    for level in range(levels):
        turn = (x >> np.uint64(levels - level)) & np.uint64(1)
        correction, seeds, bits = _descend(seeds, bits, turn)
        for own in parts:
            own.append(correction)
    last = _last(seeds, bits, x & np.uint64(1))
    keys = [np.concatenate([*own, _bytes(last)], 1) for own in parts]
    return torch.from_numpy(keys[0]), torch.from_numpy(keys[1])


def _descend(
    seeds: list[Words], bits: list[NDArray[np.uint64]], turn: NDArray[np.uint64]
) -> tuple[NDArray[np.uint8], list[Words], list[NDArray[np.uint64]]]:
    """One level of both keys' paths: the correction [n, 17], and the next seeds and control bits.

    The children that the path leaves are made equal, control bits too; those on it keep different control bits.
    """
    one = np.uint64(1)
    grown = [(_grow(s, _LEFT), _grow(s, _RIGHT)) for s in seeds]
    left, right = grown[0][0] ^ grown[1][0], grown[0][1] ^ grown[1][1]
    lost = np.where(turn[:, None] == one, left, right) & _CLEAR
    bit_left, bit_right = (left[:, 0] & one) ^ turn ^ one, (right[:, 0] & one) ^ turn
    keep_bit = np.where(turn == one, bit_right, bit_left)
    after, marks = [], []
    for (a, b), bit in zip(grown, bits, strict=True):
        kept = np.where(turn[:, None] == one, b, a)
        marks.append((kept[:, 0] & one) ^ (bit & keep_bit))
        after.append((kept & _CLEAR) ^ (lost & _mask(bit)[:, None]))
    control = (bit_left | (bit_right << one)).astype(np.uint8)[:, None]
    return np.concatenate([_bytes(lost), control], 1), after, marks


def _last(seeds: list[Words], bits: list[NDArray[np.uint64]], half: NDArray[np.uint64]) -> Words:
    """The leaves' correction: (-1)^t1 (unit - leaf_0 + leaf_1), in the ring of 64 bits."""
    unit = np.stack([half == 0, half == 1], 1).astype(np.uint64)
    gap = unit - _grow(seeds[0], _LEAF) + _grow(seeds[1], _LEAF)
    return np.where(bits[1][:, None] == 1, np.uint64(0) - gap, gap)


# ---------------------------------------------------------------------- expanding
def expand(keys: Tensor, classes: int, side: int) -> Tensor:
    """int64 [n, classes] in Z_2^64 of keys uint8 [n, key_bytes(classes)]: side 0 and side 1 add up to unit vectors."""
    if keys.shape[1] != key_bytes(classes):
        raise ValueError(f"a key for {classes} classes has {key_bytes(classes)} bytes, not {keys.shape[1]}")
    out = torch.empty(keys.shape[0], classes, dtype=torch.int64)
    for start in range(0, keys.shape[0], _BATCH):
        out[start : start + _BATCH] = _expand(keys[start : start + _BATCH].contiguous().numpy(), classes, side)
    return out


def _expand(raw: NDArray[np.uint8], classes: int, side: int) -> Tensor:
    count, levels = raw.shape[0], depth(classes)
    seeds = _words(raw[:, :BLOCK])[:, None, :] & _CLEAR
    bits = np.full((count, 1), side, np.uint64)
    for level in range(levels):
        start = BLOCK + level * _LEVEL
        width = -(-classes // (_PER_LEAF << (levels - 1 - level)))  # nodes of the next level that are needed
        seeds, bits = _widen(seeds, bits, raw[:, start : start + _LEVEL], width)
    leaves = _grow(seeds, _LEAF) + (_words(raw[:, -BLOCK:])[:, None, :] & _mask(bits)[:, :, None])
    values = leaves if side == 0 else np.uint64(0) - leaves
    return torch.from_numpy(values.reshape(count, -1)[:, :classes].view(np.int64))


def _widen(
    seeds: Words, bits: NDArray[np.uint64], correction: NDArray[np.uint8], width: int
) -> tuple[Words, NDArray[np.uint64]]:
    """The first `width` nodes of the next level, seeds [n, width, 2] and control bits [n, width]."""
    one = np.uint64(1)
    change, control = _words(correction[:, :BLOCK])[:, None, :], correction[:, BLOCK].astype(np.uint64)[:, None]
    on = _mask(bits)
    nodes = np.empty((seeds.shape[0], 2 * seeds.shape[1], 2), np.uint64)
    marks = np.empty(nodes.shape[:2], np.uint64)
    for child, key in enumerate((_LEFT, _RIGHT)):
        grown = _grow(seeds, key)
        marks[:, child::2] = (grown[..., 0] ^ (on & (control >> np.uint64(child)))) & one
        nodes[:, child::2] = (grown & _CLEAR) ^ (change & on[:, :, None])
    return nodes[:, :width], marks[:, :width]


# ---------------------------------------------------------------------- blocks
def _grow(seeds: Words, key: algorithms.AES) -> Words:
    """AES(s) ^ s of every block."""
    flat = np.ascontiguousarray(seeds)
    out = Cipher(key, modes.ECB()).encryptor().update(flat.view(np.uint8).reshape(-1).data)
    return np.frombuffer(out, np.uint64).reshape(flat.shape) ^ flat


def _random(count: int) -> Words:
    return np.frombuffer(os.urandom(BLOCK * count), np.uint64).reshape(count, 2) & _CLEAR


def _mask(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """All ones where the bit is set."""
    return np.uint64(0) - bits


def _words(data: NDArray[np.uint8]) -> Words:
    return np.ascontiguousarray(data).view(np.uint64)


def _bytes(words: Words) -> NDArray[np.uint8]:
    return np.ascontiguousarray(words).view(np.uint8).reshape(words.shape[0], BLOCK)
