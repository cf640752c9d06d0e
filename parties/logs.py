"""Structured logs: one JSON object a line. Fields are named one by one, so that no share can slip in by its repr."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import TextIO

LOGGER = logging.getLogger("hush.parties")
_FIELDS = (
    "party", "session", "model", "role", "reason", "blamed", "detail", "seconds", "bytes_sent", "depth", "address"
)  # fmt: skip


class JsonLines(logging.Formatter):
    """time, level, event and the known extra fields of a record.

    Of an exception its class and where it was raised, never its message: nobody can vouch for what that quotes.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"time": when, "level": record.levelname, "event": record.getMessage()}
        line |= {name: record.__dict__[name] for name in _FIELDS if name in record.__dict__}
        if record.exc_info:
            kind, _, frames = record.exc_info
            line["exception"] = kind.__name__ if kind else None
            line["traceback"] = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(frames)]
        return json.dumps(line, default=str)


def configure(level: str, stream: TextIO = sys.stderr) -> None:
    """Send this package's records, and warnings of others, to a stream as JSON lines."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    LOGGER.setLevel(level)
