"""One turn of a program that generates: logits, the token chosen from them, and what is kept for the next turn.

What is kept stays in shares: keys and values of the positions so far, the chosen token as a one-hot row. Nothing here
is opened, and only what `shown` holds ever leaves the parties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hush.mpc.compiler.execute import Observer, execute
from hush.mpc.compiler.ops import args_of
from hush.mpc.compiler.probe import Probe
from hush.mpc.compiler.program import Program
from hush.mpc.compiler.types import Kind, type_of
from hush.mpc.errors import ProgramError
from hush.mpc.functions.sampling import GREEDY, Choice, choose
from hush.mpc.points import Points
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step

CHOICE = "(choice)"
"""The layer that choosing a token counts to."""
LOGITS, TOKEN = "logits", "token"


@dataclass(frozen=True, slots=True, repr=False)
class Turn:
    """What a turn leaves: for the client the chosen token [B] (and the logits [B, V] where the program says so), for
    the next turn the state by name."""

    shown: list[Shared]
    state: dict[str, Shared] = field(default_factory=dict)


def turn(
    head: Program,
    protocol: Protocol,
    weights: Mapping[str, Shared | Tensor],
    inputs: Sequence[Shared | Points],
    state: Mapping[str, Shared] | None = None,
    choice: Choice = GREEDY,
    observer: Observer | None = None,
    first: int = 0,
    probe: Probe | None = None,
) -> Step[Turn]:
    """A first turn (`first`: which), on the client's `inputs`; or, given a `state`, the one that goes on with it."""
    assert head.generation is not None
    program = head.firsts[first] if state is None else head.generation.then
    held = length(program, state or {})
    if state is not None and held >= head.generation.context:
        raise ProgramError(f"the state holds {held} positions, and {head.generation.context} is the most")
    leaves = yield from execute(program, protocol, weights, feed(program, inputs, state or {}), observer, probe)
    kept = _kept(program, protocol, leaves)
    if observer is not None:
        observer(CHOICE)
    if probe is not None:
        probe.enter(CHOICE)
    logits = kept.pop(LOGITS)
    token, row = yield from choose(protocol, logits, bound=_bound(program), choice=choice)
    shown = [token, logits] if head.generation.reveals == LOGITS else [token]
    return Turn(shown, kept | {TOKEN: row})


def feed(program: Program, inputs: Sequence[Any], state: Mapping[str, Any]) -> list[Any]:
    """A program's inputs in its order: the client's, what was kept, and the place that comes next."""
    rest, place = iter(inputs), torch.tensor([length(program, state)])
    return [
        place if spec.kind is Kind.PLACE else state[spec.state] if spec.state else next(rest) for spec in program.inputs
    ]


def length(program: Program, state: Mapping[str, Shared]) -> int:
    """How many positions the state holds."""
    found = ((spec.state, spec.grows) for spec in program.inputs if spec.grows is not None)
    return next((state[name].shape[dim] for name, dim in found if name in state), 0)


def _kept(program: Program, protocol: Protocol, leaves: Sequence[Shared]) -> dict[str, Shared]:
    """Results by the name that they are kept under; public ones as trivial shares."""
    rest = iter(leaves)
    kept = {}
    for spec in program.outputs:
        if spec.kind is not None:
            kept[spec.keep] = next(rest)
        elif isinstance(spec.literal, Tensor):
            frac = protocol.frac if spec.literal.is_floating_point() else 0
            kept[spec.keep] = protocol.constant(spec.literal, frac=frac)
    return kept


def _bound(program: Program) -> float:
    """Largest magnitude of the logits."""
    secret = [spec for spec in program.outputs if spec.kind is not None]
    place = next(i for i, spec in enumerate(secret) if spec.keep == LOGITS)
    result: Any = next(iter(reversed(program.graph.nodes)))
    return type_of(args_of(result)[0][place]).bound
