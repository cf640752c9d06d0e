"""all-MiniLM-L6-v2 on our own sentence pairs: are similarities on shares those in float?"""

from __future__ import annotations

from collections import defaultdict
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

import hush
from fidelity.corpus import KINDS, PAIRS, digest, read_pairs
from fidelity.interpret import FIXED, in_batches, running
from fidelity.part import Part, Row, Work, correlation, count_of, differences
from hush.models import minilm
from hush.models.checkpoint import find_checkpoint
from hush.models.text import bucket, tokenise
from hush.mpc.compiler import Program

BATCH = {16: 32, 32: 16, 64: 8, 128: 4}  # sentences of one length that are run together
QUICK = 8  # pairs of each kind


class Similarity(Part):
    """Cosines of the embeddings of each pair's sentences."""

    def __init__(self, work: Work) -> None:
        self.name, self._say = "minilm", work.say
        pairs = read_pairs()
        self.pairs = [p for k in KINDS for p in [p for p in pairs if p.kind == k][: QUICK if work.quick else None]]
        self.sentences = sorted({s for p in self.pairs for s in (p.first, p.second)})
        checkpoint = find_checkpoint("minilm", minilm.PACKAGE)
        self.model, self._tokenizer = minilm.load(checkpoint), checkpoint.tokenizer
        self._program = cache(self._compiled)

    def facts(self) -> dict[str, Any]:
        """As `Part.facts`."""
        whole = digest([f"{p.kind}\t{p.first}\t{p.second}" for p in self.pairs])
        return {
            "network": "all-MiniLM-L6-v2, published weights",
            "pairs": len(self.pairs),
            "sentences": len(self.sentences),
            "lengths": {str(length): len(rows) for length, rows in self._by_length.items()},
            "data": f"{PAIRS.parent.name}/{PAIRS.name} {whole}",
        }

    @cached_property
    def _by_length(self) -> dict[int, list[int]]:
        """Places of the sentences by the length that each is padded to."""
        found: dict[int, list[int]] = defaultdict(list)
        for place, text in enumerate(self.sentences):
            found[bucket(len(self._tokenizer.encode(text).ids))].append(place)
        return dict(sorted(found.items()))

    def _call(self, length: int) -> tuple[Tensor, Tensor]:
        rows = [tokenise(self._tokenizer, self.sentences[place], length) for place in self._by_length[length]]
        return torch.cat([ids for ids, _ in rows]), torch.cat([mask for _, mask in rows])

    def _compiled(self, approx: str, length: int) -> Program:
        batch = BATCH[length]
        example = minilm.example("paper", length, batch, 0)
        return hush.compile(self.model, example, approx=approx, ranges=minilm.calibration("paper", length, batch))

    @cached_property
    def _plain(self) -> Tensor:
        with torch.inference_mode():
            return self._placed({length: self.model(*self._call(length)) for length in self._by_length})

    def _placed(self, found: dict[int, Tensor]) -> Tensor:
        """Embeddings in the order of the sentences."""
        places = torch.tensor([place for length in found for place in self._by_length[length]])
        return torch.cat(list(found.values())).double()[places.argsort()]

    def _similarities(self, embeddings: Tensor) -> Tensor:
        place = {sentence: i for i, sentence in enumerate(self.sentences)}
        first, second = (torch.tensor([place[getattr(p, side)] for p in self.pairs]) for side in ("first", "second"))
        return torch.nn.functional.cosine_similarity(embeddings[first], embeddings[second])

    def reference(self) -> Row:
        """As `Part.reference`: beside it, what the kinds of pairs look like to the network."""
        similar = self._similarities(self._plain)
        means = {k: float(similar[[i for i, p in enumerate(self.pairs) if p.kind == k]].mean()) for k in KINDS}
        return {"correlation": 1.0, "largest": 0.0, "mean": 0.0, "violations": None, "means": means}

    def measure(self, approx: str, interpretation: str) -> Row:
        """As `Part.measure`."""
        found, violations = {}, 0
        for length in self._by_length:
            self._say(f"{len(self._by_length[length])} sentences of up to {length} tokens")
            with running(self._program(approx, length), interpretation) as run:
                found[length] = in_batches(run, self._call(length), BATCH[length])
                violations += count_of(run.violations)
        embeddings = self._placed(found)
        plain, similar = self._similarities(self._plain), self._similarities(embeddings)
        largest, mean = differences(similar, plain)
        cosine = torch.nn.functional.cosine_similarity(embeddings, self._plain)
        return {
            "correlation": correlation(similar, plain),
            "largest": largest,
            "mean": mean,
            "least_cosine": float(cosine.min()),
            "violations": violations if interpretation == FIXED else None,
        }
