"""Scores of an attention that are computed where they are asked for, a rectangle at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from hush.mpc.functions.chunks import cut
from hush.mpc.functions.tiles import Span, Tile
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step, done

Product = Callable[[Shared, Shared], Step[Shared]]


class Scores(ABC):
    """Scores [..., T, S] of queries against keys, of which parts can be had."""

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """Of all scores."""

    @property
    @abstractmethod
    def frac(self) -> int:
        """Their fraction bits."""

    @abstractmethod
    def part(self, dim: int, span: Span) -> Self:
        """Those with an index in a span along a leading dimension, counted from the last (-3, -4...)."""

    @abstractmethod
    def tile(self, p: Protocol, tile: Tile) -> Step[Shared]:
        """Those of some queries and some keys."""


@dataclass(frozen=True, slots=True)
class Given(Scores):
    """Scores that are there."""

    x: Shared

    @property
    def shape(self) -> torch.Size:
        """Of all scores."""
        return self.x.shape

    @property
    def frac(self) -> int:
        """Their fraction bits."""
        return self.x.frac

    def part(self, dim: int, span: Span) -> Given:
        """A slice."""
        return Given(cut(self.x, dim, *span))

    def tile(self, p: Protocol, tile: Tile) -> Step[Shared]:
        """A slice: no messages."""
        return done(cut(cut(self.x, -2, *tile.rows), -1, *tile.keys))


@dataclass(frozen=True, slots=True)
class Products(Scores):
    """Scores q @ k that are computed where they are asked for: q [..., T, D], k [..., D, S].

    `product` multiplies parts of q and k; what it makes has `bits` fraction bits.
    """

    q: Shared
    k: Shared
    product: Product
    bits: int

    @property
    def shape(self) -> torch.Size:
        """Of all scores."""
        lead = np.broadcast_shapes(self.q.shape[:-2], self.k.shape[:-2])
        return torch.Size((*lead, self.q.shape[-2], self.k.shape[-1]))

    @property
    def frac(self) -> int:
        """Their fraction bits."""
        return self.bits

    def part(self, dim: int, span: Span) -> Products:
        """Slices of both."""
        return replace(self, q=cut(self.q, dim, *span), k=cut(self.k, dim, *span))

    def tile(self, p: Protocol, tile: Tile) -> Step[Shared]:
        """One product of matrices."""
        return self.product(cut(self.q, -2, *tile.rows), cut(self.k, -1, *tile.keys))


@dataclass(frozen=True, slots=True)
class Shifted(Scores):
    """Scores and an addend that broadcasts to them, a secret one at their fraction bits."""

    scores: Scores
    addend: Shared | Tensor

    @property
    def shape(self) -> torch.Size:
        """Of all scores."""
        return torch.Size(np.broadcast_shapes(self.scores.shape, self.addend.shape))

    @property
    def frac(self) -> int:
        """Their fraction bits."""
        return self.scores.frac

    def part(self, dim: int, span: Span) -> Shifted:
        """Slices of both."""
        return Shifted(self.scores.part(dim, span), cut(self.addend, dim, *span))

    def tile(self, p: Protocol, tile: Tile) -> Step[Shared]:
        """The scores' tile, and the addend's part of it: no message more."""
        scores = yield from self.scores.tile(p, tile)
        part = cut(cut(self.addend, -2, *tile.rows), -1, *tile.keys)
        return p.add(scores, part) if isinstance(part, Shared) else p.add_public(scores, part)
