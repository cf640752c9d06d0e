"""PUMA's own table on this machine: BERT, RoBERTa, GPT-2 and LLaMA on shares, beside plaintext and PUMA's figures.

    python benchmarks/puma_table.py                 # every row that is not there yet, over an hour on two cores
    python benchmarks/puma_table.py --only gpt2     # rows whose name contains this, again
    python benchmarks/puma_table.py --report        # the table and the plot from the rows that are there

Writes benchmarks/results/puma.json (rows), puma.md (table) and puma.png (plot, with matplotlib). How a row was measured
is in the row:

  whole      the whole network, three processes over mutual TLS on this machine
  by layer   what would take over 20 GB for three parties: networks of 2 and of 3 blocks are measured, and
             total = two blocks + (blocks - 2) x the difference. Bytes and rounds are those predicted for the whole
             network, which equal what a run measures.
  block      LLaMA-7B: one block and the two ends (embedding, head, choice of a token) are measured, and
             total = ends + 32 x block: 31 of the blocks are predicted. The last block, which computes one
             position only, is counted in full.

GPT-2 and LLaMA: from the shares of the prompt to the first chosen token. PUMA: arXiv 2307.12533v3, three hosts of 32
vCPU, 5 Gbit/s and 1 ms between them; ours is this machine's cores for all three parties, and its loopback.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hush.models import bert, gpt2, llama
from hush.models.initial import initialised

sys.path.insert(0, str(Path(__file__).parent))
from figures import machine

RESULTS = Path(__file__).parent / "results"
WAN_RATE, WAN_TRIP = 5e9, 1e-3  # PUMA's network
LLAMA_BLOCKS = 32


@dataclass(frozen=True)
class Row:
    """What is measured, and PUMA's seconds and GB for it (None: not in the table that we have)."""

    name: str
    model: str
    seq: int
    how: str = "whole"
    generates: bool = False
    puma_s: float | None = None
    puma_gb: float | None = None


ROWS = (
    Row("bert-base, 64", "bert-base", 64),
    Row("bert-base, 128", "bert-base", 128, puma_s=33.9, puma_gb=10.8),
    Row("bert-base, 256", "bert-base", 256),
    Row("roberta-base, 128", "roberta-base", 128, puma_s=41.6, puma_gb=11.5),
    Row("bert-large, 128", "bert-large", 128, "by layer", puma_s=73.7, puma_gb=27.2),
    Row("gpt2-base, 16 -> 1", "gpt2-base", 16, generates=True),
    Row("gpt2-base, 32 -> 1", "gpt2-base", 32, generates=True, puma_s=15.5, puma_gb=3.77),
    Row("gpt2-base, 64 -> 1", "gpt2-base", 64, generates=True),
    Row("gpt2-medium, 32 -> 1", "gpt2-medium", 32, "by layer", True, puma_s=30.3, puma_gb=7.06),
    Row("llama-7b, 8 -> 1", "llama-7b", 8, "block", True, puma_s=200.5, puma_gb=1.79),
)


@dataclass
class Measured:
    """One row's figures. Bytes are those of the three parties together."""

    name: str
    how: str
    secure_s: float
    plain_s: float
    gigabytes: float
    rounds: int
    max_abs_err: float
    predicted_equal: bool
    peak_gb: float
    note: str = ""
    versions: dict[str, str] = field(default_factory=dict)


# ---------------------------------------------------------------------- measuring
def measure(row: Row) -> Measured:
    """Run a row, each network in a process of its own."""
    if row.how == "whole":
        return _whole(row)
    return _by_layer(row) if row.how == "by layer" else _block(row)


def _whole(row: Row) -> Measured:
    command = [sys.executable, "-m", "hush", "bench", row.model, "--size", "paper", "--seq", str(row.seq), "--json"]
    found = _json([*command, *(["--new", "1"] if row.generates else [])])[0]
    return _measured(row, found, found, found["predicted"])


def _by_layer(row: Row) -> Measured:
    two, three = (_part(f"{row.model}:{blocks}:{row.seq}") for blocks in (2, 3))
    whole = _part(f"{row.model}:predict:{row.seq}")
    more = whole["blocks"] - 2
    seconds = two["secure_s"] + more * (three["secure_s"] - two["secure_s"])
    plain = two["plain_s"] + more * (three["plain_s"] - two["plain_s"])
    made = _measured(row, three, {"secure_s": seconds, "plain_s": plain}, whole["predicted"])
    made.note = f"2 and 3 of {whole['blocks']} blocks measured; error and memory are those of 3"
    return made


