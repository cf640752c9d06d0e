"""What networks that generate have in common: what a prompt may attend to, and the state kept between two tokens.

The prompt is padded on the LEFT, where it is padded, so that every answer begins at the same slot. State: keys and
values `k.{layer}`, `v.{layer}` [B, heads, slots, size], and `mask` [B, slots] (True: a token) of a padded prompt. Keys
and values of slots without a token are there, finite, and attended to by no token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

State = dict[str, Tensor]
Cache = tuple[Tensor, Tensor]  # keys, values

EVERY, LAST = slice(None), slice(-1, None)  # rows of a block's result
_NEVER = -1e9  # added to a score: far below every other, and finite, so that a slot that sees no token is no NaN


def attending(length: int, mask: Tensor | None = None, rows: slice = EVERY, group: int = 1) -> Tensor:
    """Which keys each of a prompt's slots, or those of `rows`, sees: itself and what came before, of these the tokens.

    Without a mask bool [Q, T], Q being rows times the `group` of queries that a slot has for each key. With one a sum
    of two terms [B, 1, Q, T]: the first is public, and stays so.
    """
    before = torch.ones(length, length, dtype=torch.bool).tril()[rows].repeat(group, 1)
    if mask is None:
        return before
    zero = torch.zeros(())
    return torch.where(before, zero, _NEVER) + torch.where(mask, zero, _NEVER)[:, None, None, :]


def stored(caches: Sequence[Cache]) -> State:
    """Keys and values of every layer by name."""
    return {f"{name}.{i}": part for i, cache in enumerate(caches) for name, part in zip("kv", cache, strict=True)}


def past(state: State, layer: int) -> Cache:
    """A layer's keys and values."""
    return state[f"k.{layer}"], state[f"v.{layer}"]


def grown(before: Cache | None, k: Tensor, v: Tensor) -> Cache:
    """Keys and values of further slots after those that there are."""
    return (k, v) if before is None else (torch.cat([before[0], k], 2), torch.cat([before[1], v], 2))


def grown_mask(state: State) -> State:
    """The mask with one more token, if there is one."""
    if "mask" not in state:
        return {}
    mask = state["mask"]
    return {"mask": torch.cat([mask, torch.ones_like(mask[:, :1])], 1)}


def look_up(token: Tensor, table: Tensor) -> Tensor:
    """[B, V] one-hot rows -> [B, 1, H]: the row that each one marks."""
    return (token.to(table.dtype) @ table)[:, None]
