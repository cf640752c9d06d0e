"""A network that generates, on shares beside itself in plaintext: figures of the prompt and of each step after it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from hush.mpc.compiler import Program
from hush.mpc.cost import Cost
from hush.mpc.errors import UserError
from hush.parties.cli.console import Report, megabytes
from hush.parties.cli.measure import Infer, Measured, all_cores, cost_json, layers
from hush.parties.cost import predicted, predicted_turn
from hush.parties.remote import Inference
from hush.parties.request import Request


@dataclass(frozen=True, slots=True)
class Plain:
    """A turn in plaintext: its logits, and the seconds that it took."""

    logits: Tensor
    seconds: float


@dataclass(frozen=True, slots=True)
class StepFigures:
    """One decode step: medians over the runs."""

    secure_s: float
    plain_s: float
    cost: Cost
    predicted: Cost | None
    max_abs_err: float

    def figures(self) -> dict[str, Any]:
        """As the JSON contract has it."""
        gap = {"plain_s": round(self.plain_s, 6), "max_abs_err": self.max_abs_err}
        return (
            {"secure_s": round(self.secure_s, 6)}
            | cost_json(self.cost)
            | gap
            | {"predicted": None if self.predicted is None else cost_json(self.predicted)}
        )


@dataclass(frozen=True, slots=True)
class Generated:
    """A prompt's figures, those of each step after it, and what was generated on shares and in plaintext."""

    prompt: Measured
    steps: list[StepFigures]
    tokens: list[list[int]]
    plain_tokens: list[list[int]]

    def figures(self) -> dict[str, Any]:
        """The measured part of the JSON contract."""
        found = {"decode": [step.figures() for step in self.steps]}
        return self.prompt.figures() | found | {"tokens": self.tokens, "plain_tokens": self.plain_tokens}


def check_room(name: str, program: Program, new: int) -> None:
    """UserError if the prompt and so many tokens pass the context."""
    assert program.generation is not None
    length, context = program.inputs[0].shape[-1], program.generation.context
    if length + new > context + 1:
        raise UserError(f"{length} positions and {new} new tokens: {name} has a context of {context}")


def table(name: str, made: Generated) -> Table:
    """Seconds, MB and rounds of the prompt and of each step."""
    rows = Table("turn", "on shares", "plaintext", "MB a party", "rounds", "largest error", title=name)
    for column in rows.columns[1:]:
        column.justify = "right"
    head = made.prompt
    cost = head.report.cost
    rows.add_row("prompt", *_row(head.secure_s, head.plain_s, cost, head.max_abs_err))
    for index, step in enumerate(made.steps, 2):
        rows.add_row(f"token {index}", *_row(step.secure_s, step.plain_s, step.cost, step.max_abs_err))
    return rows


def _row(secure: float, plain: float, cost: Cost, error: float) -> tuple[str, ...]:
    seconds = f"{secure:.3f} s", f"{plain:.4f} s"
    return *seconds, megabytes(sum(cost.bytes_sent) / len(cost.bytes_sent)), str(cost.rounds), f"{error:.1e}"


def measure(
    modules: tuple[nn.Module, nn.Module],
    call: Sequence[Any],
    program: Program,
    infer: Infer,
    new: int,
    repeat: int,
    report: Report,
    protocol: str = "replicated",
) -> Generated:
    """`new` tokens, greedily, `repeat` times after a warm-up of two turns. The program reveals logits: errors are those
    of the logits of every turn, plaintext being fed the tokens that were chosen on shares."""
    predicted(program)
    report("warm-up", 0.0)
    _secure(program, call, infer, min(new, 2), None)
    runs = []
    for index in range(repeat):
        progress = _shares(report, index, repeat, new)
        runs.append(_secure(program, call, infer, new, progress))
    tokens = torch.stack([done.output["token"] for done in runs[0]], 1)
    plain = _plain(modules, call, new, tokens)
    own = _plain(modules, call, new, None)
    turns = [_figures(program, [run[t] for run in runs], plain[t], t) for t in range(new)]
    prompt = _prompt(program, [run[0] for run in runs], plain[0])
    if protocol != "replicated":
        prompt, turns = replace(prompt, predicted=None), [replace(turn, predicted=None) for turn in turns]
    return Generated(
        prompt=prompt,
        steps=turns[1:],
        tokens=tokens.tolist(),
        plain_tokens=torch.stack([turn.logits.argmax(-1) for turn in own], 1).tolist(),
    )


def _shares(report: Report, index: int, repeat: int, new: int) -> Report:
    return lambda what, part: report(what, (index + part) / repeat)


def _secure(program: Program, call: Sequence[Any], infer: Infer, new: int, report: Report | None) -> list[Inference]:
    done = []
    for turn in range(new):
        follow = None
        if report is not None and turn == 0:
            follow = layers(program, lambda what, part: report(what, part / new))
        elif report is not None:
            report(f"token {turn + 1} of {new}", turn / new)
        done.append(infer([] if turn else call, follow, Request(turn > 0)))
    return done


def _plain(modules: tuple[nn.Module, nn.Module], call: Sequence[Any], new: int, forced: Tensor | None) -> list[Plain]:
    """The same turns in plaintext with a cache, after a warm-up; `forced`: tokens [B, new] in the place of its own."""
    prefill, step = modules
    with all_cores(), torch.inference_mode():
        prefill(*call)
        turns, state = list[Plain](), dict[str, Tensor]()
        for turn in range(new):
            begin = time.perf_counter()
            if turn == 0:
                made = prefill(*call)
            else:
                last = turns[-1].logits
                token = last.argmax(-1) if forced is None else forced[:, turn - 1]
                place = torch.tensor([call[0].shape[-1] + turn - 1])
                made = step(torch.nn.functional.one_hot(token, last.shape[-1]), place, state)
            state = made["state"]
            turns.append(Plain(made["logits"], time.perf_counter() - begin))
        return turns


def _errors(runs: Sequence[Inference], plain: Plain) -> tuple[float, float]:
    gaps = [(run.output["logits"].double() - plain.logits.double()).abs() for run in runs]
    return max(float(g.max()) for g in gaps), max(float(g.mean()) for g in gaps)


def _figures(program: Program, runs: Sequence[Inference], plain: Plain, turn: int) -> StepFigures:
    length = program.inputs[0].shape[-1]
    return StepFigures(
        secure_s=statistics.median(run.report.seconds for run in runs),
        plain_s=plain.seconds,
        cost=runs[0].report.cost,
        predicted=predicted_turn(program, held=None if turn == 0 else length + turn - 1),
        max_abs_err=_errors(runs, plain)[0],
    )


def _prompt(program: Program, runs: Sequence[Inference], plain: Plain) -> Measured:
    order = sorted(runs, key=lambda run: run.report.seconds)
    middle = order[(len(order) - 1) // 2]
    largest, mean = _errors(runs, plain)
    return Measured(
        secure=middle.output["logits"],
        plain=plain.logits,
        secure_s=statistics.median(run.report.seconds for run in runs),
        plain_s=plain.seconds,
        max_abs_err=largest,
        mean_abs_err=mean,
        predicted=predicted(program),
        report=middle.report,
    )