def _block(row: Row) -> Measured:
    block, ends = _part(f"{row.model}:block:{row.seq}"), _part(f"{row.model}:ends:{row.seq}")
    total = {key: ends[key] + LLAMA_BLOCKS * block[key] for key in ("secure_s", "plain_s", "rounds")}
    sent = [e + LLAMA_BLOCKS * b for e, b in zip(ends["bytes_sent"], block["bytes_sent"], strict=True)]
    made = _measured(row, block, total, {"bytes_sent": sent, "rounds": total["rounds"]})
    made.note = f"one of {LLAMA_BLOCKS} blocks measured, the others predicted; error and memory are the block's"
    return made


def _measured(row: Row, part: dict[str, Any], times: dict[str, Any], cost: dict[str, Any]) -> Measured:
    return Measured(
        name=row.name,
        how=row.how,
        secure_s=times["secure_s"],
        plain_s=times["plain_s"],
        gigabytes=sum(cost["bytes_sent"]) / 1e9,
        rounds=cost["rounds"],
        max_abs_err=part["max_abs_err"],
        predicted_equal=all(part["predicted"][key] == part[key] for key in part["predicted"]),
        peak_gb=sum(part["peak_rss"]) / 1e9,
        versions=part["versions"],
    )


def _part(spec: str) -> Any:
    return _json([sys.executable, __file__, "--part", spec])


def _json(command: list[str]) -> Any:
    print(" ".join(command[1:]), file=sys.stderr)
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


# ---------------------------------------------------------------------- parts of networks, in a process of their own
class Block(nn.Module):
    """One of LLaMA's blocks, on activations [1, T, H]."""

    def __init__(self, net: llama.Llama) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """[1, T, H] -> [1, T, H]."""
        length = x.shape[1]
        found: Tensor = self.net.layers[0](x, self.net.turns(length), llama.attending(length))[0]
        return found


def run_part(spec: str) -> dict[str, Any]:
    """One measured or predicted part: MODEL:(BLOCKS | predict | block | ends):SEQ."""
    model, which, length = spec.split(":")
    seq = int(length)
    if which == "block":
        return _run_module(Block(_llama(num_hidden_layers=1, vocab_size=2)), (_activations(seq),))
    if which == "ends":  # a block of next to nothing between the embedding and the head
        thin = {"num_attention_heads": 1, "head_dim": 2, "intermediate_size": 2}
        return _run_generator(_llama(num_hidden_layers=1, **thin), llama.generator, seq)
    blocks = None if which == "predict" else int(which)
    if model == "bert-large":
        config = bert.LARGE if blocks is None else replace(bert.LARGE, num_hidden_layers=blocks)
        net = initialised(lambda: bert.Bert(config))
        if blocks is None:
            return _predicted(_compile(net, (_ids(config.vocab_size, seq),)), config.num_hidden_layers)
        return _run_module(net, (_ids(config.vocab_size, seq),))
    sizes = gpt2.SIZES["medium"] if blocks is None else replace(gpt2.SIZES["medium"], n_layer=blocks)
    net = gpt2.initialise(sizes)
    if blocks is None:
        return _predicted(_compile_generator(net, gpt2.generator, seq), sizes.n_layer)
    return _run_generator(net, gpt2.generator, seq)


def _llama(**changes: Any) -> llama.Llama:
    config = llama.LlamaConfig(**changes)
    net = initialised(lambda: llama.Llama(config))
    assert isinstance(net, llama.Llama)
    return net


