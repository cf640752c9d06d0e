"""How cost grows: seconds, bytes, rounds and memory against length, batch, layers and width, each with its exponent.

    python benchmarks/growth.py            # some minutes on two cores; close other programs first
    python benchmarks/growth.py --quick    # tiny points, printed and not written: does it run?
    python benchmarks/growth.py --report   # the table and the plot from the points that are there

A BERT encoder over secret activations, secret weights, three party processes over mutual TLS. Each point is measured in
parties of its own: seconds are the median of `--repeat` runs after a warm-up; memory is the largest peak of a party
above that of parties that run next to nothing (what Python, torch and gRPC take). Bytes of the three parties together
and rounds are the cost model's, which every measured point must equal. Exponents are the slopes of least squares
through log cost against log size over the upper half of each axis, where what does not grow no longer hides what does.

Writes benchmarks/results/growth.json (points), growth.md (tables) and growth.png (plot, with matplotlib).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hush.models.bert import BertConfig, Encoder
from hush.models.initial import initialised

sys.path.insert(0, str(Path(__file__).parent))
from figures import machine

RESULTS = Path(__file__).parent / "results"
HEAD_WIDTH = 32


@dataclass(frozen=True)
class Shape:
    """One encoder and its input."""

    seq: int = 128
    batch: int = 1
    layers: int = 2
    hidden: int = 128

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"{self.seq}-{self.batch}-{self.layers}-{self.hidden}"


AXES = {
    "seq": (32, 64, 128, 256, 512, 1024),
    "batch": (1, 2, 4, 8, 16),
    "layers": (1, 2, 4, 8, 16),
    "hidden": (64, 128, 256, 512, 1024),
}
QUICK = {"seq": (8, 16, 32), "batch": (1, 2, 4), "layers": (1, 2), "hidden": (32, 64)}
TITLES = {"seq": "sequence length", "batch": "batch", "layers": "layers", "hidden": "hidden size"}
COSTS = ("seconds", "bytes", "rounds", "memory")
Made = dict[str, Any]


# ---------------------------------------------------------------------- measuring
class Stack(nn.Module):
    """The encoder alone, without embeddings and without a mask."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        heads = max(1, shape.hidden // HEAD_WIDTH)
        self.encoder = Encoder(
            BertConfig(
                hidden_size=shape.hidden,
                num_hidden_layers=shape.layers,
                num_attention_heads=heads,
                intermediate_size=4 * shape.hidden,
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, H] -> [B, T, H]."""
        found: Tensor = self.encoder(x, None)
        return found


class Nothing(nn.Module):
    """Next to nothing, for what parties take by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[1, 1] -> [1, 1]."""
        found: Tensor = self.one(x)
        return found


def run(net: nn.Module, call: tuple[Tensor, ...], repeat: int) -> dict[str, Any]:
    """Figures of a module in parties of its own, as `hush bench` has them."""
    import hush
    from hush.parties.cli import console, measure

    program = hush.compile(net, call)
    with console.stages(3) as stage, measure.local(program, "grpc", "none", stage) as infer:
        return measure.measure(net, call, program, infer, repeat, stage("running")).figures()


def point(shape: Shape, idle: int, repeat: int) -> dict[str, Any]:
    """One point: measured seconds and memory, predicted bytes and rounds, and whether the run was as predicted."""
    call = (torch.randn(shape.batch, shape.seq, shape.hidden, generator=torch.Generator().manual_seed(0)),)
    found = run(initialised(lambda: Stack(shape)), call, repeat)
    due = found["predicted"]
    return {
        "seconds": found["secure_s"],
        "bytes": sum(due["bytes_sent"]),
        "rounds": due["rounds"],
        "memory": max(found["peak_rss"]) - idle,
        "as_predicted": all(due[key] == found[key] for key in due),
        "max_abs_err": found["max_abs_err"],
    }


def shapes(axes: dict[str, Sequence[int]], base: Shape) -> dict[str, list[Shape]]:
    """The points of each axis; all others stay at the base."""
    return {axis: [replace(base, **{axis: value}) for value in values] for axis, values in axes.items()}


def measured(axes: dict[str, Sequence[int]], base: Shape, repeat: int, keep: Callable[[Made], None]) -> Made:
    """All points, each once. `keep` is given what is there after each: a run that is cut short is not lost."""
    from hush.parties.cli.measure import versions

    made: Made = {
        "measured": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
        "base": asdict(base),
        "axes": {axis: list(values) for axis, values in axes.items()},
        "repeat": repeat,
        "idle_rss": max(run(initialised(Nothing), (torch.ones(1, 1),), 1)["peak_rss"]),
        "points": {},
    }
    for axis, row in shapes(axes, base).items():
        for shape in row:
            if shape.key not in made["points"]:
                print(f"{axis}: {shape}", file=sys.stderr)
                made["points"][shape.key] = point(shape, made["idle_rss"], repeat)
                keep(made)
    return made


# ---------------------------------------------------------------------- growth
def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float | None:
    """The slope of log cost against log size, over the upper half of the points and at least two; None where a cost
    is not positive or there is one point only."""
    count = max(2, math.ceil(len(sizes) / 2))
    upper, own = sizes[-count:], costs[-count:]
    if len(sizes) < 2 or min(own) <= 0:
        return None
    return statistics.linear_regression([math.log(s) for s in upper], [math.log(c) for c in own]).slope


def series(made: Made, axis: str) -> tuple[list[int], dict[str, list[float]]]:
    """Sizes of an axis and, by cost, the costs."""
    sizes, base = made["axes"][axis], Shape(**made["base"])
    points = [made["points"][shape.key] for shape in shapes({axis: sizes}, base)[axis]]
    return sizes, {cost: [p[cost] for p in points] for cost in COSTS}


def exponents(made: Made) -> dict[str, dict[str, float | None]]:
    """By axis and cost."""
    found = {}
    for axis in made["axes"]:
        sizes, costs = series(made, axis)
        found[axis] = {cost: exponent(sizes, values) for cost, values in costs.items()}
    return found


# ---------------------------------------------------------------------- report
def report(made: Made) -> str:
    """Exponents, then the points of each axis."""
    slopes, base, m = exponents(made), made["base"], made["machine"]
    usual = ", ".join(f"{TITLES[axis]} {base[axis]}" for axis in made["axes"])
    origin = f"{made['measured']}, {m['cpu']}, {m['cores']} cores; " + ", ".join(
        f"{name} {version}" for name, version in made["versions"].items()
    )
    parts = [
        "# Growth",
        "Made by `python benchmarks/growth.py`, whose docstring says what is measured and how. "
        f"Where an axis does not vary it: {usual}. Medians of {made['repeat']}; memory above the "
        f"{made['idle_rss'] / 2**20:.0f} MiB of a party that runs next to nothing. {origin}.",
        "![cost against size](growth.png)",
        "Exponents: 1 is growth in proportion, over the upper half of each axis.",
        _table(("against", *COSTS), [(TITLES[axis], *map(_slope, row.values())) for axis, row in slopes.items()]),
        *(part for axis in made["axes"] for part in (f"## {TITLES[axis].capitalize()}", _points(made, axis))),
    ]
    odd = [key for key, p in made["points"].items() if not p["as_predicted"]]
    parts.append(f"NOT as predicted: {', '.join(odd)}." if odd else "Bytes and rounds of every run: as predicted.")
    return "\n\n".join(parts) + "\n"


def _points(made: Made, axis: str) -> str:
    sizes, costs = series(made, axis)
    head = (TITLES[axis], "seconds", "MB, three parties", "rounds", "memory MiB")
    rows = [
        (f"{size:,}", f"{s:.3f}", f"{b / 1e6:,.1f}", f"{r:,}", f"{m / 2**20:,.0f}")
        for size, s, b, r, m in zip(sizes, *costs.values(), strict=True)
    ]
    return _table(head, rows)


def _slope(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])


def plot(made: Made, path: Path) -> bool:
    """A panel an axis, costs relative to those of its first point; False where matplotlib is missing."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return False
    slopes = exponents(made)
    figure, axes = pyplot.subplots(1, len(made["axes"]), figsize=(3.3 * len(made["axes"]), 3.4), squeeze=False)
    for panel, axis in zip(axes[0], made["axes"], strict=True):
        sizes, costs = series(made, axis)
        for cost, values in costs.items():
            if min(values) > 0:
                relative = [value / values[0] for value in values]
                panel.plot(sizes, relative, "o-", markersize=3, label=f"{cost}: {_slope(slopes[axis][cost])}")
        panel.set_xscale("log", base=2)
        panel.set_yscale("log", base=2)
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.set_xlabel(TITLES[axis])
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    axes[0][0].set_ylabel("times the first point")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    return True


# ---------------------------------------------------------------------- command
def write(made: Made, folder: Path) -> None:
    """The tables and the plot."""
    (folder / "growth.md").write_text(report(made))
    if not plot(made, folder / "growth.png"):
        print("no plot: pip install matplotlib", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; exit status."""
    parser = argparse.ArgumentParser(description="How cost grows.")
    parser.add_argument("--quick", action="store_true", help="tiny points, written only where --output says")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--output", type=Path, help=f"a folder; default: {RESULTS.name}, with --quick none")
    options = parser.parse_args(arguments)
    folder: Path | None = options.output or (None if options.quick else RESULTS)
    if options.report:
        folder = folder or RESULTS
        made = json.loads((folder / "growth.json").read_text())
    else:

        def keep(found: Made) -> None:
            if folder is not None:
                (folder / "growth.json").write_text(json.dumps(found, indent=1) + "\n")

        base = Shape(seq=8, layers=1, hidden=32) if options.quick else Shape()
        made = measured(QUICK if options.quick else AXES, base, options.repeat, keep)
    if folder is not None:
        write(made, folder)
    print(report(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
