"""Where the command line writes: results to stdout, progress and complaints to stderr."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Report = Callable[[str, float], None]
"""report(what, fraction): called as work goes on, fraction in [0, 1]."""
Stage = Callable[[str], Report]
"""stage(name): the next stage begins, and the one before is over."""


def out() -> Console:
    """The console of results: made when it is used, so that a redirected stdout is respected."""
    return Console(highlight=False)


def err() -> Console:
    """The console of progress and complaints."""
    return Console(stderr=True, highlight=False)


def emit(value: Any) -> None:
    """One JSON document on stdout, and nothing else."""
    print(json.dumps(value, indent=2, allow_nan=False))


def complain(kind: str, text: str) -> None:
    """One line on stderr: an error or a warning."""
    colour = "red" if kind == "error" else "yellow"
    err().print(f"[{colour}]{kind}:[/{colour}] {escape(text)}", soft_wrap=True)


@contextmanager
def stages(total: int) -> Iterator[Stage]:
    """Progress of `total` stages on stderr: bars on a terminal, else a line as each stage ends."""
    console = err()
    with _bars(total, console) if console.is_terminal else _lines(total, console) as stage:
        yield stage


@contextmanager
def _bars(total: int, console: Console) -> Iterator[Stage]:
    columns = (SpinnerColumn(), BarColumn(16), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as progress:
        tasks: list[Any] = []

        def finish() -> None:
            if tasks:
                progress.update(tasks[-1], completed=1.0)
                progress.stop_task(tasks[-1])

        def stage(name: str) -> Report:
            finish()
            label = f"{len(tasks) + 1}/{total} {name}"
            task = progress.add_task(label, total=1.0)
            tasks.append(task)

            def report(what: str, fraction: float) -> None:
                progress.update(task, completed=fraction, description=f"{label}: {what}" if what else label)

            return report

        yield stage
        finish()


@contextmanager
def _lines(total: int, console: Console) -> Iterator[Stage]:
    count, name, begin = 0, "", 0.0

    def finish() -> None:
        if count:
            console.print(f"{count}/{total} {name}: {time.perf_counter() - begin:.1f} s", soft_wrap=True)

    def stage(label: str) -> Report:
        nonlocal count, name, begin
        finish()
        count, name, begin = count + 1, label, time.perf_counter()
        return lambda what, fraction: None

    yield stage
    finish()


def megabytes(count: float) -> str:
    """Bytes as MB (10^6)."""
    return f"{count / 1e6:,.1f}"