def _ids(vocabulary: int, seq: int, seed: int = 0) -> Tensor:
    return torch.randint(
        min(1000, vocabulary // 2), vocabulary, (1, seq), generator=torch.Generator().manual_seed(seed)
    )


def _activations(seq: int) -> Tensor:
    return torch.randn(1, seq, llama.LlamaConfig().hidden_size, generator=torch.Generator().manual_seed(0))


def _compile(net: nn.Module, call: tuple[Tensor, ...]) -> Any:
    import hush

    return hush.compile(net, call)


def _compile_generator(net: Any, generator: Callable[[nn.Module], tuple[nn.Module, nn.Module]], seq: int) -> Any:
    import hush

    calls = [(_ids(net.config.vocab_size, seq, seed),) for seed in range(3)]
    return hush.compile_generator(*generator(net), calls, context=net.config.longest, reveals="logits")


def _predicted(program: Any, blocks: int) -> dict[str, Any]:
    from hush.parties.cli.measure import cost_json

    return {"predicted": cost_json(program.cost), "blocks": blocks}


def _run_module(net: nn.Module, call: tuple[Tensor, ...]) -> dict[str, Any]:
    from hush.parties.cli import console, measure

    program = _compile(net, call)
    with console.stages(3) as stage, measure.local(program, "grpc", "none", stage) as infer:
        done = measure.measure(net, call, program, infer, 1, stage("running"))
    return done.figures() | {"versions": measure.versions()}


def _run_generator(net: Any, generator: Callable[[nn.Module], tuple[nn.Module, nn.Module]], seq: int) -> dict[str, Any]:
    from hush.parties.cli import console, generating, measure

    program, call = _compile_generator(net, generator, seq), (_ids(net.config.vocab_size, seq),)
    with console.stages(3) as stage, measure.local(program, "grpc", "none", stage) as infer:
        done = generating.measure(generator(net), call, program, infer, 1, 1, stage("running"))
    return done.prompt.figures() | {"versions": measure.versions()}


# ---------------------------------------------------------------------- report
HEAD = """\
# PUMA's table

Made by `python benchmarks/puma_table.py`, whose docstring says how each kind of row is measured. Ours: all three
parties on this one machine, over mutual TLS on loopback, secret weights, one run after a warm-up. GB: what the three
parties send in all. "Network": what rounds and bytes take over PUMA's network (5 Gbit/s, 1 ms), computation aside, by
our model. PUMA: published, three hosts of 32 vCPU; "-": not published, or not known to us.

| network | measured | on shares s | plaintext s | GB | rounds | network s | error | peak GB, all | PUMA s | PUMA GB |
|---|---|---|---|---|---|---|---|---|---|---|
"""


def report(made: dict[str, Any]) -> str:
    """The table of all rows that are there."""
    lines, notes = [], []
    for row in ROWS:
        if row.name in made["rows"]:
            found = Measured(**made["rows"][row.name])
            lines.append(_line(row, found))
            if found.note:
                notes.append(f"- {row.name}: {found.note}.")
    versions = next(iter(made["rows"].values()))["versions"]
    m = made["machine"]
    origin = f"{m['cpu']}, {m['cores']} cores, {m['system']}; " + ", ".join(f"{k} {v}" for k, v in versions.items())
    return HEAD + "\n".join(lines) + "\n\n" + "\n".join([*notes, f"- Machine: {origin}."]) + "\n"


def _line(row: Row, m: Measured) -> str:
    network = m.rounds * WAN_TRIP / 2 + 8 * m.gigabytes * 1e9 / 3 / 2 / WAN_RATE
    published = ("-" if row.puma_s is None else f"{row.puma_s}", "-" if row.puma_gb is None else f"{row.puma_gb}")
    how = m.how if m.predicted_equal else f"{m.how}, NOT AS PREDICTED"
    cells = (row.name, how, f"{m.secure_s:.2f}", f"{m.plain_s:.3f}", f"{m.gigabytes:.3f}", f"{m.rounds:,}")
    return "| " + " | ".join((*cells, f"{network:.2f}", f"{m.max_abs_err:.1e}", f"{m.peak_gb:.1f}", *published)) + " |"


def plot(made: dict[str, Any], path: Path) -> bool:
    """Seconds and GB beside PUMA's; False where matplotlib is missing."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return False
    rows = [row for row in ROWS if row.name in made["rows"]]
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 0.45 * len(rows) + 1.8), sharey=True)
    for axis, key, published, title in (
        (axes[0], "secure_s", "puma_s", "seconds (ours: one machine; PUMA: three hosts)"),
        (axes[1], "gigabytes", "puma_gb", "GB sent by three parties"),
    ):
        places = range(len(rows))
        axis.barh([p + 0.2 for p in places], [made["rows"][r.name][key] for r in rows], 0.38, label="Hush")
        axis.barh([p - 0.2 for p in places], [getattr(r, published) or 0 for r in rows], 0.38, label="PUMA, published")
        axis.set_xscale("log")
        axis.set_title(title, fontsize=10)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(list(range(len(rows))), [r.name for r in rows])
    axes[0].invert_yaxis()
    axes[1].legend(loc="lower right", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    return True


# ---------------------------------------------------------------------- command
def main() -> int:
    """Measure what is asked for and write the files; exit status."""
    parser = argparse.ArgumentParser(description="PUMA's table.")
    parser.add_argument("--only", help="rows whose name contains this, even if they are there")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(run_part(options.part)))
        return 0
    path = RESULTS / "puma.json"
    made = json.loads(path.read_text()) if path.exists() else {"machine": machine(), "rows": {}}
    for row in [] if options.report else ROWS:
        wanted = options.only in row.name if options.only else row.name not in made["rows"]
        if wanted:
            made["rows"][row.name] = asdict(measure(row))
            path.write_text(json.dumps(made, indent=1) + "\n")  # after each row: a run that is cut short is not lost
    (RESULTS / "puma.md").write_text(report(made))
    if not plot(made, RESULTS / "puma.png"):
        print("no plot: pip install matplotlib", file=sys.stderr)
    print(report(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
