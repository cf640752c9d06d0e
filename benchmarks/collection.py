"""The networks of the paper collection on shares beside plaintext, and the claims of their papers.

    python benchmarks/collection.py                  # all, some minutes on two cores; close other programs first
    python benchmarks/collection.py --only informer  # ids or claims that contain "informer"; the others stay
    python benchmarks/collection.py --page           # docs/collection.md and the plot from what was measured

Each row is `hush bench ID --json` at size tiny: three party processes over mutual TLS on loopback, secret weights,
random weights (seed 0), the built-in sample input. Each claim is trained at tiny size (`benchmarks/claims`) and scored
on held-out data twice: in plaintext, and by three parties on shares in this process.

Writes benchmarks/results/collection.json and collection.png, and docs/collection.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from claims import claim as claims
from figures import machine

from hush.models import registry
from hush.parties.cli.sources import resolve

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "collection.md"
Row = dict[str, Any]

HEAD = """\
# The collection

Networks of the paper collection, each a file of `models/` with its paper in the docstring. Made by
`python benchmarks/collection.py` from `benchmarks/results/collection.json`{where}.

One row a network, at size `tiny` on its sample input, batch 1: three party processes over mutual TLS on loopback,
secret weights. Seconds and the ratio to plaintext are of that machine; MB (of the three parties together) and rounds
are exact and equal the prediction. "error" is the largest |secure - plain| of any output. Parameters of size `paper`
are counted on the meta device and compared with the published or computed number in `tests/collection`.

"""


# ---------------------------------------------------------------------- measuring
def measure(entry: registry.Entry) -> Row:
    """A network's `hush bench` row, and the operators that send messages, most bytes first."""
    print(f"hush bench {entry.id} --repeat 3 --json", file=sys.stderr)
    command = [sys.executable, "-m", "hush", "bench", entry.id, "--repeat", "3", "--json"]
    row: Row = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)[0]
    row["operators"] = operators(entry.id)
    return row


def operators(model: str) -> list[str]:
    """Names of the operators of a program that cost bytes, most bytes first."""
    costs = resolve(model).compile().op_costs
    spent = {name.rpartition("::")[2]: sum(cost.bytes_sent) for name, cost in costs.items()}
    return [name for name, size in sorted(spent.items(), key=lambda pair: -pair[1]) if size and "(" not in name]


def judge(made: claims.Claim) -> Row:
    """A claim's scores."""
    found = claims.evaluate(made)
    return {
        "network": made.network,
        "says": made.says,
        "lower": made.lower,
        "rival": made.rival,
        "plain": found.plain,
        "secure": found.secure,
        "agreement": found.agreement,
        "holds": made.holds(found.plain) and made.holds(found.secure) and found.kept,
    }


# ---------------------------------------------------------------------- the page
def short(op: str) -> str:
    """An operator's name without its namespace and overload."""
    parts = op.split(".")
    return parts[1] if parts[0] in ("aten", "hush") and len(parts) > 1 else op


def page(made: Row) -> str:
    """docs/collection.md."""
    where = f" ({made['machine']['cpu']}, {made['machine']['cores']} cores, {made['measured']})" if made else ""
    lines = [HEAD.format(where=where).rstrip(), ""]
    lines.append(
        "| network | paper | task | parameters: tiny, paper | operators | seconds | times plain | MB | rounds | error |"
    )
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for entry in registry.collection():
        if entry.id in made["rows"]:
            lines.append(network_line(entry, made["rows"][entry.id]))
    lines += ["", "## Claims of the papers", "", CLAIMS]
    lines += ["| network | claim | baseline | plaintext | on shares | lost |", "|---|---|---|---|---|---|"]
    lines += [claim_line(name, row) for name, row in sorted(made["claims"].items())]
    return "\n".join([*lines, "", "![overhead against accuracy loss](../benchmarks/results/collection.png)", ""])


CLAIMS = """\
A claim is trained at tiny size, with fixed seeds, on data that ships with packages or that `benchmarks/claims` makes,
and scored on held-out data in plaintext and on shares. "lost": of errors their increase on shares, of accuracies the
share of answers whose class differs. `tests/collection/test_claims.py` asserts that each holds twice, and that an
error grows by at most 1% or at least 98% of classes agree.
"""


def network_line(entry: registry.Entry, row: Row) -> str:
    """A network's row of the table."""
    counts = ", ".join(f"{entry.sizes[s].parameters():,}" if s in entry.sizes else "-" for s in ("tiny", "paper"))
    ops = ", ".join(dict.fromkeys(map(short, row["operators"])))
    megabytes, ratio = sum(row["bytes_sent"]) / 1e6, row["secure_s"] / row["plain_s"]
    figures = f"{row['secure_s']:.3f} | {ratio:,.0f} | {megabytes:.3f} | {row['rounds']:,} | {row['max_abs_err']:.1e}"
    return f"| `{entry.id}` | {entry.paper} | {entry.task} | {counts} | {ops} | {figures} |"


def claim_line(name: str, row: Row) -> str:
    """A claim's row of the table."""
    lost = f"{1 - row['agreement']:.1%}" if row["agreement"] is not None else f"{row['secure'] / row['plain'] - 1:+.2%}"
    figures = f"{row['rival']:.4g} | {row['plain']:.4g} | {row['secure']:.4g} | {lost}"
    return f"| `{row['network']}` | {row['says']} | {figures} |"


def plot(made: Row, path: Path) -> None:
    """Overhead of shares over plaintext against the largest error, a point a network."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), dpi=120, layout="constrained")
    for name, row in made["rows"].items():
        x, y = row["secure_s"] / row["plain_s"], max(row["max_abs_err"], 1e-7)
        axes.scatter(x, y, s=18)
        axes.annotate(name, (x, y), fontsize=7, xytext=(4, 3), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="seconds on shares over seconds in plaintext")
    axes.set(ylabel="largest |secure - plain| of an output", title="The collection at size tiny")
    axes.grid(alpha=0.3)
    figure.savefig(path)
    pyplot.close(figure)


# ---------------------------------------------------------------------- command
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, keep, write the page; exit status."""
    parser = argparse.ArgumentParser(description="The paper collection on shares beside plaintext.")
    parser.add_argument("--only", default="", help="ids and claims that contain this")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "collection.json", help="results, the plot beside them"
    )
    parser.add_argument("--write", type=Path, default=PAGE, help="the page")
    options = parser.parse_args(arguments)
    made: Row = json.loads(options.output.read_text()) if options.output.exists() else {"rows": {}, "claims": {}}
    if not options.page:
        for entry in registry.collection():
            if options.only in entry.id:
                made["rows"][entry.id] = measure(entry)
                keep(made, options.output)
        for name in claims.names():
            if options.only in name:
                print(f"claim {name}", file=sys.stderr)
                made["claims"][name] = judge(claims.load(name))
                keep(made, options.output)
    plot(made, options.output.with_suffix(".png"))
    options.write.write_text(page(made))
    return 0


def keep(made: Row, path: Path) -> None:
    """Write what there is, so that a run that is cut off loses nothing."""
    made |= {"measured": time.strftime("%Y-%m-%d"), "machine": machine(), "command": "python benchmarks/collection.py"}
    path.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
