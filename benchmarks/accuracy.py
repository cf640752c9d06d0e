"""How near secure inference comes to plaintext: float, float with the approximations, fixed point, three parties.

    python benchmarks/accuracy.py                  # all parts, with both approximation sets
    python benchmarks/accuracy.py --quick          # a few sentences, barely trained networks: does it run?
    python benchmarks/accuracy.py --only gpt2      # one part
    python benchmarks/accuracy.py --write          # and put the figures into benchmarks/results and docs/accuracy.md

What is trained and measured is kept in --cache, and a run that was stopped goes on from there; --again measures anew.
The three parties are threads over memory, which compute what three processes over gRPC compute. Progress: on stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fidelity import record, report
from fidelity.classification import Classification
from fidelity.language import Language
from fidelity.part import Part, Say, Work
from fidelity.record import Record
from fidelity.similarity import Similarity
from figures import machine

from hush.parties.cli.measure import versions

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "accuracy.md"
PARTS: dict[str, Callable[[Work], Part]] = {
    "minilm": Similarity,
    "gpt2": lambda work: Language("gpt2", work),
    "llama": lambda work: Language("llama", work),
    "bert": Classification,
}


def main() -> int:
    """Measure, print the table, write it if asked to; exit status."""
    options = _options()
    options.cache.mkdir(parents=True, exist_ok=True)
    chosen = [name for name in PARTS if options.only in name]
    records = [measured(name, Work(options.cache, options.quick, _saying(name)), options.again) for name in chosen]
    if options.write:
        for made in records:
            made.save(RESULTS / f"accuracy-{made.part}.json")
        PAGE.write_text(report.inserted(PAGE.read_text(), report.block(committed())))
    print(report.block(records))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure how near secure inference comes to plaintext.")
    parser.add_argument("--quick", action="store_true", help="measure little, to see that it runs")
    parser.add_argument("--only", default="", metavar="NAME", help="parts whose name contains this")
    parser.add_argument("--again", action="store_true", help="measure anew what was measured before")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results and docs/accuracy.md")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--cache", type=Path, default=home / "hush" / "accuracy", metavar="FOLDER", help="kept work")
    options = parser.parse_args()
    if options.write and options.quick:
        parser.error("--quick measures too little to be written")
    if not any(options.only in name for name in PARTS):
        parser.error(f"no part is called {options.only!r}: there are {', '.join(PARTS)}")
    return options


def measured(name: str, work: Work, again: bool = False) -> Record:
    """The complete record of a part: what the cache has of the same measurement, and the rest measured now."""
    path = work.folder / f"{'quick-' if work.quick else ''}{name}.json"
    part = PARTS[name](work)
    made = Record(name, part.facts(), machine(), versions())
    found = None if again else record.load(path)
    if found is not None and (found.facts, found.versions) == (made.facts, made.versions):
        made = found
    record.fill(made, part, path, work.say)
    return made


def committed() -> list[Record]:
    """The records that lie in benchmarks/results, in the order of the parts."""
    found = (record.load(RESULTS / f"accuracy-{name}.json") for name in PARTS)
    return [made for made in found if made is not None and made.complete]


def _saying(name: str) -> Say:
    begin = time.perf_counter()

    def say(line: str) -> None:
        print(f"[{time.perf_counter() - begin:6.0f} s] {name}: {line}", file=sys.stderr, flush=True)

    return say


if __name__ == "__main__":
    sys.exit(main())
