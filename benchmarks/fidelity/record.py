"""What was measured of one part, kept in a file from one interpretation to the next, so that a run can be taken up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fidelity.interpret import COMPILED, FLOAT
from fidelity.part import Part, Row, Say
from hush.mpc.functions.sets import SETS


@dataclass(slots=True)
class Record:
    """The figures of one part by interpretation, with what they were measured on."""

    part: str
    facts: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    measured: str = ""
    rows: dict[str, Row] = field(default_factory=dict)

    def row(self, approx: str, interpretation: str) -> Row:
        """The figures of an interpretation; those in float know no approximation set."""
        return self.rows[key(approx, interpretation)]

    @property
    def complete(self) -> bool:
        """Whether every interpretation is there."""
        return all(key(*which) in self.rows for which in every())

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        made = path.with_suffix(".part")
        made.write_text(json.dumps(asdict(self), indent=1) + "\n")
        made.replace(path)


def load(path: Path) -> Record | None:
    """The record in a file, if there is one."""
    return Record(**json.loads(path.read_text())) if path.is_file() else None


def key(approx: str, interpretation: str) -> str:
    """The name of a row in the file."""
    return FLOAT if interpretation == FLOAT else f"{approx} / {interpretation}"


def every() -> Iterator[tuple[str, str]]:
    """All that is measured of a part: (approximation set, interpretation)."""
    yield "", FLOAT
    for approx in SETS:
        for interpretation in COMPILED:
            yield approx, interpretation


def fill(record: Record, part: Part, path: Path, say: Say) -> None:
    """Measure what is missing, and write the file after each interpretation."""
    for approx, interpretation in every():
        name = key(approx, interpretation)
        if name not in record.rows:
            say(name)
            made = part.reference() if interpretation == FLOAT else part.measure(approx, interpretation)
            record.rows[name] = made
            record.measured = datetime.now(UTC).strftime("%Y-%m-%d")
            record.save(path)
