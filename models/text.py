"""Text to token ids on the client, padded to a bucket so that the parties learn the bucket and not the length."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor

from hush.mpc.errors import UserError

SHORTEST, LONGEST = 16, 512
TEXTS = (  # public: what ranges are taken from must be no client's
    "Yes.",
    "Revenue fell 3.2% to $14.7 million in Q4 2023, the company said on Tuesday.",
    "Ich habe den Schlüssel im Auto vergessen, und jetzt regnet es!!! :-(",
    "Glaciers carve valleys as they slide downhill under their own weight, grinding rock to flour as fine as silt.",
)


def bucket(length: int, longest: int = LONGEST) -> int:
    """The smallest of 16, 32, 64, ... and `longest` that holds `length` tokens."""
    if length > longest:
        raise UserError(f"the text has {length} tokens; the longest compiled length is {longest}: shorten or split it")
    size = SHORTEST
    while size < length:
        size *= 2
    return min(size, longest)


def tokenise(
    tokenizer: Tokenizer, text: str, length: int | None = None, pad: int = 0, longest: int = LONGEST
) -> tuple[Tensor, Tensor]:
    """Ids [1, L] and the bool mask of real tokens [1, L], padded to `length` (default: the text's bucket)."""
    ids = encode(tokenizer, text)
    size = bucket(len(ids), longest) if length is None else length
    if len(ids) > size:
        raise UserError(f"the text has {len(ids)} tokens, the program was compiled for {size}: shorten or split it")
    return _pad(ids, size, pad)


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text that says something."""
    if not text.strip():
        raise UserError("the text is empty: give at least one word")
    ids: list[int] = tokenizer.encode(text).ids
    return ids


def excerpt(tokenizer: Tokenizer, text: str, length: int, pad: int = 0) -> tuple[Tensor, Tensor]:
    """As `tokenise`, but a text that is too long is cut before its last token, which ends it."""
    ids = tokenizer.encode(text).ids
    return _pad(ids if len(ids) <= length else [*ids[: length - 1], ids[-1]], length, pad)


def _pad(ids: list[int], size: int, pad: int) -> tuple[Tensor, Tensor]:
    padded = torch.full((1, size), pad)
    padded[0, : len(ids)] = torch.tensor(ids)
    return padded, (torch.arange(size) < len(ids)).unsqueeze(0)
