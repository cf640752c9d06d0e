"""What somebody who may open a stream can make a party hold in memory."""

from __future__ import annotations

import threading
import time

from hush.mpc.errors import AbortReason, PartyError
from hush.parties import inbox


def test_messages_without_bytes_do_not_pile_up() -> None:
    """The reader stops at its limit, and goes on once messages are taken."""
    pulled, enough = 0, threading.Event()

    def pull() -> bytes:
        nonlocal pulled
        pulled += 1
        if pulled > 1000:
            enough.set()
            raise PartyError(None, AbortReason.DISCONNECTED)
        return b""

    box = inbox.Inbox(None, limit=1 << 12)
    box.start(pull, lambda: None)
    assert not enough.wait(0.3)
    held = pulled
    assert held < 100
    assert box.get(1.0) == b""
    assert box.get(1.0) == b""
    until = time.monotonic() + 10
    while pulled == held and time.monotonic() < until:
        time.sleep(0.01)
    assert pulled > held
    box.fail(PartyError(None, AbortReason.CLOSED))
    box.stop()
