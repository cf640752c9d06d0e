"""The figures that README and docs name: runs `hush demo` and `hush bench`, writes benchmarks/results.

    python benchmarks/figures.py            # all of it, about a quarter of an hour on two cores
    python benchmarks/figures.py --quick    # the demo and two lengths
    python benchmarks/figures.py --only wan # the sets whose name contains "wan"

Each set becomes one JSON file, with the machine, the versions and every command; figures.md is a table of all sets that
lie there. Close other programs first: seconds are wall-clock seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SETS = {
    "demo": ["demo --json"],
    "minilm": [f"bench minilm --seq {seq} --repeat 3 --json" for seq in (16, 32, 64, 128)],
    "minilm-choices": [
        "bench minilm --seq 128 --repeat 3 --weights public --json",
        "bench minilm --seq 128 --repeat 3 --approx puma --json",
        "bench minilm --seq 128 --repeat 3 --link memory --json",
    ],
    "minilm-lan": [f"bench minilm --seq {seq} --repeat 3 --net lan --json" for seq in (16, 128)],
    "minilm-wan": [f"bench minilm --seq {seq} --net wan --json" for seq in (16, 128)],
}
QUICK = {"demo": SETS["demo"], "minilm": [SETS["minilm"][0], SETS["minilm"][-1]]}


def main() -> int:
    """Run the sets and write the files; exit status."""
    parser = argparse.ArgumentParser(description="Measure the figures of README and docs.")
    parser.add_argument("--quick", action="store_true", help="the demo and two lengths only")
    parser.add_argument("--only", default="", help="sets whose name contains this")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for name, commands in (QUICK if options.quick else SETS).items():
        if options.only in name:
            runs = [{"command": f"hush {line}", "result": hush(line)} for line in commands]
            made = {"measured": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": machine(), "runs": runs}
            (RESULTS / f"{name}.json").write_text(json.dumps(made, indent=1) + "\n")
    (RESULTS / "figures.md").write_text(table())
    print(table())
    return 0


def hush(line: str) -> Any:
    """What a command prints as JSON; its progress goes to our stderr."""
    print(f"hush {line}", file=sys.stderr)
    done = subprocess.run([sys.executable, "-m", "hush", *line.split()], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def machine() -> dict[str, Any]:
    """The machine that made the figures."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": _cpu(), "cores": cores, "system": f"{platform.system()} {platform.machine()}"}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


# ---------------------------------------------------------------------- the table
HEAD = """\
# Figures

Made by `python benchmarks/figures.py`. Seconds: on shares from the first input share sent to the decoded output,
weights deployed and session open, after a warm-up; in plaintext with all cores. MB: what one party sends to the two
others, on average. Error: against float32, over all outputs. "Predicted" is computed before the run, and must be
equal.

| command | on shares s | plaintext s | MB a party | rounds | predicted | largest error | peak MB a party |
|---|---|---|---|---|---|---|---|
"""


def table() -> str:
    """The Markdown table of all result files."""
    files = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    made = [file for file in files if isinstance(file.get("runs"), list)]  # others count their runs
    lines = [_line(run["command"], row) for file in made for run in file["runs"] for row in rows(run["result"])]
    return HEAD + "\n".join(lines) + "\n\n" + "\n".join(sorted({_origin(file) for file in made})) + "\n"


def rows(result: Any) -> list[dict[str, Any]]:
    """A bench prints a list, the demo one object."""
    return result if isinstance(result, list) else [result]


def _line(command: str, row: dict[str, Any]) -> str:
    equal = all(row["predicted"][key] == row[key] for key in row["predicted"])
    plain = f"{row['plain_s']:.3f}" if "plain_s" in row else ""
    peak = f"{sum(row['peak_rss']) / 3e6:,.0f}" if "peak_rss" in row else ""
    error = f"{row['max_abs_err']:.1e}" + (f", cosine {row['cosine']:.7f}" if "cosine" in row else "")
    cells = (f"`{command}`", f"{row['secure_s']:.2f}", plain, f"{sum(row['bytes_sent']) / 3e6:.1f}", str(row["rounds"]))
    return "| " + " | ".join((*cells, "equal" if equal else "NOT EQUAL", error, peak)) + " |"


def _origin(file: dict[str, Any]) -> str:
    found = [row["versions"] for run in file["runs"] for row in rows(run["result"]) if "versions" in row]
    versions = ", ".join(f"{name} {version}" for name, version in found[0].items())
    m = file["machine"]
    return f"- {file['measured']}: {m['cpu']}, {m['cores']} cores, {m['system']}; {versions}"


if __name__ == "__main__":
    sys.exit(main())
