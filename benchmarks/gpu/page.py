"""Tables of what was found: gpu.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpu.products import SQUARE, int8_products
from gpu.timing import Data

GEMM, GPT2, LLAMA = 15.0, 1.5, 20.0
"""Targets: 10^12 multiply-adds a second at 4096^3 mod 2^64 by 36 products of limbs; seconds of GPT-2's answer to 32
tokens; seconds of a token of LLaMA-7B's shape."""
PUBLISHED = (
    ("SIGMA", "GPT-2", "1.6 s", "two parties and a dealer, each on a GPU of its own; the paper's input, not 32 + 1"),
    ("PUMA", "LLaMA-7B, 8 tokens and 1", "200 s", "three parties, each on a host of its own, CPUs"),
)
CATEGORIES = ("GEMM", "nonlinear", "copy", "network")


def page(made: Data) -> str:
    """All of it."""
    parts: Mapping[str, Data] = made["parts"]
    sections = (
        _head(made),
        "" if made.get("quick") else _targets(parts),
        _squares(made, parts),
        _few(parts),
        _tiles(parts),
        _steps(parts),
    )
    more = (_protocols(parts), _networks(parts), _llama(parts), _published(), _missing(parts))
    return "\n\n".join(section for section in (*sections, *more) if section) + "\n"


def _head(made: Data) -> str:
    card, machine = made["card"], made["machine"]
    about = [card["name"], *(f"{name} {card[name]}" for name in ("capability", "driver", "cuda") if card.get(name))]
    about += [f"{card['memory_gib']} GiB"] if "memory_gib" in card else []
    versions = ", ".join(f"{name} {version}" for name, version in card["versions"].items())
    host = f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}"
    by = "`python benchmarks/gpu.py`"
    if made.get("quick"):
        by += " with `--quick`: **toy sizes, which show that it runs and nothing else**; networks are on the CPU"
    return f"# GPU\n\nMade by {by}.\n\n- Card: {', '.join(about)}\n- Host: {host}\n- {versions}"


def found(parts: Mapping[str, Data], name: str) -> Data:
    """A part's findings; none of one that was not run."""
    made: Data = parts.get(name, {}).get("found", {})
    return made


# ---------------------------------------------------------------------- targets
def targets(parts: Mapping[str, Data]) -> list[tuple[str, str, str, str]]:
    """What was aimed at, the figure due, the figure measured, and what that is."""
    squares = found(parts, "products/squares")
    limbs = [squares.get(f"{SQUARE}^3, 2^64, int8 limbs{kept}") for kept in ("", ", the second's kept")]
    residues = [squares.get(f"{SQUARE}^3, 2^64, int8 residues{kept}") for kept in ("", ", the second's kept")]
    rates = [max((r for r in each if isinstance(r, float)), default=None) for each in (limbs, residues)]
    gpt2 = {link: row["secure_s"] for link, row in _rows(parts, "networks/gpt2").items()}
    link = min(gpt2, key=gpt2.__getitem__, default=None)
    token, how = _token(parts)
    return [
        _target(
            f"products mod 2^64 at {SQUARE}^3 by limbs, the better of kept and made anew, 10^12/s",
            GEMM,
            rates[0],
            least=True,
        ),
        _target("the same by residues", GEMM, rates[1], least=True),
        _target(f"GPT-2, 32 tokens and 1{f' ({link})' if link else ''}, seconds", GPT2, gpt2.get(link or "")),
        _target(f"LLaMA-7B's shape, a token after 8{how}, seconds", LLAMA, token),
    ]


def _target(name: str, due: float, measured: float | None, *, least: bool = False) -> tuple[str, str, str, str]:
    sign = "at least" if least else "under"
    if measured is None:
        return name, f"{sign} {due:g}", "-", "not measured"
    reached = measured >= due if least else measured < due
    return name, f"{sign} {due:g}", f"{measured:.3g}", "reached" if reached else "missed"


def _rows(parts: Mapping[str, Data], name: str) -> Data:
    return {key: row for key, row in found(parts, name).items() if isinstance(row, dict) and "secure_s" in row}


