"""Messages between the process that asks and a party that it started: a tag, a length, bytes. Nothing is pickled."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import IO

from hush.mpc.transport import Buffer

_HEADER = struct.Struct("<BQ")


class Tag(IntEnum):
    """What a message holds."""

    DEPLOY = 1  # pb.Deploy: dtypes of public weights
    PROGRAM = 2  # its bytes
    TENSOR = 3  # raw elements; shape and dtype follow from the program
    READY = 4  # nothing: the party has met the other one
    INVOKE = 5  # pb.Invoke
    PROGRESS = 6  # pb.Progress
    ANSWER = 7  # pb.Answer
    FAILED = 8  # pb.Abort: why the party ends


class PipeClosedError(EOFError):
    """The other process has closed its end."""


class Pipe:
    """One process's end: messages out and in, in order."""

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader, self._writer = reader, writer

    def send(self, tag: Tag, buffers: Sequence[Buffer] = ()) -> None:
        """One message. PipeClosedError if nobody reads it."""
        try:
            self._writer.write(_HEADER.pack(tag, sum(len(b) for b in buffers)))
            for buffer in buffers:
                self._writer.write(buffer)
            self._writer.flush()
        except (BrokenPipeError, ValueError):
            raise PipeClosedError from None

    def receive(self) -> tuple[Tag, bytearray]:
        """The next message. PipeClosedError if there is none."""
        tag, size = _HEADER.unpack(self._exactly(_HEADER.size))
        return Tag(tag), self._exactly(size)

    def take(self, tag: Tag) -> bytearray:
        """The next message, which must have this tag. ValueError if it has another."""
        found, body = self.receive()
        if found is not tag:
            raise ValueError(f"a {tag.name} message is due, not {found.name}")
        return body

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view, have = memoryview(data), 0
        while have < size:
            try:
                count = self._reader.readinto(view[have:])  # type: ignore[attr-defined]
            except ValueError:  # closed here meanwhile
                count = 0
            if not count:
                raise PipeClosedError
            have += count
        return data
