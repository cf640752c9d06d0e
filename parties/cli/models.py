"""`hush models`: the networks that Hush knows."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from hush.models import registry
from hush.parties.cli import console


def describe(entry: registry.Entry) -> dict[str, Any]:
    """One network, as `hush models --json` prints it."""
    sizes = {name: entry.sizes[name].parameters() if name in entry.sizes else None for name in ("tiny", "paper")}
    return {
        "id": entry.id,
        "title": entry.title,
        "paper": entry.paper,
        "task": entry.task,
        "params": sizes,
        "status": "ready",
    }


def command(as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False) -> None:
    """List the networks: id, paper, task, parameters."""
    rows = [describe(entry) for entry in registry.entries()]
    if as_json:
        console.emit(rows)
        return
    table = Table("id", "title", "task", "paper", "parameters")
    for row in rows:
        counts = [f"{size} {count:,}" for size, count in row["params"].items() if count is not None]
        table.add_row(row["id"], row["title"], row["task"], row["paper"], ", ".join(counts))
    console.out().print(table)
