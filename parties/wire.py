"""One end of a bidirectional gRPC stream: tagged messages in order, with deadlines and one first failure.

A message is one tag byte and a body. A frame is bytes of any length, cut into DATA messages of at most `CHUNK` bytes;
it always begins a message, so a small frame is one message and one copy.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any, TypeVar

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message

from hush.mpc.errors import AbortReason, PartyError
from hush.mpc.transport import Buffer
from hush.parties.inbox import PENDING_LIMIT, Inbox
from hush.parties.status import abort_of, error_of
from hush.proto.party_pb2 import Abort

CHUNK = 1 << 20

M = TypeVar("M", bound=Message)


class Tag(bytes, Enum):
    """What a message is."""

    DATA = b"\0"
    ABORT = b"\1"
    HELLO = b"\2"
    CONFIRM = b"\3"
    OPEN = b"\4"
    OPENED = b"\5"
    INVOKE = b"\6"
    ANSWER = b"\7"
    PROGRESS = b"\x0c"
    DEPLOY = b"\x08"
    VERIFIED = b"\x09"
    COMMIT = b"\x0a"
    DEPLOYED = b"\x0b"
    HELD = b"\x0d"
    SENT = b"\x0e"


class Wire:
    """A stream to `peer` (a party's index, None for anybody else). `broken` says what an RPC failure means, `pending`
    how many bytes are read ahead.

    Reading, failing and ending are the inbox's: see `Inbox.fail` and `watch`; `join` is `Inbox.stop`.
    """

    def __init__(
        self,
        peer: int | None,
        deadline: float,
        broken: Callable[[grpc.RpcError], PartyError] | None = None,
        pending: int = PENDING_LIMIT,
    ) -> None:
        self.peer, self.deadline = peer, deadline
        self._broken = broken or (lambda failure: PartyError(peer, AbortReason.DISCONNECTED))
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._inbox = Inbox(peer, pending)
        self.fail, self.watch, self.join = self._inbox.fail, self._inbox.watch, self._inbox.stop

    # ------------------------------------------------------------------ what gRPC sees
    def outgoing(self) -> Iterator[bytes]:
        """Messages to send, until the wire is closed."""
        return iter(self._outbox.get, None)

    def attach(self, incoming: Iterator[bytes], cancel: Callable[[], Any]) -> None:
        """Start to read what the other end sends."""
        self._inbox.start(lambda: self._pull(incoming), cancel)

    def _pull(self, incoming: Iterator[bytes]) -> bytes:
        """The next message; PartyError if there is none, or it is the other end's abort."""
        try:
            message = next(incoming)
            if message[:1] != Tag.ABORT:
                return message
            raise error_of(Abort.FromString(message[1:]), self.peer)
        except PartyError:
            raise
        except DecodeError:
            raise PartyError(self.peer, AbortReason.MALFORMED, "an unreadable message") from None
        except grpc.RpcError as failure:
            raise self._broken(failure) from None
        except Exception:  # the end of the stream; and gRPC's server side raises a bare Exception on cancellation
            raise PartyError(self.peer, AbortReason.DISCONNECTED) from None

    @property
    def failure(self) -> PartyError | None:
        """The first failure, None while the wire is well."""
        return self._inbox.failure

    # ------------------------------------------------------------------ messages
    def post(self, tag: Tag, message: Message) -> None:
        """Queue a control message."""
        self._outbox.put(tag + message.SerializeToString())

    def send(self, buffers: Sequence[Buffer]) -> None:
        """Queue one frame; raises the wire's failure if it has one."""
        for message in chunks(buffers):
            self.put(message)

    def put(self, message: bytes) -> None:
        """Queue one message of a frame (`chunks`); raises the wire's failure if it has one."""
        if self._inbox.failure is not None:
            raise self._inbox.failure
        self._outbox.put(message)

    @property
    def backlog(self) -> int:
        """Messages that wait to leave."""
        return self._outbox.qsize()

    def take(self, tag: Tag, kind: type[M], timeout: float | None = None) -> M:
        """The next message, which must have this tag and parse. `timeout`: default the wire's deadline."""
        try:
            return kind.FromString(bytes(self._next(tag, timeout)))
        except DecodeError:
            raise PartyError(self.peer, AbortReason.MALFORMED, "an unreadable message") from None

    def take_any(self, tags: Sequence[Tag], timeout: float | None = None) -> tuple[Tag, bytes]:
        """Tag and body of the next message, which must have one of these tags."""
        message = self._message(timeout)
        if message[:1] not in tags:
            raise PartyError(self.peer, AbortReason.MALFORMED, "a message of the wrong kind")
        return Tag(message[:1]), message[1:]

    def receive(self, nbytes: int) -> memoryview:
        """The next frame, which must have `nbytes`; one without bytes does not travel."""
        if not nbytes:
            return memoryview(b"")
        piece = self._next(Tag.DATA, None)
        if len(piece) == nbytes:
            return piece
        frame, filled = memoryview(np.empty(nbytes, np.uint8).data), 0
        while True:
            if not len(piece) or filled + len(piece) > nbytes:
                raise PartyError(self.peer, AbortReason.MALFORMED, "a frame of the wrong size")
            frame[filled : filled + len(piece)] = piece
            filled += len(piece)
            if filled == nbytes:
                return frame
            piece = self._next(Tag.DATA, None)

    def _next(self, tag: Tag, timeout: float | None) -> memoryview:
        message = self._message(timeout)
        if message[:1] != tag:
            raise PartyError(self.peer, AbortReason.MALFORMED, "a message of the wrong kind")
        return memoryview(message)[1:]

    def _message(self, timeout: float | None) -> bytes:
        return self._inbox.get(self.deadline if timeout is None else timeout)

    # ------------------------------------------------------------------ end
    def close(self, error: PartyError | None = None) -> None:
        """Hang up, telling the other end why if there is an error. Does not wait: `join` does."""
        if error is not None and self._inbox.failure is None:
            self.post(Tag.ABORT, abort_of(error))
        self._outbox.put(None)
        self.fail(error or PartyError(self.peer, AbortReason.CLOSED))


def frame_bytes(buffers: Sequence[Buffer]) -> memoryview:
    """A frame as its receiver sees it, for parties that live in the sender's process."""
    return memoryview(bytearray(b"".join(buffers)))


def chunks(buffers: Sequence[Buffer]) -> Iterator[bytes]:
    """The messages of one frame; none if it has no bytes."""
    size = sum(len(b) for b in buffers)
    if not size:
        return
    if size < CHUNK:
        yield b"".join((Tag.DATA, *buffers))
        return
    parts: list[Buffer] = [Tag.DATA]
    room = CHUNK - 1
    for buffer in buffers:
        view = memoryview(buffer)
        while len(view):
            parts.append(view[:room])
            view, room = view[room:], room - len(parts[-1])
            if not room:
                yield b"".join(parts)
                parts, room = [Tag.DATA], CHUNK - 1
    if len(parts) > 1:
        yield b"".join(parts)
