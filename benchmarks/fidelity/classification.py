"""A small BERT that tells what a paragraph of a docstring is about, trained here: accuracy on held-out docstrings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

import hush
from fidelity import corpus
from fidelity.interpret import FIXED, in_batches, running
from fidelity.networks import LENGTH, VOCABULARY, classifier, fresh
from fidelity.part import Part, Row, Work, count_of, differences
from fidelity.train import CLS, PAD, Schedule, class_loss, tokenizer, trained, weights_digest
from hush.mpc.compiler import Program

BATCH, CALLS = 32, 4


@dataclass(frozen=True, slots=True)
class Examples:
    """Paragraphs as the network takes them, with their groups."""

    ids: Tensor
    mask: Tensor
    labels: Tensor


class Classification(Part):
    """Which group of modules a paragraph is from."""

    def __init__(self, work: Work) -> None:
        self.name, self._say = "bert", work.say
        seen, unseen = corpus.paragraphs(held=False), corpus.paragraphs(held=True)
        tokens = tokenizer(corpus.texts(held=False), VOCABULARY, work.folder)
        self._seen = examples(seen, tokens)
        self._unseen = examples(unseen[:: 20 if work.quick else 1], tokens)
        self._schedule = Schedule(steps=40 if work.quick else 1500, rate=1e-3)
        built = fresh(classifier, 1)
        made = corpus.digest([*(p.text for p in seen), repr(built), repr(self._schedule), torch.__version__])
        loss = class_loss(self._seen.ids, self._seen.mask, self._seen.labels, BATCH)
        path = work.folder / f"bert-{made}.safetensors"
        self.net = trained(built, loss, self._schedule, path, work.say)
        self._program = cache(self._compiled)

    def facts(self) -> dict[str, Any]:
        """As `Part.facts`."""
        return {
            "network": "BERT, 3 layers of 128, and a linear head",
            "parameters": sum(p.numel() for p in self.net.parameters()),
            "weights": weights_digest(self.net),
            "training": f"{self._schedule.steps} steps of {BATCH} out of {len(self._seen.labels)} paragraphs",
            "vocabulary": VOCABULARY,
            "groups": list(corpus.GROUPS),
            "examples": len(self._unseen.labels),
        }

    def _compiled(self, approx: str) -> Program:
        count = CALLS * BATCH
        rows = torch.arange(count) * (len(self._seen.labels) // count)  # training text: ranges are public
        ids, mask = (torch.split(part[rows], BATCH) for part in (self._seen.ids, self._seen.mask))
        first, *others = zip(ids, mask, strict=True)
        return hush.compile(self.net, first, approx=approx, ranges=others)

    @cached_property
    def _scores(self) -> Tensor:
        with torch.inference_mode():
            scores: Tensor = self.net(self._unseen.ids, self._unseen.mask)
        return scores

    def _accuracy(self, scores: Tensor) -> float:
        return float((scores.argmax(-1) == self._unseen.labels).double().mean())

    def reference(self) -> Row:
        """As `Part.reference`."""
        return {"accuracy": self._accuracy(self._scores), "other": 0, "largest": 0.0, "mean": 0.0, "violations": None}

    def measure(self, approx: str, interpretation: str) -> Row:
        """As `Part.measure`."""
        self._say(f"{len(self._unseen.labels)} paragraphs")
        with running(self._program(approx), interpretation) as run:
            scores = in_batches(run, (self._unseen.ids, self._unseen.mask), BATCH)
            violations = count_of(run.violations)
        largest, mean = differences(scores, self._scores)
        return {
            "accuracy": self._accuracy(scores),
            "other": int((scores.argmax(-1) != self._scores.argmax(-1)).sum()),
            "largest": largest,
            "mean": mean,
            "violations": violations if interpretation == FIXED else None,
        }


def examples(paragraphs: list[corpus.Labelled], tokens: Tokenizer) -> Examples:
    """CLS and the first tokens of each, padded on the right to LENGTH."""
    first, pad = tokens.token_to_id(CLS), tokens.token_to_id(PAD)
    rows = [[first, *encoded.ids[: LENGTH - 1]] for encoded in tokens.encode_batch([p.text for p in paragraphs])]
    ids = torch.tensor([row + [pad] * (LENGTH - len(row)) for row in rows])
    mask = torch.arange(LENGTH) < torch.tensor([len(row) for row in rows])[:, None]
    return Examples(ids, mask, torch.tensor([p.label for p in paragraphs]))
