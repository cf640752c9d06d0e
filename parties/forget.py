"""Errors that outlive what they came from."""

from __future__ import annotations

import traceback


def forget(error: BaseException | None) -> None:
    """Let go of what the frames of an error hold, and of those that it came from: they are a run's tensors.

    The traceback still says where it was. Without this a failed session's memory waits for the collector of cycles.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
