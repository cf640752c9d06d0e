"""The three ways in which secret token ids are looked up, measured side by side: a table of 50,257 x 768, secret.

    python benchmarks/embedding.py            # print the table
    python benchmarks/embedding.py --write    # into benchmarks/results/embedding.md

Three party processes over mutual TLS on this machine; median of three runs after a warm-up, from the first input share
sent to the decoded rows. Seconds depend on the machine: read them against each other.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import torch
from torch import nn

import hush
from hush.parties.cli import console, measure

sys.path.insert(0, str(Path(__file__).parent))
from figures import machine

PAGE = Path(__file__).parent / "results" / "embedding.md"
VOCABULARY, WIDTH, RUNS = 50_257, 768, 3
WAYS = ("dpf", "onehot", "equality")
HEAD = """\
# Secret token ids: three ways

Made by `python benchmarks/embedding.py --write`. A secret table of 50,257 rows of 768 numbers, three party processes
over mutual TLS on one machine, median of three runs. Client: what it sends and receives; the rows themselves, which
come back to it here as shares, are 36.9 KB an id of it. Parties: what they send each other in all, the rounds of the
checks included.

| ids | way | seconds | of `dpf` | client MB | parties MB | rounds |
|---|---|---|---|---|---|---|
"""


def main() -> int:
    """Measure and print, or write the page; exit status."""
    parser = argparse.ArgumentParser(description="Three ways to look secret token ids up.")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/embedding.md")
    options = parser.parse_args()
    m, v = machine(), measure.versions()
    origin = f"{m['cpu']}, {m['cores']} cores, {m['system']}; " + ", ".join(f"{k} {x}" for k, x in v.items())
    page = HEAD + "\n".join(row for count in (1, 32, 128) for row in rows(count)) + f"\n\n- Machine: {origin}.\n"
    if options.write:
        PAGE.write_text(page)
    print(page)
    return 0


def rows(count: int) -> list[str]:
    """A row a way, for so many ids."""
    seconds, lines = dict[str, float](), []
    for way in WAYS:
        done = run(count, way)
        seconds[way] = statistics.median(d.seconds for d in done)
        cost = done[0].cost
        cells = (str(count), f"`{way}`", f"{seconds[way]:.3f}", f"{seconds[way] / seconds['dpf']:.2f}")
        sent = f"{done[0].client_bytes / 1e6:.3f}", f"{sum(cost.bytes_sent) / 1e6:.3f}", str(cost.rounds)
        lines.append("| " + " | ".join((*cells, *sent)) + " |")
    return lines


def run(count: int, way: str) -> list[measure.RunReport]:
    """Reports of the runs."""
    table = nn.Embedding(VOCABULARY, WIDTH).eval()
    nn.init.normal_(table.weight, std=0.02, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(0, VOCABULARY, (1, count), generator=torch.Generator().manual_seed(1))
    program = hush.compile(table, (ids,), lookup=way)
    with console.stages(2) as stage, measure.local(program, "grpc", "none", stage) as infer:
        infer((ids,))
        done = [infer((ids,)) for _ in range(RUNS)]
    assert all((d.output - table(ids)).abs().max() < 1e-4 for d in done)
    assert all(d.report.cost == program.cost for d in done)
    return [d.report for d in done]


if __name__ == "__main__":
    sys.exit(main())