def _token(parts: Mapping[str, Data]) -> tuple[float | None, str]:
    for name in ("llama/whole", "llama/blocks"):
        for key, row in _rows(parts, name).items():
            if key.startswith("32 blocks") and row.get("tokens"):
                return row["tokens"][0]["secure_s"], " (predicted)" if "predicted" in row else ""
    return None, ""


def _targets(parts: Mapping[str, Data]) -> str:
    return "## Targets\n\n" + table(("target", "due", "measured", ""), targets(parts))


# ---------------------------------------------------------------------- products
def _squares(made: Data, parts: Mapping[str, Data]) -> str:
    squares = found(parts, "products/squares")
    if not squares:
        return ""
    peak = made["card"].get("int8_peak")
    library = next((r for key, r in squares.items() if key.endswith("one int8 product")), None)
    lines = []
    for key, rate in squares.items():
        if key.startswith("exact"):
            continue
        size, ring, name = key.split(", ", 2)
        count = int8_products(name, int(ring.removeprefix("2^")))
        shares = [_share(rate, count, whole) for whole in (peak, library)]
        lines.append((size, ring, name, _number(rate), "" if count is None else str(count), *shares))
    exact = ", ".join(
        f"mod {k.removeprefix('exact, ')}: {_word(v)}" for k, v in squares.items() if k.startswith("exact")
    )
    head = (
        "size",
        "ring",
        "product",
        "10^12 multiply-adds/s",
        "int8 products",
        "of the card's int8 peak",
        "of the library's",
    )
    about = f"All ways equal to 64-bit multiply-adds on rows of the product, {exact}. "
    about += f"Peak: {peak:g} x 10^12 int8 multiply-adds a second ({made['card']['peak_source']})." if peak else ""
    return f"## Products\n\n{about}\n\n{table(head, lines)}"


def _share(rate: Any, count: int | None, whole: Any) -> str:
    known = isinstance(rate, float) and count is not None and isinstance(whole, float) and whole > 0
    return f"{rate * count / whole:.1%}" if known else ""


def _few(parts: Mapping[str, Data]) -> str:
    rows = found(parts, "products/rows")
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [(shape, *(_number(row.get(name)) for name in names)) for shape, row in rows.items()]
    title = "## Products of few rows mod 2^64, microseconds"
    return f"{title}\n\n{table(('shape', *names), lines)}" if rows else ""


def _tiles(parts: Mapping[str, Data]) -> str:
    rows = {key: row for key, row in found(parts, "products/tiles").items() if "as chosen" in row}
    lines = []
    for key, row in rows.items():
        rates = {name: rate for name, rate in row.items() if isinstance(rate, float)}
        best = max((n for n in rates if n != "as chosen"), key=rates.__getitem__, default=None)
        failed = sum(isinstance(rate, dict) for rate in row.values())
        chosen = _number(row.get("as chosen"))
        lines.append(
            (key, chosen, best or "-", _number(rates.get(best or "")), f"{len(rates) - 1 + failed}", str(failed))
        )
    head = ("product", "as chosen, 10^12/s", "best tile", "10^12/s", "tiles tried", "failed")
    return f"## Tiles\n\n{table(head, lines)}" if lines else ""


def _steps(parts: Mapping[str, Data]) -> str:
    rows = found(parts, "steps")
    lines = [(name, _number(rate)) for name, rate in rows.items()]
    return f"## Steps\n\n{table(('step', 'GB/s read and written'), lines)}" if rows else ""


# ---------------------------------------------------------------------- protocols and networks
def _protocols(parts: Mapping[str, Data]) -> str:
    rows = found(parts, "protocols")
    lines: list[tuple[str, ...]] = []
    for key, row in rows.items():
        where, _, name = key.partition(": ")
        if "failed" in row:
            lines.append((where, name, _word(row), "", "", ""))
            continue
        rate = f"{row['elements_s'] / 1e6:.1f}"
        lines.append((where, name, f"{row['elements']:,}", f"{row['seconds']:.4f}", rate, f"{row['GB_s']:.3f}"))
    head = ("parties on", "primitive", "elements", "seconds", "10^6 elements/s", "payload of all, GB/s")
    about = "Three threads of one process, memory between them."
    return f"## The protocol's primitives\n\n{about}\n\n{table(head, lines)}" if rows else ""


