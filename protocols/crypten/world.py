"""This process as one of CrypTen's two parties, and what CrypTen counts of its traffic."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hush.protocols.crypten.library import library

PARTIES = 2
"""Never three: CrypTen's mode for three parties (replicated) leaks secrets."""


def environment(rank: int, rendezvous: Path) -> dict[str, str]:
    """The variables by which CrypTen finds the other party: on this machine, by a file in a folder of the caller's."""
    return {
        "WORLD_SIZE": str(PARTIES),
        "RANK": str(rank),
        "RENDEZVOUS": f"file://{rendezvous}",
        "DISTRIBUTED_BACKEND": "gloo",
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
    }


def join(rank: int, rendezvous: Path) -> None:
    """Meet the other party; returns when it is there. UserError if CrypTen is not installed."""
    os.environ.update(environment(rank, rendezvous))
    lib = library()
    lib.settings.mpc.provider = "TFP"
    lib.settings.mpc.protocol = "beaver"
    lib.settings.communicator.verbose = True  # count
    lib.crypten.init()


def leave() -> None:
    """Part from the other party."""
    library().crypten.uninit()


class Counter:
    """CrypTen's counters since `reset`, in the form of our own ledgers."""

    def reset(self) -> None:
        """Count from here."""
        library().communicator.get().reset_communication_stats()

    def snapshot(self) -> tuple[int, int, int]:
        """(bytes sent, messages, rounds) by this party.

        CrypTen adds up 8 bytes an element that is sent AND received, so half of its figure is what was sent: all that
        happens in a run is symmetric. It counts a round for every collective call; a message is one of those too.
        """
        counted = library().communicator.get().get_communication_stats()
        return int(counted["bytes"]) // 2, int(counted["rounds"]), int(counted["rounds"])
