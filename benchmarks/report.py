"""The report of speed: benchmarks/report.md and its plot, from the results that other scripts wrote.

    python benchmarks/report.py            # reads benchmarks/results/*.json of the scripts below; measures nothing

A line whose results are missing says so.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

sys.path.insert(0, str(Path(__file__).parent))
import growth as benchmarks_growth
import networks as benchmarks_networks

RESULTS = Path(__file__).parent / "results"
PAGE, PLOT = Path(__file__).parent / "report.md", RESULTS / "report.png"
Data = dict[str, Any]


def load(name: str) -> Data | None:
    """A script's results, if it has run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])


def verdict(reached: bool) -> str:
    """Of a target."""
    return "met" if reached else "not met"


def peers(data: Data) -> str:
    """Hush beside SPU."""
    rows, targets = [], []
    for row in data["rows"]:
        rows += [_system(row, "SPU", row["spu"]), _system(row, "Hush", row["hush"])]
        for what, goal in (("seconds", 12.0), ("bytes", 4.0), ("messages", 2.0), ("error", 10.0)):
            reached = row["ratio"][what]
            targets.append((row["workload"], what, f"{reached:.1f}", f"{goal:g}", verdict(reached >= goal)))
    head = ("workload", "system", "seconds", "GB, three parties", "messages of a party", "largest error", "peak GiB")
    text = f"""## Beside SecretFlow SPU

`{data["command"]}` ({_where(data)}). Three processes each, all traffic among them, secret weights; SPU {data["spu"]}:
ABY3, FM64, PUMA's approximations. Medians; ratios are medians of pairs that ran one after the other. Messages are SPU's
send actions, and Hush's frames."""
    return "\n\n".join([text, table(head, rows), table(("workload", "SPU / Hush", "reached", "target", ""), targets)])


def _system(row: Data, name: str, run: Data) -> tuple[str, ...]:
    seconds, sent = statistics.median(run["seconds"]), sum(run["bytes_sent"]) / 1e9
    peak = max(run["peak_rss"]) / 2**30
    cells = f"{seconds:.2f}", f"{sent:.3f}", f"{max(run['messages']):,}", f"{run['error']:.1e}", f"{peak:.2f}"
    return row["workload"], name, *cells


def limits(data: Data) -> str:
    """The floor under each run."""
    rates = data["rates"]
    kernel, sent, latency = rates["multiply_adds_per_s_core"] / 1e9, rates["bytes_per_s"] / 1e6, 1e3 * rates["round_s"]
    head = (
        "workload",
        "wall s",
        "products s",
        "bytes s",
        "rounds s",
        "floor s",
        "wall / floor, at most 3",
        "rate in the run",
    )
    text = f"""## Close to the limit

`{data["command"]}` ({_where(data)}). The floor: multiply-adds of the ring's matrix products, of all
parties, at {kernel:.1f} G a second a core, the kernel alone; a party's bytes at {sent:.0f} MB/s, and rounds at
{latency:.2f} ms, both of three processes over mutual TLS that do nothing else (`benchmarks/loopback.py`). "Rate in the
run": of the products, by processor time, beside the kernel alone on operands of the same shapes; at least 60%."""
    memory = "; ".join(f"{row['workload']} {max(row['peak_rss']) / row['weight_shares']:.2f}" for row in data["rows"])
    peak = (
        f"Peak resident memory of a party, in units of its weight shares (16 bytes a parameter; at most 3): {memory}."
    )
    return "\n\n".join([text, table(head, map(_floor, data["rows"])), peak])


def _floor(row: Data) -> tuple[str, ...]:
    floor, factor, rate = row["floor"], row["factor"], row["products_in_run"]
    parts = (f"{floor[key]:.2f}" for key in ("products_s", "bytes_s", "rounds_s", "sum_s"))
    within = f"{factor:.2f}, {verdict(factor <= 3)}", f"{100 * rate:.0f}%, {verdict(rate >= 0.6)}"
    return row["workload"], f"{row['seconds']:.2f}", *parts, *within


def published(data: Data) -> str:
    """PUMA's networks."""
    return """## PUMA's networks

[benchmarks/results/puma.md](results/puma.md), by `python benchmarks/puma_table.py`: BERT, RoBERTa, GPT-2 and LLaMA
beside plaintext and PUMA's published figures, with the time that rounds and bytes take over its network."""


def networks(data: Data) -> str:
    """Modelled networks, public weights, decoding."""
    rows: dict[str, Data] = data["rows"]
    text = f"""## Over modelled networks, with public weights, token by token

`{data["command"]}` ({_where(data)}). Each row is one `hush` command: three processes over mutual TLS on this machine,
tokens to pooled output or to the next tokens. LAN: 5 Gbit/s, 0.4 ms there and back; WAN: 400 Mbit/s, 40 ms. Predicted:
the same program's seconds without a network, and what its rounds and bytes take over it; within 15% is asked."""
    due: dict[str, list[str]] = {}
    for line, what, predicted, measured in benchmarks_networks.forecasts(rows):
        off = measured / predicted - 1
        due.setdefault(line, []).append(f"{what} {predicted:.2f} ({off:+.0%}, {verdict(abs(off) <= 0.15)})")
    head = ("command", "seconds", "tokens/s after it", "MB a party", "rounds", "largest error", "seconds predicted")
    cells = [_network(line, row, due.get(line, [])) for line, row in rows.items()]
    odd = [line for line, row in rows.items() if not benchmarks_networks.as_predicted(row)]
    exact = f"NOT as predicted: {', '.join(odd)}." if odd else "Rounds, bytes and messages of every run: as predicted."
    remark = [data["remark"]] if "remark" in data else []
    return "\n\n".join([text, table(head, cells), exact, *remark, *_public(rows), *_wan(rows), *_lan(rows)])


