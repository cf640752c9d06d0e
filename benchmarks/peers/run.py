"""Hush beside SecretFlow SPU on the same workloads, machine and run: benchmarks/results/peers.json.

    python benchmarks/peers/run.py --spu-python V/bin/python           # V: SPU's environment, see spu_run.py
    python benchmarks/peers/run.py --spu-python V/bin/python --workload bert1 --output /tmp/peers.json

Both run three processes on this machine's cores, all traffic among them included: SPU over its own links (ABY3, FM64,
18 fraction bits, PUMA's approximations), Hush over gRPC with mutual TLS on loopback TCP, secret weights, default
approximations. The same weights and inputs from the same seed. Pairs follow each other, SPU first, and the ratio is
taken pair by pair. Hush's parties, which were idle meanwhile, are warmed up by one run before each that counts; each
of SPU's runs has processes of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

import hush
from benchmarks.peers.workloads import Workload, named
from hush.mpc.cost import Cost
from hush.parties.cli.measure import cores, plaintext, versions
from hush.parties.client import connect, deploy
from hush.parties.local import LocalTrio
from hush.parties.remote import Session

HERE = Path(__file__).parent
OUTPUT = HERE.parent / "results" / "peers.json"
DEFAULT = ("bert12", "gpt2_12_32")


def spu(python: str, name: str) -> dict[str, Any]:
    """One run of SPU."""
    command = [python, str(HERE / "spu_run.py"), name, "--variant", "puma"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return found


def ours(session: Session, work: Workload, exact: list[torch.Tensor]) -> dict[str, Any]:
    """One run of Hush."""
    inference = session.infer(work.args, work.kwargs)
    outputs = inference.output if isinstance(inference.output, tuple) else (inference.output,)
    pairs = zip(outputs, exact, strict=True)
    errors = [float((a.double() - b.double()).abs().max()) for a, b in pairs if b.is_floating_point()]
    return {
        "seconds": inference.report.seconds,
        "errors": errors,
        "cost": inference.report.cost,
        "report": inference.report,
    }


def compare(name: str, python: str, repeat: int) -> dict[str, Any]:
    """A workload under both, pair by pair."""
    work = named(name)
    plain, plain_s = plaintext(lambda *args: work.module(*args), work.args, 3)
    exact = list(plain) if isinstance(plain, tuple) else [plain]
    note(f"{name}: compiling")
    program = hush.compile(work.module, work.args, work.kwargs)
    with LocalTrio(unix=False) as trio:
        note(f"{name}: deploying")
        deploy(program, trio.provider_config, name)
        with connect(trio.config) as client:
            session = client.session(name)
            ours(session, work, exact)
            pairs = []
            for _ in range(repeat):
                theirs = spu(python, name)
                ours(session, work, exact)
                mine = ours(session, work, exact)
                pairs.append((theirs, mine))
                pair = theirs["seconds"][0], mine["seconds"]
                note(f"{name}: SPU {pair[0]:.1f} s, Hush {pair[1]:.2f} s, {pair[0] / pair[1]:.1f}")
    return _figures(name, program.cost, plain_s, pairs)


def _figures(name: str, predicted: Cost | None, plain_s: float, pairs: list[tuple[dict, dict]]) -> dict[str, Any]:
    theirs, mine = [p[0] for p in pairs], [p[1] for p in pairs]
    cost, report = mine[-1]["cost"], mine[-1]["report"]
    return {
        "workload": name,
        "plain_s": plain_s,
        "spu": {
            "seconds": [t["seconds"][0] for t in theirs],
            "cpu_s": theirs[-1]["cpu_s"],
            "bytes_sent": theirs[-1]["bytes_sent"],
            "messages": theirs[-1]["messages"],
            "error": max(t["errors"][0] for t in theirs),
            "peak_rss": theirs[-1]["peak_rss"],
        },
        "hush": {
            "seconds": [m["seconds"] for m in mine],
            "bytes_sent": list(cost.bytes_sent),
            "messages": list(cost.messages),
            "rounds": cost.rounds,
            "error": max(m["errors"][0] for m in mine),
            "peak_rss": list(report.peak_rss),
            "as_predicted": cost == predicted,
        },
        "ratio": {
            "seconds": statistics.median(t["seconds"][0] / m["seconds"] for t, m in pairs),
            "bytes": sum(theirs[-1]["bytes_sent"]) / sum(cost.bytes_sent),
            "messages": max(theirs[-1]["messages"]) / max(cost.messages),
            "error": max(t["errors"][0] for t in theirs) / max(m["errors"][0] for m in mine),
        },
    }


def note(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """What the figures are of."""
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": cores(),
        "system": platform.platform(terse=True),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spu-python", required=True, help="the interpreter of SPU's environment")
    parser.add_argument("--workload", nargs="*", default=list(DEFAULT))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    rows = [compare(name, options.spu_python, options.repeat) for name in options.workload]
    result = {
        "measured": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
        "spu": "0.9.5",
        "rows": rows,
    }
    result["command"] = "python benchmarks/peers/run.py --spu-python V/bin/python"
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    for row in rows:
        note(f"{row['workload']}: {json.dumps({k: round(v, 2) for k, v in row['ratio'].items()})}")


if __name__ == "__main__":
    main()
