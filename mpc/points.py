"""Handles of secret places that can be looked up and nothing else: what a party keeps of a client's own token ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Points:
    """Secret integers in 0..classes-1, each known by its keys alone. The repr never shows them.

    `parts` are the local tensors that the protocol keeps, [*shape, size]: the bytes of a party's two keys in the
    replicated protocol, the integers themselves in the single-process ones, meta tensors in a cost model.
    """

    parts: tuple[Tensor, ...]
    classes: int

    @property
    def shape(self) -> torch.Size:
        """Shape of the integers."""
        return self.parts[0].shape[:-1]

    @property
    def numel(self) -> int:
        """Number of integers."""
        return self.shape.numel()

    def local(self, fn: Callable[[Tensor], Tensor]) -> Points:
        """Apply to each part a rearrangement that leaves the last dimension alone."""
        return replace(self, parts=tuple(fn(p) for p in self.parts))

    def __repr__(self) -> str:
        return f"Points(shape={tuple(self.shape)}, classes={self.classes})"
