"""Networks of token ids as entries of the registry: sizes, examples, ranges, texts, checkpoints, alike for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hush.models.checkpoint import Checkpoint, Names, find_checkpoint, from_source
from hush.models.initial import bare
from hush.models.registry import Call, Entry, Size
from hush.models.text import TEXTS, encode, excerpt, tokenise

FAMILIES = ("bert", "gpt2", "llama", "roberta")  # `model_type` of the checkpoints that can be loaded
CALLS = 3  # random calls beside the example that ranges are taken from


class Config(Protocol):
    """What this file asks of a network's configuration."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def longest(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One architecture. `kind`: the `model_type` of its checkpoints, whose tensors are called `names(config)`.

    `read(checkpoint)` gives a checkpoint's configuration, `network(config)` the network, `initialise(config)` one with
    its published initialisation. `padded`: it takes a mask, and texts are padded with `pad(config)`; else a text comes
    as long as it is. Examples have no id below `first`: those mean something.
    """

    kind: str
    names: Callable[[Any], Names]
    network: Callable[[Any], nn.Module]
    initialise: Callable[[Any], nn.Module]
    read: Callable[[Checkpoint], Any]
    padded: bool = False
    pad: Callable[[Any], int] = lambda config: 0
    first: int = 0
    generator: Callable[[nn.Module], tuple[nn.Module, nn.Module]] | None = None

    def load(self, checkpoint: Checkpoint) -> nn.Module:
        """The network of a checkpoint. ModelError for another type, and for weights that do not fit."""
        checkpoint.expect(self.kind, FAMILIES)
        config = self.read(checkpoint)
        module = bare(partial(self.network, config))
        checkpoint.load_into(module, self.names(config))
        return module


@dataclass(frozen=True, slots=True)
class Member:
    """A network of a family: its sizes with their default sequence lengths, and what the registry wants to know.

    `source`: the checkpoint that its one size was read from; its examples and ranges then use that one's texts.
    """

    family: Family
    id: str
    title: str
    paper: str
    task: str
    sizes: Mapping[str, tuple[Any, int]]
    err_bound: float | None
    source: str | None = None

    def entry(self) -> Entry:
        """As the registry has it."""
        network = self.family.network
        return Entry(
            id=self.id,
            title=self.title,
            paper=self.paper,
            task=self.task,
            sizes={name: Size(partial(network, c), seq, c.longest) for name, (c, seq) in self.sizes.items()},
            build=self.build,
            example=self.example,
            err_bound=self.err_bound,
            calibration=self.calibration,
            from_text=self.from_text,
            generator=self.family.generator,
            for_text=self.for_text if self.family.padded else None,
            adapt=self.adapt,
        )

    def build(self, size: str, source: str | None = None) -> nn.Module:
        """The network: of the checkpoint `source`, else with its published initialisation."""
        source = source or self.source
        if source is not None:
            return self.family.load(from_source(source))
        return self.family.initialise(self.sizes[size][0])

    def adapt(self, source: str) -> Entry:
        """This entry for a checkpoint of its family, whatever its sizes; no error bound is known then."""
        checkpoint = from_source(source)
        checkpoint.expect(self.family.kind, FAMILIES)
        config = self.family.read(checkpoint)
        seq = min(config.longest, next(iter(reversed(list(self.sizes.values()))))[1])
        return replace(self, sizes={"checkpoint": (config, seq)}, err_bound=None, source=source).entry()

    # ------------------------------------------------------------------ inputs
    def example(self, size: str, seq: int, batch: int, seed: int) -> Call:
        """Random ids [batch, seq], nothing of them padding."""
        numbers = torch.Generator().manual_seed(seed)
        return (torch.randint(self._first(size), self.sizes[size][0].vocab_size, (batch, seq), generator=numbers),)

    def _first(self, size: str) -> int:
        return self.family.first if self.sizes[size][0].vocab_size > self.family.first else 0

    def calibration(self, size: str, seq: int, batch: int) -> list[Call]:
        """Random ids, and a public text that fills the length where there is a tokenizer."""
        calls = [self.example(size, seq, batch, -1 - i) for i in range(CALLS)]
        return [*calls, *((ids,) for ids, mask in self._texts([" ".join(TEXTS * seq)], size, seq, batch) if mask.all())]

    def for_text(self, size: str, seq: int, batch: int) -> list[Call]:
        """Calls with a mask, the first of them without padding: random ids of several lengths, and public texts."""
        rows = [ids for ids, *_ in (self.example(size, seq, batch, 0), *self.calibration(size, seq, batch))]
        lengths = (seq, 1, max(1, seq // 2), seq)
        pad = self.family.pad(self.sizes[size][0])
        calls = [_cut(ids, lengths[i % len(lengths)], pad) for i, ids in enumerate(rows)]
        return [*calls, *self._texts(TEXTS, size, seq, batch)]

    def _texts(self, texts: Sequence[str], size: str, seq: int, batch: int) -> list[tuple[Tensor, Tensor]]:
        tokenizer = None if self.source is None else from_source(self.source).tokenizer_if_any
        if tokenizer is None:
            return []
        pairs = [excerpt(tokenizer, text, seq, self.family.pad(self.sizes[size][0])) for text in texts]
        return [(ids.expand(batch, -1), mask.expand(batch, -1)) for ids, mask in pairs]

    def from_text(self, text: str, length: int | None = None, source: str | None = None) -> Call:
        """The arguments for a text, with the tokenizer of the checkpoint.

        With a mask and padded to a bucket, for a network that takes one; else as long as the text, or padded to
        `length` with tokens after it, which change nothing of what comes before.
        """
        checkpoint = find_checkpoint(self.id, None, source or self.source)
        config = self.family.read(checkpoint)
        longest, pad = config.longest, self.family.pad(config)
        if self.family.padded:
            return tokenise(checkpoint.tokenizer, text, length, pad, longest)
        if length is None:
            length = min(longest, len(encode(checkpoint.tokenizer, text)))
        return tokenise(checkpoint.tokenizer, text, length, pad, longest)[:1]


def _cut(ids: Tensor, length: int, pad: int) -> tuple[Tensor, Tensor]:
    """The first `length` ids of each row, then padding; and the mask."""
    mask = (torch.arange(ids.shape[1]) < length).expand(ids.shape).contiguous()
    return torch.where(mask, ids, pad), mask
