"""Handles of secret values: what a party keeps of a secret tensor, opaque to everything above the protocols."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hush.mpc.beside import at
from hush.mpc.ring import Ring


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Shared:
    """A secret tensor of fixed-point numbers (or integers: frac=0).

    `parts` are the local tensors that the protocol keeps, each of the value's shape: (x_i, x_{i+1}) in the replicated
    protocol, one tensor in the single-process ones, meta tensors in a cost model. The repr never shows them.
    """

    parts: tuple[Tensor, ...]
    frac: int
    ring: Ring

    @property
    def shape(self) -> torch.Size:
        """Shape of the secret tensor."""
        return self.parts[0].shape

    @property
    def device(self) -> torch.device:
        """Where the parts lie."""
        return self.parts[0].device

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.parts[0].ndim

    @property
    def numel(self) -> int:
        """Number of elements."""
        return self.parts[0].numel()

    def local(self, fn: Callable[[Tensor], Tensor]) -> Shared:
        """Apply to each part a ring-linear function that does not depend on values (reshape, index, flip...)."""
        return replace(self, parts=tuple(fn(p) for p in self.parts))

    def reshape(self, *shape: int) -> Shared:
        """The same elements in another shape."""
        return self.local(lambda t: t.reshape(shape))

    def expand(self, *shape: int) -> Shared:
        """Broadcast to a shape, without copying."""
        return self.local(lambda t: t.expand(shape))

    def transpose(self, a: int, b: int) -> Shared:
        """Swap two dimensions."""
        return self.local(lambda t: t.transpose(a, b))

    def sum(self, dim: int | tuple[int, ...], keepdim: bool = False) -> Shared:
        """Sum over dimensions, in the ring."""
        return self.local(lambda t: self.ring.settle(t.sum(dim, keepdim=keepdim, dtype=t.dtype)))

    def __getitem__(self, index: object) -> Shared:
        own = at(index, self.device)
        return self.local(lambda t: t[own])

    def with_frac(self, frac: int) -> Shared:
        """The same ring elements read at another scale: multiplies the value by 2^(self.frac - frac), for free."""
        return replace(self, frac=frac)

    def __repr__(self) -> str:
        return f"Shared(shape={tuple(self.shape)}, frac={self.frac}, ring=2^{self.ring.bits}, parts={len(self.parts)})"


def concat(values: list[Shared], dim: int) -> Shared:
    """Concatenate secrets of one ring and scale."""
    first = values[0]
    parts = tuple(torch.cat([v.parts[i] for v in values], dim) for i in range(len(first.parts)))
    return replace(first, parts=parts)


def stack(values: list[Shared], dim: int = 0) -> Shared:
    """Stack secrets of one ring and scale along a new dimension."""
    first = values[0]
    parts = tuple(torch.stack([v.parts[i] for v in values], dim) for i in range(len(first.parts)))
    return replace(first, parts=parts)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class SharedBits:
    """Secret bit strings, bit-sliced: plane j holds bit j (0 = least significant) of every element.

    `parts` are int64 tensors [planes, words], words = ceil(numel/64), 64 elements to a word, element e in word e//64 at
    bit e%64 (flat, row-major order of `shape`). Bits past numel are unspecified and must not be read.
    """

    parts: tuple[Tensor, ...]
    shape: torch.Size

    @property
    def planes(self) -> int:
        """Number of bits per element."""
        return self.parts[0].shape[0]

    @property
    def numel(self) -> int:
        """Number of elements."""
        return self.shape.numel()

    def reshape(self, *shape: int) -> SharedBits:
        """The same elements in another shape of as many elements."""
        return replace(self, shape=torch.empty(self.shape, device="meta").reshape(shape).shape)

    def plane(self, index: int) -> SharedBits:
        """One bit of every element, as one plane."""
        return self[index : index + 1]

    def __getitem__(self, planes: slice) -> SharedBits:
        return replace(self, parts=tuple(p[planes] for p in self.parts))

    def __repr__(self) -> str:
        return f"SharedBits(shape={tuple(self.shape)}, planes={self.planes})"


def words(numel: int) -> int:
    """64-bit words that one plane of `numel` bits takes."""
    return -(-numel // 64)


def join_planes(values: list[SharedBits]) -> SharedBits:
    """Bit strings put one above the other: the first value's planes are the least significant."""
    first = values[0]
    parts = tuple(torch.cat([v.parts[i] for v in values]) for i in range(len(first.parts)))
    return replace(first, parts=parts)