def _networks(parts: Mapping[str, Data]) -> str:
    lines = []
    for model, title in (("gpt2", "GPT-2, 32 + 1"), ("bert", "BERT base, 128"), ("toy", "two layers")):
        for device, name in (("GPU", f"networks/{model}"), ("CPU", f"cpu/{model}")):
            for link, row in found(parts, name).items():
                lines += _run_lines((title, f"{device}, {link}"), row)
    return f"## Networks\n\n{_ABOUT}\n\n{table(_RUN, lines)}" if lines else ""


def _llama(parts: Mapping[str, Data]) -> str:
    lines: list[tuple[str, ...]] = []
    for device, name in (("GPU", "llama/whole"), ("GPU", "llama/blocks"), ("CPU", "cpu/llama")):
        for key, row in found(parts, name).items():
            if key == "skipped":
                lines.append((f"32 blocks: not run, {row}", device, *[""] * (len(_RUN) - 2)))
            else:
                lines += _run_lines((f"LLaMA-7B, 8 + 1, {key}", f"{device}, memory"), row)
    return f"## LLaMA-7B's widths\n\n{_LLAMA_ABOUT}\n\n{table(_RUN, lines)}" if lines else ""


_RUN = (
    "network",
    "parties on",
    "turn",
    "seconds",
    "GB of all",
    "rounds",
    "error",
    *CATEGORIES,
    "GiB of the card",
    "cost",
)
_ABOUT = (
    "Seconds: the median of runs without a profile. Shares are those of a profiled run, which waits for the GPU where "
    "it cuts time. GEMM: computing of products, the local steps of their truncations with it; nonlinear: computing of "
    "everything else, attention's products included; network: sending and waiting, for parties that compute as well. "
    "Parties that share the GPU wait for each other's work where they wait for their own, so their shares hold some of "
    "it. GiB: the most of the card's memory that was taken, by all. Cost: whether rounds, bytes, messages are those "
    "predicted."
)
_LLAMA_ABOUT = (
    "Three threads of one process, random weights, a context of 64 positions. Predicted: one block with both ends, and "
    "31 times what a second one adds."
)


def _run_lines(head: tuple[str, str], row: Data) -> Iterator[tuple[str, ...]]:
    if "failed" in row:
        yield (*head, _word(row), *[""] * (len(_RUN) - 3))
        return
    if "secure_s" not in row:
        yield (*head, "ended before it ran", *[""] * (len(_RUN) - 3))
        return
    profile = list(row.get("profile", {}).values())
    memory = row.get("memory_gib")
    for number, turn in enumerate([row, *row.get("tokens", ())]):
        name = ("whole" if not row.get("tokens") else f"token {number + 1}") + ", first run" * bool(row.get("cold"))
        shares = profile[number]["shares"] if number < len(profile) else {}
        size = f"{sum(turn['bytes_sent']) / 1e9:.3f}" if "bytes_sent" in turn else ""
        error = f"{turn['max_abs_err']:.1e}" if "max_abs_err" in turn else ""
        cells = (name, f"{turn['secure_s']:.3f}", size, f"{turn['rounds']:,.0f}", error)
        taken = "" if number or memory is None else f"{memory:g}"
        kept = {True: "as predicted", False: "not as predicted"}.get(row.get("as_predicted"), "") if not number else ""
        yield (*head, *cells, *(f"{shares[c]:.0%}" if shares else "" for c in CATEGORIES), taken, kept)


def _published() -> str:
    head = ("of", "network", "seconds", "on")
    return f"## Published, other hardware\n\n{table(head, PUBLISHED)}"


def _missing(parts: Mapping[str, Data]) -> str:
    lines = [
        f"- {name}: {what}: {part[what]}"
        for name, part in parts.items()
        for what in ("skipped", "failed")
        if what in part
    ]
    return "## Not measured\n\n" + "\n".join(lines) if lines else ""


# ---------------------------------------------------------------------- cells
def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float | int) else _word(value)


def _word(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return "failed: " + str(value.get("failed", "")).splitlines()[0][:80].replace("|", "/")
    return "yes" if value is True else str(value)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows))
