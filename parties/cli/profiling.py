"""`hush bench --profile`: one more run, in which each party notes when it does what; a trace, a picture, a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from hush.mpc.errors import UserError
from hush.parties.cli import flame, trace
from hush.parties.cli.console import megabytes
from hush.parties.cli.measure import Infer
from hush.parties.cli.sources import Source
from hush.parties.profile import Sums, by_operator, short
from hush.parties.report import RunReport
from hush.parties.request import Request


@dataclass(frozen=True, slots=True)
class Turn:
    """A run with its profiles: an inference, or a turn of a program that generates."""

    name: str
    report: RunReport


def inference(infer: Infer, call: Sequence[Any]) -> list[Turn]:
    """One inference, profiled."""
    return [Turn("inference", infer(call, None, Request(profile=True)).report)]


def generation(infer: Infer, call: Sequence[Any], new: int) -> list[Turn]:
    """The prompt, and if more tokens are asked for the turn after it."""
    turns = [Turn("prompt", infer(call, None, Request(profile=True)).report)]
    if new > 1:
        turns.append(Turn("token 2", infer([], None, Request(True, profile=True)).report))
    return turns


def folder(source: Source, within: Path | None) -> Path:
    """Where a model's profile goes: a folder named after it."""
    parts = (source.name.replace("/", "_").replace(":", "_"), source.size, source.seq)
    stem = "-".join(str(part) for part in parts if part is not None)
    return (within or Path()) / f"hush-{stem}.profile"


def write(turns: Sequence[Turn], place: Path, title: str) -> list[Path]:
    """trace.json of all turns, and a picture of each: flame.svg, flame-token-2.svg. UserError if that cannot be."""
    made = {"trace.json": json.dumps(trace.document([turn.report.profiles for turn in turns]))}
    for index, turn in enumerate(turns):
        name = f"flame-{turn.name.replace(' ', '-')}.svg" if index else "flame.svg"
        made[name] = flame.draw(flame.tree(turn.report.profiles), f"{title}, {turn.name}")
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            (place / name).write_text(text)
    except OSError as error:
        raise UserError(f"the profile cannot be written to {place}: {error.strerror}") from None
    return [place / name for name in made]


def left_out(turns: Sequence[Turn]) -> int:
    """Spans that the parties had no room for."""
    return sum(profile.left_out for turn in turns for profile in turn.report.profiles)


def table(turn: Turn, title: str) -> Table:
    """Mean seconds of a party, bytes of all and rounds by operator; a round, and the time it takes, counts to the
    earliest operator that shares it. Those that send nothing are one row. Copying is told where a party is on a GPU."""
    rows = Table(title=f"{title}, {turn.name}", caption="seconds: of a party, mean; MB: of all parties, headers apart")
    rows.add_column("operator", no_wrap=True)
    found, local, whole = by_operator(turn.report.profiles), Sums(), Sums()
    times = ("seconds", "compute", "send", "wait", *(("copy",) if any(s.copy for s in found.values()) else ()))
    for name in (*times, "MB", "rounds"):
        rows.add_column(name, justify="right")
    for name, sums in found.items():
        whole.add(sums)
        if sums.rounds or any(sums.bytes_sent):
            rows.add_row(short(name), *_cells(sums, times))
        else:
            local.add(sums)
    rows.add_row("(no messages)", *_cells(local, times), end_section=True)
    rows.add_row("all", *_cells(whole, times))
    return rows


def _cells(sums: Sums, times: Sequence[str]) -> tuple[str, ...]:
    return *(f"{getattr(sums, name):.3f}" for name in times), megabytes(sum(sums.bytes_sent)), f"{sums.rounds:,}"
