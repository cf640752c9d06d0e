"""A GPU's figures in one command: ring products beside what else multiplies, steps, streams, networks end to end.

    python benchmarks/gpu.py                              # on a machine with a GPU; writes results/gpu.json, gpu.md
    python benchmarks/gpu.py --budget 560                 # what fits into so many seconds; the rest is named
    python benchmarks/gpu.py --only llama,products/tiles  # these parts again; the others stay as they are
    python benchmarks/gpu.py --list                       # the parts, and the seconds that each may take
    TRITON_INTERPRET=1 python benchmarks/gpu.py --quick   # no GPU: does it run? toy sizes, printed, nothing written

Each part runs in a process of its own. One that fails is written down with its error and the rest goes on; results are
written as they come. `--output` is where they go, and where older ones of the same card are taken from (else from
benchmarks/results), so that several commands make one page.

  products   4096^3 mod 2^64 and 2^32 by int8 limbs and int8 residues (the second operand's made each time, and kept),
             by limbs of 16 bits in float64 (the reference), one float64 product, int64 multiply-adds without tensor
             cores (plain Triton), one int8 product of the library; products of few rows by LLaMA-7B's layers; tiles
  steps      bytes read and written a second
  protocols  the protocol's primitives and some functions, 2^22 elements: seconds, payload a second; 2^18 on the CPU
  networks   BERT base, 128 tokens, and GPT-2, 32 and 1: as `hush bench --device cuda --profile`, over mutual TLS and
             in one process; shares of the time
  llama      LLaMA-7B's widths, 8 tokens and 1: one and two blocks, and all 32 where the card has room for them
  cpu        the same networks and blocks on this machine's CPU

Published beside them, other hardware: SIGMA GPT-2 1.6 s (two parties and a dealer), PUMA LLaMA-7B 200 s a token.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from figures import machine
from gpu import plan
from gpu.card import card
from gpu.page import page
from gpu.timing import Data, guarded, note

RESULTS = Path(__file__).parent / "results"


def begin(folder: Path | None, *, quick: bool) -> Data:
    """What is known of this card already, from the folder or from the results; nothing of toy sizes."""
    made: Data = {"measured": "", "machine": machine(), "card": card(), "parts": {}}
    if quick:
        return made | {"quick": True}
    for path in () if folder is None else (folder / "gpu.json", RESULTS / "gpu.json"):
        if path.exists():
            older = json.loads(path.read_text())
            if older.get("card", {}).get("name") == made["card"]["name"]:
                made["parts"] = older["parts"]
                return made
            note(f"{path} is of another card, and not gone on with")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; exit status."""
    parser = argparse.ArgumentParser(description="Figures of a GPU.")
    parser.add_argument("--quick", action="store_true", help="toy sizes, in this process; written only with --output")
    parser.add_argument("--only", default="", metavar="PART[,PART]", help="parts, or the first halves of their names")
    parser.add_argument("--budget", type=float, default=plan.FOREVER, metavar="SECONDS", help="for all of it")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: benchmarks/results")
    parser.add_argument("--list", action="store_true", help="the parts, and no more")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.part:
        return plan.alone(options.part, options.budget)
    try:
        parts = plan.chosen(options.only)
    except ValueError as error:
        parser.error(str(error))
    if options.list:
        print("\n".join(f"{part.name:20}{part.takes:6.0f} s" for part in parts))
        return 0
    folder: Path | None = options.output or (None if options.quick else RESULTS)
    made = begin(folder, quick=options.quick)

    def keep() -> None:
        if folder is not None:
            made["measured"] = time.strftime("%Y-%m-%d")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "gpu.json").write_text(json.dumps(made, indent=1) + "\n")
            shown = guarded(lambda: page(made))
            (folder / "gpu.md").write_text(shown if isinstance(shown, str) else json.dumps(shown))

    plan.Plan(options.quick, options.budget, made["parts"], keep).carry_out(parts)
    print(page(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
