"""What the proxy and `hush chat` need of private inference, and the client that gives it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from hush.mpc.compiler import InputSpec, Kind, Program
from hush.mpc.compiler.types import dtype_named
from hush.mpc.errors import ShapeError, UserError
from hush.parties.client import Client, DeployedModel
from hush.parties.compare import tensors
from hush.parties.generation import Generation


@dataclass(frozen=True, slots=True)
class Facts:
    """What is public of a deployed model. `rooms`: lengths that it was compiled for, in order; `padded`: whether texts
    between them will do. `context`: positions of prompt and answer, None for a model that does not generate."""

    rooms: tuple[int, ...]
    padded: bool
    context: int | None = None

    @property
    def room(self) -> int:
        """The longest text."""
        return self.rooms[-1]

    def takes(self, length: int) -> bool:
        """Whether a text of so many tokens can be asked."""
        return 0 < length <= self.room if self.padded else length in self.rooms

    def longest_answer(self, length: int) -> int:
        """New tokens that fit after a prompt of so many, as it is padded: the last one takes no position."""
        padded = next((room for room in self.rooms if length <= room), self.room)
        return 0 if self.context is None else self.context - padded + 1


class Tokens(Iterator[int], Protocol):
    """An answer as it is revealed. `close` may be called at any time, from another thread too, and ends a turn that is
    under way; `stopped`: a stop token ended it; `bytes_sent`: by the three parties so far, to each other."""

    @property
    def stopped(self) -> bool: ...
    @property
    def bytes_sent(self) -> int: ...
    def close(self) -> None: ...


class Backend(Protocol):
    """Private inference as it is asked for here. Calls block; HushError says what is wrong."""

    def models(self) -> Sequence[DeployedModel]:
        """What is deployed."""

    def facts(self, model: str) -> Facts:
        """Of a model; PartyError(UNKNOWN_MODEL) if it is not deployed."""

    def generate(
        self,
        model: str,
        ids: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float,
        top_k: int | None,
        stop: Sequence[int],
        fixed_length: bool,
    ) -> Tokens:
        """`Client.generate`."""

    def embed(self, model: str, ids: Sequence[int], pad: int) -> list[float]:
        """The vector of a text. UserError for a model that gives none."""


class PartyBackend:
    """Three running parties, through a client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def models(self) -> Sequence[DeployedModel]:
        """What all three parties hold alike."""
        return self._client.models()

    def facts(self, model: str) -> Facts:
        """Asked of the parties each time: a model may be deployed anew, or gone, while the proxy runs."""
        held = {found.name: found.digest for found in self._client.models()}
        if held.get(model) != self._client.program(model).digest:
            self._client.forget(model)
        return facts(self._client.program(model))

    def generate(self, model: str, ids: Sequence[int], **options: Any) -> Tokens:
        """`Client.generate`."""
        return _Counted(self._client.generate(model, ids, **options))

    def embed(self, model: str, ids: Sequence[int], pad: int) -> list[float]:
        """One inference; of its outputs the one of shape [1, D]."""
        program = self._client.program(model)
        output = self._client.run(model, (), encoder_call(program, ids, pad)).output
        vectors = [t for t in tensors(output) if t.dtype.is_floating_point and t.ndim == 2 and t.shape[0] == 1]
        if len(vectors) != 1:
            shapes = ", ".join(str(tuple(t.shape)) for t in tensors(output))
            raise UserError(f"{model} is no sentence encoder: it gives {shapes}, and an embedding is one [1, D]")
        return [float(value) for value in vectors[0][0]]


class _Counted:
    """A generation with the sum of its reports."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return next(self._generation)

    @property
    def stopped(self) -> bool:
        """Whether a stop token ended it."""
        return self._generation.stopped

    @property
    def bytes_sent(self) -> int:
        """Of all turns so far."""
        return sum(sum(report.cost.bytes_sent) for report in self._generation.reports)

    def close(self) -> None:
        """Free the session."""
        self._generation.close()


def facts(program: Program) -> Facts:
    """What a program says of the texts that it takes. UserError if it takes none."""
    dealt = [spec for spec in program.inputs if spec.dealt]
    if not dealt or dealt[0].kind is Kind.REAL or len(dealt[0].shape) != 2 or dealt[0].shape[0] != 1:
        raise UserError("this model was not deployed for single texts: the proxy needs token ids of shape [1, length]")
    context = None if program.generation is None else program.generation.context
    rooms = tuple(first.inputs[0].shape[-1] for first in program.firsts)
    return Facts(rooms, any(_is_mask(spec) for spec in dealt[1:]), context)


def encoder_call(program: Program, ids: Sequence[int], pad: int) -> dict[str, Tensor]:
    """A text's arguments, padded on the right where there is a mask. ShapeError if it does not fit."""
    known = facts(program)
    room = known.room
    if not known.takes(len(ids)):
        exactly = "" if known.padded else "exactly "
        raise ShapeError(f"the text has {len(ids)} tokens, and the model was deployed for {exactly}{room}")
    first, *rest = (spec for spec in program.inputs if spec.dealt)
    call = {str(first.path[0]): torch.tensor([[*ids, *[pad] * (room - len(ids))]])}
    for spec in rest:
        if not _is_mask(spec):
            raise UserError(f"this model also takes {spec.name!r}, which no text gives")
        call[str(spec.path[0])] = (torch.arange(room) < len(ids))[None].to(dtype_named(spec.dtype))
    return call


def _is_mask(spec: InputSpec) -> bool:
    return spec.kind is Kind.BOOL or spec.path[0] == "attention_mask"
