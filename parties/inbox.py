"""Messages of a stream as they arrive: a thread reads, so that a failure is noticed while nobody waits for one."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from hush.mpc.errors import AbortReason, PartyError
from hush.parties.status import party_error

PENDING_LIMIT = 1 << 30  # bytes read and not yet asked for, above which the reader stops reading
_OVERHEAD = 128  # what a message weighs beside its bytes: empty ones must not arrive without end
LINGER = 0.5  # seconds that a last message gets to leave before a stream is torn down


class Inbox:
    """Messages from `peer` in order, and the first failure. `pull` blocks for the next one, or raises PartyError."""

    def __init__(self, peer: int | None, limit: int = PENDING_LIMIT) -> None:
        self._peer, self._limit = peer, limit
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._arrived, self._taken = 0, 0  # bytes: the first is written by the reader alone, the second by the taker
        self._failure: PartyError | None = None
        self._watchers: list[Callable[[PartyError], None]] = []
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None

    def start(self, pull: Callable[[], bytes], cancel: Callable[[], Any]) -> None:
        """Begin to read. `cancel` ends a `pull` that blocks."""
        self._pull, self._cancel = pull, cancel
        self._reader = threading.Thread(target=self._read, name=f"hush-inbox-{self._peer}", daemon=True)
        self._reader.start()

    # ------------------------------------------------------------------ the reader
    def _read(self) -> None:
        try:
            while True:
                message = self._pull()
                self._arrived += len(message) + _OVERHEAD
                self._queue.put(message)
                while self._arrived - self._taken > self._limit and self._failure is None:
                    time.sleep(0.001)
        except PartyError as error:
            self.fail(error)

    # ------------------------------------------------------------------ the taker
    def get(self, timeout: float) -> bytes:
        """The next message; the inbox's failure once those before it are taken, DeadlineExceeded after `timeout`."""
        try:
            message = self._queue.get(timeout=timeout)
        except queue.Empty:
            raise party_error(self._peer, AbortReason.DEADLINE) from None
        if message is None:
            self._queue.put(None)
            raise self._failure or PartyError(self._peer, AbortReason.DISCONNECTED)
        self._taken += len(message) + _OVERHEAD
        return message

    # ------------------------------------------------------------------ failure
    @property
    def failure(self) -> PartyError | None:
        """The first failure, None while all is well."""
        return self._failure

    def fail(self, error: PartyError) -> None:
        """Note a failure, the first one only; whoever waits for a message gets it, after the messages before it."""
        with self._lock:
            if self._failure is not None:
                return
            self._failure, watchers = error, self._watchers
        self._queue.put(None)
        for notify in watchers:
            notify(error)

    def watch(self, notify: Callable[[PartyError], None]) -> None:
        """Call back as soon as it fails, once, perhaps from another thread."""
        with self._lock:
            self._watchers = [*self._watchers, notify]
            failed = self._failure
        if failed is not None:
            notify(failed)

    def stop(self) -> None:
        """Give the other end time to hang up, then tear the stream down."""
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join(LINGER)
            self._cancel()
