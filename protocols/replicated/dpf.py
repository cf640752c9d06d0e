"""Distributed point functions: two short keys for one secret place, each of which alone tells nothing of it.

`deal(places, classes)` makes two keys a place x in 0..classes-1; `expand(key, side)` turns each into a vector over the
ring, and the two vectors add up to the unit vector of x. After Boyle, Gilboa, Ishai, "Function Secret Sharing:
Improvements and Extensions", CCS 2016 (BGI16), figure 1, with early termination: the last three levels of the tree are
not grown, a leaf holds eight values.

A key is a seed at the root, a correction for each level, and one for the leaves: 16 + 17 d + 64 bytes with
d = ceil(log2(classes)) - 3 (or 0), 301 bytes at 50,257 classes. Its size is a function of `classes` alone.

Why the two add up. A node is a block of 16 bytes; its lowest bit is its control bit. Both sides grow the same tree, and
where a node's control bit is set they add the level's correction to its children. Invariant: off the path to x the two
sides' nodes are equal; on it they differ, in the control bit too. The roots differ (bits 0 and 1). Children of equal
nodes are equal, corrected or not. Of a node on the path exactly one side corrects both children: the correction is the
XOR of the two sides' children where the path is left, which become equal, and flips the control bit of the child on the
path if both sides had it alike. At the end equal leaves cancel (side 1 negates its own), and on the path the last
correction, added by the side whose bit is set, makes their difference the unit vector's eight entries.

Assumption: what BGI16 needs is a pseudorandom generator G. Ours is AES-128 under fixed public keys in the form of
Matyas, Meyer and Oseas, G(s) = (AES_K0(s) ^ s, AES_K1(s) ^ s), and with four more keys for a leaf, as usual for this
purpose: pseudorandom if AES under fixed keys behaves as a random permutation that anybody may evaluate. The other 127
bits of a node are its seed: with the control bit known, that is its entropy.

Cost: dealing 4 AES blocks a level, both keys together; expanding 3/4 of a block a value, in whole levels at once. With
two values a leaf keys are 287 bytes and expanding takes twice the time.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hush.mpc.ring.blocks import (
    BLOCK,
    LEFT,
    LEVEL,
    ONE,
    RIGHT,
    Integers,
    Words,
    as_bytes,
    as_words,
    descend,
    fixed,
    grow,
    joined,
    on,
    root,
)

_SKIPPED = 3  # levels that are not grown
_PER_LEAF = 1 << _SKIPPED  # ring elements of 64 bits in a leaf
_LEAF_BYTES = 8 * _PER_LEAF
_BATCH = 8  # keys expanded at once: their widest level stays in a core's cache
_LEAF = [fixed(b"leaf %d" % block) for block in range(_LEAF_BYTES // BLOCK)]


def depth(classes: int) -> int:
    """Levels of the tree that are grown."""
    if classes < 1:
        raise ValueError("a point function needs at least one class")
    return max(0, (classes - 1).bit_length() - _SKIPPED)


def key_bytes(classes: int) -> int:
    """Size of one key of one place."""
    return BLOCK + LEVEL * depth(classes) + _LEAF_BYTES


# ---------------------------------------------------------------------- dealing
def deal(places: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Two keys for each place [n]: uint8 [n, key_bytes(classes)], from fresh seeds of the system's generator.

    Places are in 0..classes-1, else ValueError.
    """
    if places.numel() and (int(places.min()) < 0 or int(places.max()) >= classes):
        raise ValueError(f"places lie in 0..{classes - 1}")
    count, levels = places.numel(), depth(classes)
    x = places.reshape(-1).numpy().astype(np.uint64)
    nodes = [root(_random(count), side) for side in range(2)]
    parts = [[as_bytes(node)] for node in nodes]
    for level in range(levels):
        correction, nodes = descend(nodes, (x >> np.uint64(levels - 1 - level + _SKIPPED)) & ONE)
        for own in parts:
            own.append(correction)
    last = _last(nodes, x & np.uint64(_PER_LEAF - 1))
    keys = [np.concatenate([*own, as_bytes(last)], 1) for own in parts]
    return torch.from_numpy(keys[0]), torch.from_numpy(keys[1])


def _last(nodes: list[Words], entry: Integers) -> Integers:
    """The leaves' correction [n, 8]: unit - leaf_0 + leaf_1 in the ring of 64 bits, negated where side 1 adds it."""
    unit = (entry[:, None] == np.arange(_PER_LEAF, dtype=np.uint64)).astype(np.uint64)
    first, second = (np.concatenate([grow(node, key) for key in _LEAF], 1) for node in nodes)
    gap: Integers = unit - first + second
    np.negative(gap, out=gap, where=on(nodes[1]) != 0)
    return gap


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
    nodes = root(as_words(raw[:, :BLOCK]), side)[:, None, :]
    for level in range(levels):
        start = BLOCK + level * LEVEL
        width = -(-classes // (_PER_LEAF << (levels - 1 - level)))  # nodes of the next level that are needed
        nodes = _widen(nodes, raw[:, start : start + LEVEL], width)
    values = _leaves(nodes, as_words(raw[:, -_LEAF_BYTES:]), side)
    return torch.from_numpy(values.reshape(count, -1)[:, :classes].view(np.int64))


def _widen(nodes: Words, correction: NDArray[np.uint8], width: int) -> Words:
    """The first `width` nodes [n, width, 2] of the next level."""
    seed, marks, active = as_words(correction[:, :BLOCK]), correction[:, BLOCK].astype(np.uint64), on(nodes)
    after = np.empty((nodes.shape[0], width, 2), np.uint64)
    for child, key in enumerate((LEFT, RIGHT)):
        grown = grow(nodes, key)
        grown ^= active & joined(seed, (marks >> np.uint64(child)) & ONE)[:, None, :]
        after[:, child::2] = grown[:, : (width + 1 - child) // 2]
    return after


def _leaves(nodes: Words, correction: Integers, side: int) -> Integers:
    """Values [n, width, 8] of all leaves, corrected; of side 1 their negatives."""
    active, values = on(nodes), np.empty((*nodes.shape[:2], _PER_LEAF), np.uint64)
    for block, key in enumerate(_LEAF):
        cut = slice(2 * block, 2 * block + 2)
        leaf, change = grow(nodes, key), correction[:, None, cut]
        if side == 0:
            np.add(leaf, active & change, out=values[..., cut])
        else:
            np.subtract(active & (np.uint64(0) - change), leaf, out=values[..., cut])
    return values


def _random(count: int) -> Words:
    return np.frombuffer(os.urandom(BLOCK * count), np.uint64).reshape(count, 2)
