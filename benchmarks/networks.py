"""BERT base and GPT-2 over modelled networks, with public weights, token by token: benchmarks/results/networks.json.

    python benchmarks/networks.py                   # about twenty minutes on two cores; close other programs first
    python benchmarks/networks.py --quick           # tiny networks, printed and not written: does it run?
    python benchmarks/networks.py --only gpt2       # commands that contain "gpt2"; the others stay as they are

Each row is one `hush bench` command: paper sizes, tokens to pooled output or to the next tokens, three party processes
over mutual TLS on loopback, default approximations, weights from a seed. The modelled networks delay our own frames
(`hush.parties.shaping`): LAN 5 Gbit/s and 0.4 ms, WAN 400 Mbit/s and 40 ms. Over WAN the program takes the `wan`
schedule; `--schedule lan` beside it is what that saves.

A shaped row's prediction is the seconds of its unshaped row plus what its predicted rounds and bytes take over that
network (`hush.parties.cli.network.network_seconds`). Of the `wan` schedule the unshaped row is measured too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from figures import machine

from hush.mpc.cost import Cost
from hush.parties.cli.network import network_seconds

OUTPUT = Path(__file__).parent / "results" / "networks.json"
Row = dict[str, Any]

BERT, GPT2 = "bert-base --size paper --seq 128 --repeat 3", "gpt2-base --size paper --seq 32 --new 5"
LOCAL, PUBLIC, LAN = "", "--weights public", "--net lan"
WAN, WAN_AS_LAN, LOCAL_WAN = "--net wan", "--net wan --schedule lan", "--schedule wan"
WAYS = (LOCAL, PUBLIC, LAN, LOCAL_WAN, WAN, WAN_AS_LAN)
QUICK_BERT, QUICK_GPT2 = "bert-base --size tiny --seq 8", "gpt2-base --size tiny --seq 4 --new 2"


# ---------------------------------------------------------------------- measuring
def commands(networks: Sequence[str]) -> list[str]:
    """What follows `hush`, a line a row."""
    return [f"bench {network} {way} --json".replace("  ", " ") for network in networks for way in WAYS]


def hush(line: str) -> Row:
    """The row that a command prints as JSON; its progress goes to our stderr."""
    print(f"hush {line}", file=sys.stderr)
    done = subprocess.run([sys.executable, "-m", "hush", *line.split()], stdout=subprocess.PIPE, check=True)
    row: Row = json.loads(done.stdout)[0]
    return row


# ---------------------------------------------------------------------- what the rows say
def unshaped(line: str) -> str:
    """The command whose seconds a shaped one's prediction starts from: the same program, no network."""
    if "--net wan" in line and "--schedule" not in line:
        return line.replace("--net wan", "--schedule wan")
    for net in ("--net lan ", "--net wan "):
        line = line.replace(net, "")
    return line.replace("--schedule lan ", "")


def steps(row: Row) -> list[Row]:
    """The prompt, then each further token."""
    return [row, *row.get("decode", ())]


def forecasts(rows: dict[str, Row]) -> Iterator[tuple[str, str, float, float]]:
    """Command, "prompt" or "token", seconds predicted and seconds measured, of each shaped row. Of further tokens the
    sum."""
    for line, row in rows.items():
        base = rows.get(unshaped(line))
        if row["net"] == "none" or base is None:
            continue
        pairs = list(zip(steps(base), steps(row), strict=True))
        for what, own in (("prompt", pairs[:1]), ("tokens", pairs[1:])):
            if own:
                due = sum(b["secure_s"] + network_seconds(_cost(r["predicted"]), row["net"]) for b, r in own)
                yield line, what, due, sum(r["secure_s"] for _, r in own)


def tokens_per_second(row: Row) -> float | None:
    """Of the tokens after the first; None where there are none."""
    later = steps(row)[1:]
    return len(later) / sum(step["secure_s"] for step in later) if later else None


def as_predicted(row: Row) -> bool:
    """Whether rounds, bytes and messages of every step were the predicted ones."""
    return all(step["predicted"][key] == step[key] for step in steps(row) for key in step["predicted"])


def _cost(made: Row) -> Cost:
    return Cost(made["rounds"], tuple(made["bytes_sent"]), tuple(made["messages"]))


# ---------------------------------------------------------------------- command
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, keep, print; exit status."""
    parser = argparse.ArgumentParser(description="BERT base and GPT-2 over modelled networks.")
    parser.add_argument("--quick", action="store_true", help="tiny networks, written only where --output says")
    parser.add_argument("--only", default="", help="commands that contain this")
    parser.add_argument("--output", type=Path, help=f"a file; default: results/{OUTPUT.name}, with --quick none")
    options = parser.parse_args(arguments)
    output: Path | None = options.output or (None if options.quick else OUTPUT)
    made: Row = {"rows": {}}
    if output is not None and output.exists():
        made |= json.loads(output.read_text())
    for line in commands((QUICK_BERT, QUICK_GPT2) if options.quick else (BERT, GPT2)):
        if options.only in line:
            made["rows"][line] = hush(line)
            made.pop("remark", None)  # it was about what was measured before
            made |= {"measured": time.strftime("%Y-%m-%d"), "machine": machine()}
            made |= {"command": "python benchmarks/networks.py", "versions": made["rows"][line]["versions"]}
            if output is not None:
                output.write_text(json.dumps(made, indent=1) + "\n")
    for line, what, due, measured in forecasts(made["rows"]):
        print(f"{due:8.3f} s predicted, {measured:8.3f} s measured ({measured / due - 1:+.1%}): {what} of hush {line}")
    for line, row in made["rows"].items():
        rate = tokens_per_second(row)
        print(f"{row['secure_s']:8.3f} s" + ("" if rate is None else f", {rate:.2f} tokens/s after it") + f": {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
