"""The three ways in which secret token ids are looked up, measured side by side: a table of 50,257 x 768, secret.

    python benchmarks/embedding.py            # print the table
    python benchmarks/embedding.py --write    # into benchmarks/results/embedding.md

Seconds: three party processes over mutual TLS on this machine, the fastest of five runs after a warm-up, from the first
input share sent to the decoded rows. Processor seconds: of client and parties together, as threads of one process; they
depend less on what else the machine does. Both depend on the machine: read them against each other.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

import hush
from hush.mpc.compiler import Program
from hush.parties.cli import console, measure
from hush.parties.report import RunReport
from hush.parties.threads import ThreadTrio

sys.path.insert(0, str(Path(__file__).parent))
from figures import machine

PAGE = Path(__file__).parent / "results" / "embedding.md"
VOCABULARY, WIDTH, RUNS = 50_257, 768, 5
WAYS = ("dpf", "onehot", "equality")
HEAD = """\
# Secret token ids: three ways

Made by `python benchmarks/embedding.py --write`. A secret table of 50,257 rows of 768 numbers. Seconds: three party
processes over mutual TLS on one machine, the fastest of five runs, and as a multiple of `dpf`'s. Processor seconds:
client and parties together, the same work by threads of one process; the machine was shared with other work, which
they feel less. Client: what it sends and receives; the rows
themselves, which come back to it here as shares, are 36.9 KB an id of it. Parties: what they send each other in all,
the rounds of the checks included.

| ids | way | seconds | of `dpf` | processor seconds | of `dpf` | client MB | parties MB | rounds |
|---|---|---|---|---|---|---|---|---|
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
    lines, first = list[str](), (0.0, 0.0)
    for way in WAYS:
        program, table, ids = setting(count, way)
        report = local_parties(program, table, ids)
        taken = report.seconds, processor_seconds(program, ids)
        first = first if lines else taken
        cells = [str(count), f"`{way}`"]
        cells += [cell for own, base in zip(taken, first, strict=True) for cell in (f"{own:.3f}", f"{own / base:.2f}")]
        cells += [
            f"{report.client_bytes / 1e6:.3f}",
            f"{sum(report.cost.bytes_sent) / 1e6:.3f}",
            str(report.cost.rounds),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def setting(count: int, way: str) -> tuple[Program, nn.Embedding, Tensor]:
    """The program of a lookup, its table, and ids."""
    table = nn.Embedding(VOCABULARY, WIDTH).eval()
    nn.init.normal_(table.weight, std=0.02, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(0, VOCABULARY, (1, count), generator=torch.Generator().manual_seed(1))
    return hush.compile(table, (ids,), lookup=way), table, ids


def local_parties(program: Program, table: nn.Embedding, ids: Tensor) -> RunReport:
    """Report of the fastest run."""
    with console.stages(2) as stage, measure.local(program, "grpc", "none", stage) as infer:
        infer((ids,))
        done = [infer((ids,)) for _ in range(RUNS)]
    assert all((d.output - table(ids)).abs().max() < 1e-4 for d in done)
    assert all(d.report.cost == program.cost for d in done)
    return min((d.report for d in done), key=lambda r: r.seconds)


def processor_seconds(program: Program, ids: Tensor) -> float:
    """Of client and parties, the smallest of the runs."""
    with ThreadTrio(program) as trio:
        trio.infer((ids,))
        marks = [time.process_time()]
        for _ in range(RUNS):
            trio.infer((ids,))
            marks.append(time.process_time())
    return min(b - a for a, b in pairwise(marks))


if __name__ == "__main__":
    sys.exit(main())
