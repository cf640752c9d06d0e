"""The client's side of generation: a prompt in, tokens out one by one, each known to this client alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from hush.mpc.compiler import Kind, Program
from hush.mpc.errors import RangeError, ShapeError, UserError
from hush.mpc.functions.sampling import GREEDY, Choice
from hush.parties.remote import Inference, Progress
from hush.parties.report import RunReport
from hush.parties.request import Request

Infer = Callable[[Sequence[Any], Progress | None, Request], Inference]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a generation. `stop`: tokens after which this client asks for no more. `fixed_length`: go on to
    `new` tokens all the same, so that the parties do not learn where the answer ended; what follows is not shown."""

    new: int
    choice: Choice = GREEDY
    stop: frozenset[int] = frozenset()
    fixed_length: bool = False


class Generation(Iterator[int]):
    """Tokens of an answer, as they are revealed to this client. `close`, the end, or an error frees the session.

    Stop tokens are checked here: the parties see how many turns are asked for, never what was chosen. The token that
    stops is not among those given. `reports` has the cost of each turn, `tokens` what was given so far.
    """

    def __init__(
        self, program: Program, ids: Sequence[int], asked: Asked, infer: Infer, close: Callable[[], None]
    ) -> None:
        self._turns, self._ended, self._stopped = 0, True, False
        self._asked, self._infer, self._close = asked, infer, close
        self._first, self._args = prompt(program, ids, asked.new)
        self._ended = False
        self.progress: Progress | None = None
        self.tokens: list[int] = []
        self.reports: list[RunReport] = []

    @property
    def stopped(self) -> bool:
        """Whether a stop token ended the answer."""
        return self._stopped

    def __next__(self) -> int:
        while not self._ended and self._turns < self._asked.new:
            token = self._turn()
            if token in self._asked.stop:
                self._stopped = True
            if not self._stopped:
                self.tokens.append(token)
                return token
            if not self._asked.fixed_length:
                break
        self.close()
        raise StopIteration

    def _turn(self) -> int:
        request = Request(self._turns > 0, self._asked.choice, self._first if self._turns == 0 else 0)
        try:
            done = self._infer([] if request.continues else self._args, self.progress, request)
        except BaseException:
            self.close()
            raise
        self._turns += 1
        self.reports.append(done.report)
        return int(done.output["token"][0])

    def close(self) -> None:
        """Ask for no more; the parties forget the state."""
        if not self._ended:
            self._ended = True
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def prompt(program: Program, ids: Sequence[int], new: int) -> tuple[int, list[Tensor]]:
    """Which first turn takes a prompt, and its arguments, padded on the left where the program has a mask.

    The shortest that holds it. UserError if none does.
    """
    if program.generation is None:
        raise UserError("this model was not deployed to generate: ask it with infer, or deploy it for generation")
    if new < 1:
        raise UserError(f"max_new_tokens={new}: at least one token must be asked for")
    rooms, padded = [p.inputs[0].shape[-1] for p in program.firsts], any(s.kind is Kind.BOOL for s in program.inputs)
    first = next((i for i, size in enumerate(rooms) if len(ids) <= size), len(rooms) - 1)
    room = rooms[first]
    vocabulary, context = program.logits.shape[-1], program.generation.context
    if not ids:
        raise UserError("the prompt is empty: give at least one token")
    if len(ids) > room:
        raise ShapeError(f"the prompt has {len(ids)} tokens, and the model was deployed for {room}: shorten it")
    if not padded and len(ids) != room:
        exact = " or ".join(map(str, rooms))
        raise ShapeError(f"the prompt has {len(ids)} tokens, and the model was deployed for exactly {exact}")
    if room + new > context + 1:
        raise UserError(f"{room} positions of prompt and {new} new tokens pass the context of {context}")
    wrong = next((i for i in ids if not 0 <= i < vocabulary), None)
    if wrong is not None:
        raise RangeError(f"token {wrong} is not in the vocabulary of {vocabulary}: does the tokenizer fit the model?")
    row = torch.tensor([[0] * (room - len(ids)) + list(ids)])
    return first, [row, (torch.arange(room) >= room - len(ids))[None]] if padded else [row]
