"""Chrome traces (chrome://tracing, Perfetto) of a run: when party 0 reached each layer, and what the layer cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hush.parties.cli.measure import Measured
from hush.parties.cli.sources import Source


def write(source: Source, done: Measured) -> Path:
    """Write the trace of a run into the current folder; its path."""
    parts = (source.name.replace("/", "_").replace(":", "_"), source.size, source.seq)
    stem = "-".join(str(part) for part in parts if part is not None)
    path = Path(f"hush-{stem}.trace.json")
    path.write_text(json.dumps({"traceEvents": events(done), "displayTimeUnit": "ms"}))
    return path


def events(done: Measured) -> list[dict[str, Any]]:
    """A row of the layers in the order in which they ran, as the client was told, and one of whole layers by seconds.

    A layer is entered more than once where its rounds are shared with another's.
    """
    spent = {layer.name: layer for layer in done.report.layers}
    begin = done.marks[0][1] if done.marks else 0.0
    end = begin + max(done.report.party_seconds)
    ends = [at for _, at in done.marks[1:]] + [max(end, done.marks[-1][1]) if done.marks else 0.0]
    rows = []
    for (name, at), until in zip(done.marks, ends, strict=True):
        layer = spent.get(name)
        cost = {"rounds": layer.rounds, "bytes_sent": list(layer.bytes_sent)} if layer else {}
        rows.append(_event(name, "layers as reached", at - begin, until - at, cost))
    at = 0.0
    for layer in done.report.layers:
        cost = {"rounds": layer.rounds, "bytes_sent": list(layer.bytes_sent), "messages": list(layer.messages)}
        rows.append(_event(layer.name, "whole layers", at, layer.seconds, cost))
        at += layer.seconds
    return rows


def _event(name: str, row: str, start: float, seconds: float, args: dict[str, Any]) -> dict[str, Any]:
    times = {"ts": round(start * 1e6), "dur": max(1, round(seconds * 1e6))}
    return {"name": name, "ph": "X", "pid": "hush", "tid": row, "args": args} | times
