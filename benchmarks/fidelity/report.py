"""The table of all parts, what was to be reached, and which continuations differ: one Markdown block for the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fidelity.interpret import COMPILED, FIXED, FLOAT, SECURE
from fidelity.part import Row
from fidelity.record import Record
from hush.mpc.functions.sets import SETS

BEGIN, END = "<!-- made by benchmarks/accuracy.py -->", "<!-- end -->"
COLUMNS = (FLOAT, *COMPILED)
CHANGE, EQUAL, POINTS, ACCURACY = 1e-3, 0.95, 0.02, 0.011


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the table: what it says, and how a row's figures show it."""

    title: str
    shown: Callable[[Row], str]


def _percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f}%"


LANGUAGE = (
    Measure("perplexity", lambda row: f"{row['perplexity']:.4f}"),
    Measure("its change", lambda row: f"{100 * row['change']:+.4f}%"),
    Measure("likeliest next token as in float", lambda row: _percent(row["same_next"])),
    Measure("largest error of a logit", lambda row: f"{row['largest']:.1e}"),
    Measure("equal continuations", lambda row: str(row["equal"])),
)
MEASURES = {
    "minilm": (
        Measure("1 - correlation of the similarities", lambda row: f"{1 - row['correlation']:.1e}"),
        Measure("largest error of a similarity", lambda row: f"{row['largest']:.1e}"),
        Measure("mean error of a similarity", lambda row: f"{row['mean']:.1e}"),
    ),
    "gpt2": LANGUAGE,
    "llama": LANGUAGE,
    "bert": (
        Measure("accuracy", lambda row: f"{row['accuracy']:.4f}"),
        Measure("other class than in float", lambda row: str(row["other"])),
        Measure("largest error of a score", lambda row: f"{row['largest']:.1e}"),
    ),
}


def block(records: Sequence[Record]) -> str:
    """Everything on the page that was measured."""
    parts = [_what(records), _table(records), _targets(records), _odd(records), _origin(records)]
    return "\n\n".join(part for part in parts if part) + "\n"


def inserted(page: str, made: str) -> str:
    """The page with the block between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"the page has no place for figures between {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{made}\n{END}{after}"


# ---------------------------------------------------------------------- what was measured
def _what(records: Sequence[Record]) -> str:
    return "\n".join(f"- **{record.part}**: {_facts(record)}" for record in records)


def _facts(record: Record) -> str:
    facts = record.facts
    if "pairs" in facts:
        lengths = ", ".join(f"{count} of up to {length}" for length, count in facts["lengths"].items())
        means = ", ".join(f"{kind} {mean:.2f}" for kind, mean in record.row("", FLOAT)["means"].items())
        return (
            f"{facts['network']}; {facts['pairs']} pairs of {facts['sentences']} sentences, by tokens: {lengths}; "
            f"mean similarity in float: {means}"
        )
    trained = f"{facts['network']}, {facts['parameters']:,} parameters; trained for {facts['training']}"
    if "examples" in facts:
        return f"{trained}; {facts['examples']} held-out paragraphs of {len(facts['groups'])} groups, as many of each"
    return (
        f"{trained}; {facts['tokens']:,} held-out tokens of {facts['bytes_per_token']:.2f} bytes, whose "
        f"perplexity by frequency alone is {facts['by_frequency']}; {facts['prompts']} prompts continued by "
        f"{facts['new']} tokens"
    )


# ---------------------------------------------------------------------- the table
def _table(records: Sequence[Record]) -> str:
    head = ("network", "figure", "approximations", *COLUMNS, "violations")
    lines = [head, tuple("---" for _ in head), *(line for record in records for line in _lines(record))]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _lines(record: Record) -> Iterator[tuple[str, ...]]:
    for measure in MEASURES[record.part]:
        for approx in SETS:
            shown = [measure.shown(record.row(approx, column)) for column in COLUMNS]
            violations = str(record.row(approx, FIXED)["violations"])
            yield (record.part, measure.title, f"`{approx}`", *shown, violations)


# ---------------------------------------------------------------------- targets
@dataclass(frozen=True, slots=True)
class Target:
    """What was to be reached on shares, and what was."""

    text: str
    reached: str
    met: bool


def targets(record: Record, approx: str = "default") -> list[Target]:
    """Of one part, on shares."""
    plain, secure = record.row(approx, FLOAT), record.row(approx, SECURE)
    if record.part == "bert":
        gap = abs(secure["accuracy"] - plain["accuracy"])
        return [Target(f"accuracy within {ACCURACY} of float", f"{gap:.4f}", gap < ACCURACY)]
    if record.part == "minilm":
        return []
    points, change = abs(secure["perplexity"] - plain["perplexity"]), abs(secure["change"])
    count, share = record.facts["prompts"], secure["equal"] / record.facts["prompts"]
    return [
        Target(f"perplexity within {_percent(CHANGE, 1)} of float", f"{100 * change:.4f}%", change < CHANGE),
        Target(f"perplexity within {POINTS} of float", f"{points:.5f}", points < POINTS),
        Target(f"{EQUAL:.0%} equal continuations", f"{secure['equal']} of {count}", share >= EQUAL),
    ]


def _targets(records: Sequence[Record]) -> str:
    lines = ["| network | to be reached, `default` on shares | reached | |", "|---|---|---|---|"]
    for record in records:
        for target in targets(record):
            cells = (record.part, target.text, target.reached, "met" if target.met else "**MISSED**")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _odd(records: Sequence[Record]) -> str:
    lines = []
    for record in records:
        for approx in SETS:
            odd = record.row(approx, SECURE).get("odd", ())
            for found in odd:
                where = f"prompt {found['prompt']} at its token {found['position'] + 1}"
                lines.append(f"- {record.part}, `{approx}`: {where}, where float prefers its own by {found['gap']:.2g}")
    return "Continuations that differ on shares:\n\n" + "\n".join(lines) if lines else ""


def _origin(records: Sequence[Record]) -> str:
    made: dict[str, list[str]] = {}
    for record in records:
        versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
        m = record.machine
        line = f"{record.measured}: {m['cpu']}, {m['cores']} cores, {m['system']}; {versions}"
        made.setdefault(line, []).append(record.part)
    return "\n".join(f"- {', '.join(parts)}: {line}" for line, parts in made.items())
