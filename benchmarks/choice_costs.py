"""What choosing the next token costs at GPT-2's vocabulary: the table of docs/generation.md.

    python benchmarks/choice_costs.py           # print it
    python benchmarks/choice_costs.py --write   # put it into the page

The figures come from the cost model, which tests hold equal to measured runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hush.mpc.cost import total
from hush.mpc.functions.sampling import Choice, choose
from hush.mpc.ring import RING64
from hush.protocols.replicated.cost import ReplicatedCost, meta

PAGE = Path(__file__).parents[1] / "docs" / "generation.md"
VOCABULARY, BOUND = 50_257, 256.0
CHOICES = {
    "greedy": Choice(),
    "temperature 1": Choice(1.0),
    "temperature 0.7": Choice(0.7),
    "temperature 0.7, top 8": Choice(0.7, 8),
    "temperature 0.7, top 50": Choice(0.7, 50),
}
HEAD = "| choice | rounds | MB |\n|---|---|---|\n"


def main() -> int:
    """Print the table, or write it into the page; exit status."""
    parser = argparse.ArgumentParser(description="What choosing a token costs.")
    parser.add_argument("--write", action="store_true", help="put it into docs/generation.md")
    made = table()
    if parser.parse_args().write:
        PAGE.write_text(replaced(PAGE.read_text(), made))
    print(HEAD + made)
    return 0


def table() -> str:
    """The rows, a line each."""
    return "\n".join(_row(name, choice) for name, choice in CHOICES.items())


def replaced(page: str, rows: str) -> str:
    """The page with its table's rows replaced."""
    before, rest = page.split(HEAD)
    return before + HEAD + rows + "\n\n" + rest.split("\n\n", 1)[1]


def _row(name: str, choice: Choice) -> str:
    model = ReplicatedCost(RING64, 18)
    cost = total(choose(model, meta((1, VOCABULARY), 18, RING64), bound=BOUND, choice=choice))
    return f"| {name} | {cost.rounds} | {sum(cost.bytes_sent) / 1e6:.2f} |"


if __name__ == "__main__":
    sys.exit(main())