def _network(line: str, row: Data, due: Sequence[str]) -> tuple[str, ...]:
    rate = benchmarks_networks.tokens_per_second(row)
    sent, seconds = max(row["bytes_sent"]) / 1e6, f"{row['secure_s']:.2f}"
    name = f"`hush {line.removesuffix(' --json')}`"
    pace = "" if rate is None else f"{rate:.2f}"
    return name, seconds, pace, f"{sent:,.0f}", f"{row['rounds']:,}", f"{row['max_abs_err']:.1e}", ", ".join(due)


def _public(rows: dict[str, Data]) -> Iterable[str]:
    for line, row in rows.items():
        base = rows.get(line.replace("--weights public ", ""))
        if row["weights"] == "public" and base is not None:
            parts = [("prompt", base["secure_s"] / row["secure_s"])]
            pace, before = benchmarks_networks.tokens_per_second(row), benchmarks_networks.tokens_per_second(base)
            if pace is not None and before is not None:
                parts.append(("further tokens", pace / before))
            said = ", ".join(f"{what} {factor:.2f} times as fast ({verdict(factor >= 2)})" for what, factor in parts)
            yield f"Public weights, {row['model']}: {said}; asked: 2 times."


def _wan(rows: dict[str, Data]) -> Iterable[str]:
    for line, row in rows.items():
        base = rows.get(line.replace("--net wan ", "--net wan --schedule lan "))
        if row["net"] == "wan" and base is not None and base is not row:
            share, time = row["rounds"] / base["rounds"], row["secure_s"] / base["secure_s"]
            yield (
                f"The `wan` schedule, {row['model']}: {share:.2f} of the `lan` schedule's rounds (asked: 0.5, "
                f"{verdict(share <= 0.5)}), {time:.2f} of its seconds over WAN."
            )


def _lan(rows: dict[str, Data]) -> Iterable[str]:
    for row in rows.values():
        if row["model"] == "bert-base" and row["net"] == "lan" and row["seq"] == 128:
            yield (
                f"BERT base over LAN: {row['secure_s']:.1f} s with all three parties on this machine's cores, beside "
                "33.9 s that PUMA and 20.1 s that Mosformer published for three hosts."
            )


def growth(data: Data) -> str:
    """Exponents."""
    slopes = benchmarks_growth.exponents(data)
    titles, costs = benchmarks_growth.TITLES, benchmarks_growth.COSTS
    rows = [(titles[a], *("-" if s is None else f"{s:.2f}" for s in row.values())) for a, row in slopes.items()]
    return "\n\n".join(
        [
            "## Growth",
            "`python benchmarks/growth.py`: exponents of cost against size, over the upper half of each axis; 1 is "
            "growth in proportion. [Points and plot](results/growth.md).",
            table(("against", *costs), rows),
        ]
    )


def _where(data: Data) -> str:
    known, made = data["machine"], data["versions"]
    return f"{data['measured']}, {known['cpu']}, {known['cores']} cores, torch {made['torch']}, {made['kernels']}"


def plot(found: Data, floor: Data | None) -> None:
    """Seconds of both systems, and where Hush's go at least."""
    names = [row["workload"] for row in found["rows"]]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for offset, who in ((-0.2, "spu"), (0.2, "hush")):
        heights = [statistics.median(row[who]["seconds"]) for row in found["rows"]]
        places = [i + offset for i in range(len(names))]
        bars = left.bar(places, heights, 0.4, label={"spu": "SPU", "hush": "Hush"}[who])
        left.bar_label(bars, fmt="%.1f")
    left.set_xticks(range(len(names)), names)
    left.set(yscale="log", ylabel="seconds", title="the same machine and run")
    left.legend()
    if floor is not None:
        kinds, base = ("products_s", "bytes_s", "rounds_s"), [0.0] * len(floor["rows"])
        places = range(len(floor["rows"]))
        for kind in kinds:
            values = [row["floor"][kind] for row in floor["rows"]]
            right.bar(places, values, 0.5, bottom=base, label=kind.removesuffix("_s"))
            base = [a + b for a, b in zip(base, values, strict=True)]
        right.plot(places, [row["seconds"] for row in floor["rows"]], "k_", markersize=40, label="wall")
        right.set_xticks(list(places), [row["workload"] for row in floor["rows"]])
        right.set(ylabel="seconds", title="the floor, and the run")
        right.legend()
    figure.savefig(PLOT, dpi=110)


PARTS: dict[str, tuple[Callable[[Data], str], str]] = {
    "peers": (peers, "Beside SPU: not measured yet (`python benchmarks/peers/run.py --spu-python V/bin/python`)."),
    "limits": (limits, "Close to the limit: not measured yet (`python benchmarks/limits.py`)."),
    "networks": (networks, "Over modelled networks: not measured yet (`python benchmarks/networks.py`)."),
    "growth": (growth, "Growth: not measured yet (`python benchmarks/growth.py`)."),
    "puma": (published, "PUMA's networks: not measured yet (`python benchmarks/puma_table.py`)."),
}


def main() -> None:
    """Write the page and the plot."""
    found = {name: load(name) for name in PARTS}
    parts = ["# Speed", "Made by `python benchmarks/report.py` from the results of the scripts that each part names."]
    if found["peers"] is not None:
        plot(found["peers"], found["limits"])
        parts.append("![seconds beside SPU, and the floor](results/report.png)")
    for name, (write, missing) in PARTS.items():
        data = found[name]
        parts.append(missing if data is None else write(data))
    PAGE.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
