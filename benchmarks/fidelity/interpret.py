"""One program under its interpretations: float64 with the approximations, fixed point in one process, three parties.

The fourth, float, is the module itself. What differs between neighbours in this row is due to one thing: the
approximations, rounding, the protocol.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from hush.mpc import fixed_point
from hush.mpc.compiler import Program, execute, turn
from hush.mpc.secret import Shared
from hush.mpc.step import Step
from hush.parties.request import Request
from hush.parties.threads import ThreadTrio
from hush.protocols.fixed import Fixed
from hush.protocols.plain import Plain

FLOAT, APPROXIMATED, FIXED, SECURE = "float", "float, approximated", "fixed", "secure"
COMPILED = (APPROXIMATED, FIXED, SECURE)


class Running(Protocol):
    """A program with its weights in place."""

    def infer(self, args: Sequence[Tensor]) -> Tensor:
        """Of a program with one result: that, as real numbers."""

    def next_token(self, args: Sequence[Tensor] | None) -> Tensor:
        """Of a program that generates: the tokens [B] that follow a prompt, or with None those that follow them."""

    @property
    def violations(self) -> dict[str, int]:
        """How often a value left its range, by primitive; nothing is known of it where nothing is recorded."""


class OneProcess:
    """Under `Plain` or `Fixed`."""

    def __init__(self, program: Program, protocol: Plain | Fixed) -> None:
        assert program.weights is not None
        self._program, self._protocol = program, protocol
        self._weights: dict[str, Any] = dict(program.weights)
        if program.weights_mode == "secret":
            specs = program.weight_specs
            self._weights = {s.name: protocol.enter(program.weights[s.name], frac=s.frac) for s in specs}
        self._state: dict[str, Shared] | None = None

    def infer(self, args: Sequence[Tensor]) -> Tensor:
        """As `Running.infer`."""
        found = _finish(execute(self._program, self._protocol, self._weights, self._inputs(args)))
        return self._protocol.value_of(found[0])

    def next_token(self, args: Sequence[Tensor] | None) -> Tensor:
        """As `Running.next_token`."""
        inputs, state = ([], self._state) if args is None else (self._inputs(args), None)
        made = _finish(turn(self._program, self._protocol, self._weights, inputs, state))
        self._state = made.state
        return self._protocol.value_of(made.shown[0]).round().long()

    @property
    def violations(self) -> dict[str, int]:
        """As `Running.violations`."""
        return (
            dict(Counter(v.primitive for v in self._protocol.violations)) if isinstance(self._protocol, Fixed) else {}
        )

    def _inputs(self, args: Sequence[Tensor]) -> list[Shared]:
        """As the client encodes them: decoded again, since `Plain` holds no ring elements."""
        program, p = self._program, self._protocol
        specs = [spec for spec in program.inputs if spec.dealt]
        pairs = zip(program.encode_inputs(args), specs, strict=True)
        return [p.enter(fixed_point.decode(e, program.ring, s.frac), frac=s.frac) for e, s in pairs]


class ThreeParties:
    """Three threads over memory: the same computation as three processes over gRPC."""

    def __init__(self, program: Program, trio: ThreadTrio) -> None:
        self._program, self._trio = program, trio

    def infer(self, args: Sequence[Tensor]) -> Tensor:
        """As `Running.infer`. RuntimeError if the run did not cost what was predicted."""
        done = self._trio.infer(args)
        if done.report.cost != self._program.cost:
            raise RuntimeError(f"measured {done.report.cost}, predicted {self._program.cost}")
        found: Tensor = done.output
        return found.double()

    def next_token(self, args: Sequence[Tensor] | None) -> Tensor:
        """As `Running.next_token`."""
        done = self._trio.infer(args or (), None, None, Request(continues=args is None))
        found: Tensor = done.output["token"]
        return found

    @property
    def violations(self) -> dict[str, int]:
        """Parties cannot see values, so they record none."""
        return {}


@contextmanager
def running(program: Program, interpretation: str) -> Iterator[Running]:
    """A program under one of COMPILED."""
    if interpretation == SECURE:
        with ThreadTrio(program) as trio:
            yield ThreeParties(program, trio)
    else:
        kind = Plain if interpretation == APPROXIMATED else Fixed
        with torch.inference_mode():
            yield OneProcess(program, kind(program.ring, program.frac))


def in_batches(run: Running, args: Sequence[Tensor], size: int) -> Tensor:
    """The results for any number of rows, `size` at a time: the last batch is filled up with its first row."""
    found = []
    for start in range(0, len(args[0]), size):
        rows = [arg[start : start + size] for arg in args]
        count = len(rows[0])
        full = [torch.cat([r, r[:1].expand(size - count, *r.shape[1:])]) for r in rows]
        found.append(run.infer(full)[:count])
    return torch.cat(found)


def _finish(step: Step[Any]) -> Any:
    """The result of a step that needs no messages."""
    try:
        while True:
            next(step)
    except StopIteration as stop:
        return stop.value
