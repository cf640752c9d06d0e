"""The same program under our protocol and on CrypTen's primitives, one after the other on this machine.

    python benchmarks/crypten_baseline.py            # in an environment that has CrypTen: docs/crypten.md

Small networks, and one layer of BERT base on 128 random embeddings; secret weights; three processes over mutual TLS,
two over gloo. Medians of three runs after a warm-up, and the largest error of any. The last row of each model truncates
by CrypTen's own division of shares. Writes `results/crypten.json` and the table of docs/crypten.md.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from figures import RESULTS, machine

from hush.mpc.compiler import Program
from hush.parties.cli import measure
from hush.parties.cli.sources import Source, resolve
from hush.parties.compare import errors
from hush.parties.crypten import CrypTenPair

MODELS = ("bert-base", "gpt2-base", "llama-7b")
RUNS = 3
PAGE = RESULTS.parents[1] / "docs" / "crypten.md"
HEAD = "| model | protocol | seconds | MB sent, parties together | rounds | largest error |"


def main() -> None:
    """Measure, and write both files."""
    tiny = [resolve(name, size="tiny", seq=None, batch=1, checkpoint=None) for name in MODELS]
    rows = [row for source in (*tiny, layer()) for row in measured(source)]
    found = {"machine": machine(), "versions": measure.versions("crypten"), "runs": RUNS, "rows": rows}
    (RESULTS / "crypten.json").write_text(json.dumps(found, indent=1) + "\n")
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(HEAD)] + table(rows) if HEAD in text else text + table(rows))
    print(table(rows))


def layer() -> Source:
    """An encoder layer of BERT base, weights as torch draws them."""
    torch.manual_seed(0)
    net = torch.nn.TransformerEncoderLayer(768, 12, 3072, dropout=0.0, activation="gelu", batch_first=True).eval()
    call = (torch.randn(1, 128, 768),)
    return Source("one layer of BERT base", net, call, call, size="paper", seq=128)


def measured(source: Source) -> Iterator[dict[str, Any]]:
    """A row for each protocol."""
    program = source.compile()
    with torch.no_grad():
        plain = source.module(*source.call)
    for protocol in ("replicated", "CrypTen", "CrypTen, its own division"):
        with started(program, protocol) as infer:
            infer(source.call)
            runs = [infer(source.call) for _ in range(RUNS)]
        yield {
            "model": source.name,
            "size": source.size,
            "seq": source.seq,
            "protocol": protocol,
            "seconds": round(statistics.median(run.report.seconds for run in runs), 3),
            "bytes_sent": list(runs[0].report.cost.bytes_sent),
            "rounds": runs[0].report.cost.rounds,
            "max_abs_err": max(errors(plain, run.output)[0] for run in runs),
            "err_bound": source.err_bound,
        }


@contextmanager
def started(program: Program, protocol: str) -> Iterator[Any]:
    """Local parties under a protocol, and how to ask them."""
    if protocol == "replicated":
        with measure.local(program, "grpc", "none", lambda name: lambda what, part: None) as infer:
            yield infer
    else:
        with CrypTenPair(program, division=protocol != "CrypTen") as pair:
            yield pair.infer


def table(rows: list[dict[str, Any]]) -> str:
    """As markdown."""
    lines = [HEAD, "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        cost = f"{row['seconds']:.2f} | {sum(row['bytes_sent']) / 1e6:.2f} | {row['rounds']}"
        error = f"{row['max_abs_err']:.1e}" + (f" (bound {row['err_bound']:.0e})" if row["err_bound"] else "")
        name = f"{row['model']}, {row['size']}, {row['seq']} positions"
        lines.append(f"| {name} | {row['protocol']} | {cost} | {error} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
