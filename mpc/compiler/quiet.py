"""Torch's own reports of a failed capture, which would bury the error that names module and line."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class _Others:
    """A stream that drops what one thread writes and passes on what the others do."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._dropped = stream, threading.get_ident()

    def write(self, text: str) -> int:
        """As of a file."""
        return len(text) if threading.get_ident() == self._dropped else self._stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch logs, and what this thread prints to stderr: the graph so far, thousands of lines of it."""
    log = logging.getLogger("torch")
    level, stream = log.level, sys.stderr
    log.setLevel(logging.CRITICAL + 1)
    sys.stderr = _Others(stream)
    try:
        yield
    finally:
        sys.stderr = stream
        log.setLevel(level)
