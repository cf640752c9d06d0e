"""A small GPT-2 and a small LLaMA, trained here: perplexity of held-out text, and how prompts from it are continued."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import hush
from fidelity import corpus
from fidelity.interpret import FIXED, in_batches, running
from fidelity.networks import CONTEXT, GENERATING, VOCABULARY, fresh
from fidelity.part import Part, Row, Work, count_of, differences
from fidelity.train import Schedule, next_token_loss, stream, tokenizer, trained, weights_digest, windows
from hush.mpc.compiler import Program

Call = tuple[Tensor, Tensor]
PROMPT, SHORTEST = 32, 8  # tokens of the longest and the shortest prompt
BATCH = 8  # rows of CONTEXT tokens that are run together
CALLS = 4  # batches of training text that ranges are taken from


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is trained and measured."""

    schedule: Schedule
    rows: int  # of CONTEXT held-out tokens
    prompts: int
    new: int  # tokens that each prompt is continued by


FULL = Amount(Schedule(steps=2500, rate=4e-3), rows=64, prompts=50, new=16)
QUICK = Amount(Schedule(steps=40, rate=3e-3), rows=4, prompts=6, new=4)


class Language(Part):
    """A network that predicts the next token."""

    def __init__(self, name: str, work: Work) -> None:
        self.name, self._say = name, work.say
        self._kind, self._amount = GENERATING[name], QUICK if work.quick else FULL
        seen, unseen = corpus.texts(held=False), corpus.texts(held=True)
        tokens = tokenizer(seen, VOCABULARY, work.folder)
        self._seen, unseen_ids = stream(tokens, seen), stream(tokens, unseen)
        self._bytes_per_token = sum(len(text.encode()) for text in unseen) / len(unseen_ids)
        self._rows = windows(unseen_ids, CONTEXT + 1, self._amount.rows)
        self.prompts = _prompts(unseen_ids, self._amount.prompts)
        schedule, built = self._amount.schedule, fresh(self._kind.build, 1)
        made = corpus.digest([*seen, repr(built), repr(schedule), torch.__version__])
        loss = next_token_loss(self._seen, CONTEXT, BATCH)
        self.net = trained(built, loss, schedule, work.folder / f"{name}-{made}.safetensors", work.say)
        self._program, self._generator = cache(self._compiled), cache(self._compiled_generator)

    def facts(self) -> dict[str, Any]:
        """As `Part.facts`."""
        schedule = self._amount.schedule
        return {
            "network": self._kind.title,
            "parameters": sum(p.numel() for p in self.net.parameters()),
            "weights": weights_digest(self.net),
            "training": f"{schedule.steps} steps of {BATCH} x {CONTEXT} tokens out of {len(self._seen)}",
            "vocabulary": VOCABULARY,
            "bytes_per_token": round(self._bytes_per_token, 3),
            "tokens": self._rows[:, 1:].numel(),
            "by_frequency": round(self._perplexity(self._frequencies.log().expand(*self._rows[:, 1:].shape, -1)), 1),
            "prompts": len(self.prompts),
            "new": self._amount.new,
        }

    # ------------------------------------------------------------------ programs
    def _calls(self, width: int, batch: int) -> list[Tensor]:
        """Training text, for the ranges: they are public."""
        return list(torch.split(windows(self._seen, width, CALLS * batch), batch))

    def _compiled(self, approx: str) -> Program:
        first, *others = self._calls(CONTEXT, BATCH)
        return hush.compile(self.net, (first,), approx=approx, ranges=[(ids,) for ids in others])

    def _compiled_generator(self, approx: str) -> Program:
        prefill, step = self._kind.generator(self.net)
        calls = [_padded(list(ids), PROMPT) for ids in self._calls(PROMPT, len(self.prompts))]
        return hush.compile_generator(prefill, step, calls, context=PROMPT + self._amount.new, approx=approx)

    # ------------------------------------------------------------------ in float
    @cached_property
    def _frequencies(self) -> Tensor:
        """Of the tokens, in the training text: what a network knows that looks at nothing."""
        counts = torch.bincount(self._seen, minlength=VOCABULARY) + 1
        return counts / counts.sum()

    @cached_property
    def _logits(self) -> Tensor:
        with torch.inference_mode():
            return torch.cat([self.net(rows[:, :-1]) for rows in torch.split(self._rows, BATCH)])

    @cached_property
    def continued(self) -> list[list[int]]:
        """What the network itself goes on with, each prompt alone, without padding and without a cache."""
        found = []
        for prompt in self.prompts:
            ids = prompt.tolist()
            for _ in range(self._amount.new):
                ids.append(int(self._next(ids).argmax()))
            found.append(ids[len(prompt) :])
        return found

    def _next(self, ids: list[int]) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = self.net(torch.tensor([ids]))[0, -1]
        return logits

    def _perplexity(self, logits: Tensor) -> float:
        return math.exp(float(cross_entropy(logits.double().flatten(0, 1), self._rows[:, 1:].flatten())))

    # ------------------------------------------------------------------ figures
    def reference(self) -> Row:
        """As `Part.reference`."""
        count = len(self.continued)
        figures = {"perplexity": self._perplexity(self._logits), "change": 0.0, "same_next": 1.0}
        return figures | {"largest": 0.0, "mean": 0.0, "equal": count, "odd": [], "violations": None}

    def measure(self, approx: str, interpretation: str) -> Row:
        """As `Part.measure`."""
        self._say(f"{self._rows[:, 1:].numel()} tokens")
        with running(self._program(approx), interpretation) as run:
            logits = in_batches(run, (self._rows[:, :-1],), BATCH)
            violations = count_of(run.violations)
        self._say(f"{len(self.prompts)} prompts")
        with running(self._generator(approx), interpretation) as run:
            continued = self._continue(run)
            violations += count_of(run.violations)
        largest, mean = differences(logits, self._logits)
        odd = [o for i, tokens in enumerate(continued) if (o := self._odd(i, tokens)) is not None]
        perplexity = self._perplexity(logits)
        return {
            "perplexity": perplexity,
            "change": perplexity / self._perplexity(self._logits) - 1,
            "same_next": float((logits.argmax(-1) == self._logits.argmax(-1)).double().mean()),
            "largest": largest,
            "mean": mean,
            "equal": len(continued) - len(odd),
            "odd": odd,
            "violations": violations if interpretation == FIXED else None,
        }

    def _continue(self, run: Any) -> list[list[int]]:
        turns = [run.next_token(_padded(self.prompts, PROMPT))]
        turns += [run.next_token(None) for _ in range(self._amount.new - 1)]
        found: list[list[int]] = torch.stack(turns, 1).tolist()
        return found

    def _odd(self, index: int, tokens: list[int]) -> Row | None:
        """Where a continuation leaves the plain one, and by how much the plain logits prefer their own token there."""
        plain = self.continued[index]
        place = next((i for i, (a, b) in enumerate(zip(tokens, plain, strict=True)) if a != b), None)
        if place is None:
            return None
        logits = self._next([*self.prompts[index].tolist(), *plain[:place]])
        return {"prompt": index, "position": place, "gap": float(logits[plain[place]] - logits[tokens[place]])}


def _prompts(row: Tensor, count: int) -> list[Tensor]:
    """Pieces of a row, of every length from SHORTEST to PROMPT."""
    lengths = [SHORTEST + (7 * i) % (PROMPT - SHORTEST + 1) for i in range(count)]
    return [piece[:length] for piece, length in zip(windows(row, PROMPT, count), lengths, strict=True)]


def _padded(prompts: list[Tensor], room: int) -> Call:
    """Ids and mask [B, room], padded on the left."""
    ids, mask = torch.zeros(len(prompts), room, dtype=torch.int64), torch.zeros(len(prompts), room, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        ids[i, room - len(prompt) :] = prompt
        mask[i, room - len(prompt) :] = True
    return ids, mask
