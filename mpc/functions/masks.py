"""Public additive masks: which entries of each row take part in a softmax, and what work that saves.

All of this is computed from the public mask alone, before and beside the secret values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hush.mpc.beside import beside
from hush.mpc.errors import RangeError
from hush.mpc.functions.contest import largest, largest_of_rows
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step


def settle(mask: Tensor) -> Tensor:
    """The mask in float64 with each row's largest entry at 0, which leaves softmax as it is.

    True of a boolean mask keeps an entry. A row that masks everything alike (-inf, finfo.min, -1e9) becomes zeros: its
    softmax is that of the scores alone. NaN and +inf are refused.
    """
    real = torch.where(mask, 0.0, -math.inf) if mask.dtype == torch.bool else mask.to(torch.float64)
    if bool(torch.isnan(real).any()) or bool((real == math.inf).any()):
        raise RangeError("a public softmax mask holds NaN or +inf: use 0 to keep an entry and -inf to mask it")
    top = real.amax(-1, keepdim=True)
    return torch.where(top == -math.inf, 0.0, real - torch.where(top == -math.inf, 0.0, top)).to(torch.float64)


@dataclass(frozen=True, slots=True)
class Rows:
    """The kept entries of rows of unequal length, laid one after the other.

    A tensor [*lead, *tail] is read as [L, M] (M = the dimensions the mask varies over, the last one always among them);
    `kept` [K] are flat places in M, `row` [K] the row of each, `lengths` [R].
    """

    kept: Tensor
    row: Tensor
    lengths: Tensor
    size: int

    @classmethod
    def of(cls, keep: Tensor) -> Rows:
        """The entries that a boolean tensor [..., n] keeps; every row keeps at least one."""
        flat = keep.reshape(-1, keep.shape[-1])
        kept = flat.reshape(-1).nonzero().reshape(-1)
        return cls(kept, kept // flat.shape[-1], flat.sum(-1), keep.numel())

    @property
    def longest(self) -> int:
        """Entries of the longest row."""
        return int(self.lengths.max())

    def gather(self, x: Shared) -> Shared:
        """[L, K] from [*lead, *tail]."""
        return x.reshape(-1, self.size)[:, self.kept]

    def scatter(self, x: Shared) -> Shared:
        """[L, M] from [L, K], 0 in the masked places."""
        kept = beside(self.kept, x.device)
        return x.local(lambda t: t.new_zeros(t.shape[0], self.size).index_copy_(1, kept, t))

    def spread(self, x: Shared) -> Shared:
        """[L, K] from one value a row, [L, R]."""
        return x[:, self.row]

    def per_row(self, x: Shared, shape: torch.Size) -> Shared:
        """[*lead, *tail[:-1], 1] from [L, R]."""
        return x.reshape(*shape[:-1], 1)

    def flat(self, x: Shared) -> tuple[Shared, Tensor]:
        """[L K] from [L, K], and the row of each entry among all L R."""
        lead = torch.arange(x.shape[0])[:, None] * len(self.lengths)
        return x.reshape(-1), (lead + self.row).reshape(-1)

    def unflat(self, x: Shared, shape: torch.Size) -> Shared:
        """[L, R] from [L R]; `shape`: that of the entries."""
        return x.reshape(shape[0], len(self.lengths))

    def count(self, x: Shared) -> int:
        """How many rows all entries [L, K] make."""
        return x.shape[0] * len(self.lengths)

    def sum(self, x: Shared) -> Shared:
        """[L, R]: the sum of each row of [L, K]."""
        count, row = len(self.lengths), beside(self.row, x.device)
        return x.local(lambda t: x.ring.reduce(t.new_zeros(t.shape[0], count).index_add_(1, row, t)))

    def maximum(self, p: Protocol, x: Shared, *, bound: float, drop: int) -> Step[Shared]:
        """[L, R]: the largest of each row of [L, K]."""
        return (yield from largest_of_rows(p, x, self.lengths, bound=bound, drop=drop))


@dataclass(frozen=True, slots=True)
class Whole:
    """Rows of equal length with nothing masked: the same operations on x as it is, [..., n]."""

    longest: int

    def gather(self, x: Shared) -> Shared:
        """x itself."""
        return x

    def scatter(self, x: Shared) -> Shared:
        """x itself."""
        return x

    def spread(self, x: Shared) -> Shared:
        """[..., 1] broadcasts by itself."""
        return x

    def per_row(self, x: Shared, shape: torch.Size) -> Shared:
        """x itself."""
        return x

    def flat(self, x: Shared) -> tuple[Shared, Tensor]:
        """Flattened, and the row of each entry."""
        return x.reshape(-1), torch.arange(self.count(x)).repeat_interleave(x.shape[-1])

    def unflat(self, x: Shared, shape: torch.Size) -> Shared:
        """[..., 1] from one value a row; `shape`: that of the entries."""
        return x.reshape(*shape[:-1], 1)

    def count(self, x: Shared) -> int:
        """How many rows."""
        return x.shape[:-1].numel()

    def sum(self, x: Shared) -> Shared:
        """[..., 1]: the sum of each row."""
        return x.sum(-1, keepdim=True)

    def maximum(self, p: Protocol, x: Shared, *, bound: float, drop: int) -> Step[Shared]:
        """[..., 1]: the largest of each row."""
        return (yield from largest(p, x, bound=bound, drop=drop))
