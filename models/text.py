"""Text to token ids on the client, padded to a bucket so that the parties learn the bucket and not the length."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor

from hush.mpc.errors import UserError

BUCKETS = (16, 32, 64, 128, 256, 512)


def bucket(length: int) -> int:
    """The smallest bucket that holds `length` tokens."""
    for size in BUCKETS:
        if length <= size:
            return size
    raise UserError(f"the text has {length} tokens; the longest compiled length is {BUCKETS[-1]}: shorten or split it")


def tokenise(tokenizer: Tokenizer, text: str, length: int | None = None, pad: int = 0) -> tuple[Tensor, Tensor]:
    """Ids [1, L] and the bool mask of real tokens [1, L], padded to `length` (default: the text's bucket)."""
    if not text.strip():
        raise UserError("the text is empty: give at least one word")
    ids = tokenizer.encode(text).ids
    size = bucket(len(ids)) if length is None else length
    if len(ids) > size:
        raise UserError(f"the text has {len(ids)} tokens, the program was compiled for {size}: shorten or split it")
    return _pad(ids, size, pad)


def excerpt(tokenizer: Tokenizer, text: str, length: int, pad: int = 0) -> tuple[Tensor, Tensor]:
    """As `tokenise`, but a text that is too long is cut before its last token, which ends it."""
    ids = tokenizer.encode(text).ids
    return _pad(ids if len(ids) <= length else [*ids[: length - 1], ids[-1]], length, pad)


def _pad(ids: list[int], size: int, pad: int) -> tuple[Tensor, Tensor]:
    padded = torch.full((1, size), pad)
    padded[0, : len(ids)] = torch.tensor(ids)
    return padded, (torch.arange(size) < len(ids)).unsqueeze(0)
