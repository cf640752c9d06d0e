"""What every primitive and function sends: docs/costs.md, from the cost model that tests hold equal to measured runs.

`python benchmarks/protocol_costs.py` prints the page, `--write` writes it. tests/docs makes it again and compares.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from hush.mpc.cells import Cells
from hush.mpc.cost import FRAME_HEADER, Traffic, total
from hush.mpc.functions import attention, embedding, log, norms, order, reciprocal, rsqrt, softmax, sqrt
from hush.mpc.functions.declare import Declared, declared
from hush.mpc.functions.sets import default, puma
from hush.mpc.points import Points
from hush.mpc.ring import RING32, RING64, Ring
from hush.mpc.schedule import LAN, WAN
from hush.mpc.secret import Shared
from hush.mpc.step import Step
from hush.protocols.replicated import costs, costs_bits
from hush.protocols.replicated.compare import sign_width, zero_width
from hush.protocols.replicated.cost import ReplicatedCost, meta, meta_bits
from hush.protocols.replicated.dpf import key_bytes

PAGE = Path(__file__).parents[1] / "docs" / "costs.md"
LARGE, SMALL = 3 << 20, 3 << 12
FRACS = {RING64: 18, RING32: 12}
BOUND = 64.0
HEADS, TOKENS = 12, 128
Row = tuple[str, ...]
Case = tuple[str, Callable[[int], Iterable[Any]]]  # a name, and the rounds for a number of elements


def spent(rounds: Iterable[Traffic], elements: int) -> tuple[str, str]:
    """(payload bits an element over the three parties, rounds), frame headers left out."""
    cost = total(rounds)
    bits = 8 * (sum(cost.bytes_sent) - FRAME_HEADER * sum(cost.messages)) / elements
    return f"{bits:,.1f}".removesuffix(".0"), str(cost.rounds)


def table(head: Sequence[str], rows: Iterable[Row]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# ---------------------------------------------------------------------- primitives
def primitives(ring: Ring) -> list[Case]:
    """Every interactive primitive in a ring, at its usual scale."""
    f, p = FRACS[ring], ReplicatedCost(ring, FRACS[ring])
    other = RING32 if ring == RING64 else RING64

    def x(n: int, frac: int = f) -> Shared:
        return meta((n,), frac, ring)

    return [
        ("`open`", lambda n: p.open(x(n))),
        ("`lookup`, rows of 64, secret table", lambda n: p.lookup(places(n // 64), x(1000 * 64).reshape(1000, 64))),
        ("`lookup`, rows of 64, public table", lambda n: p.lookup(places(n // 64), torch.zeros(1000, 64))),
        ("`contribute`", lambda n: p.contribute(lambda: torch.zeros(()), (n,), dealer=0, ring=ring)),
        ("`mul`, `matmul`, `conv`, exact (integers)", lambda n: p.mul(x(n, 0), x(n), frac=f)),
        (f"`mul`, `matmul`, `matmul_add`, `conv`, drop {f} bits", lambda n: p.mul(x(n), x(n), frac=f)),
        (f"the same into 2^{other.bits}", lambda n: p.mul(x(n), x(n), frac=f, ring=other)),
        (
            "`mul_public`, `matmul_public`, `conv_public`, `combine`, exact",
            lambda n: p.mul_public(x(n), 0.5, frac=2 * f),
        ),
        (f"the same, drop {f} bits", lambda n: p.mul_public(x(n), 0.5, frac=f)),
        (f"`truncate`, drop {f} bits", lambda n: p.truncate(x(n, 2 * f), f)),
        (f"`truncate`, drop {f} bits, into 2^{other.bits}", lambda n: p.truncate(x(n, 2 * f), f, ring=other)),
        (f"`truncate`, drop {f} bits, `exact=True`", lambda n: p.truncate(x(n, 2 * f), f, exact=True)),
        *(_sign(p, ring, bits, drop) for bits, drop in ((20, 7), (24, 0), (ring.bits, 0))),
        *(_zero(p, ring, bits) for bits in (15, ring.bits)),
        ("`to_bits`, 16 planes", lambda n: p.to_bits(x(n), planes=16)),
        (f"`to_bits`, {ring.bits} planes", lambda n: p.to_bits(x(n), planes=ring.bits)),
        ("`both`, one plane", lambda n: p.both(meta_bits((n,), 1), meta_bits((n,), 1))),
        ("`from_bits`, one plane", lambda n: p.from_bits(meta_bits((n,), 1), ring=ring)),
        ("`select`", lambda n: p.select(meta_bits((n,), 1), x(n))),
        ("`select_sum` of 2", lambda n: p.select_sum([meta_bits((n,), 1)] * 2, [x(n)] * 2)),
        ("`below`, 2 thresholds on 16 bits", lambda n: p.below(x(n, 0), [0.0, 1.0], bound=2.0**15 - 1)),
        ("`shuffle`", lambda n: p.shuffle(x(n))),
        ("`shuffle.permute`, rows of 64", lambda n: costs_bits.permute(n, n // 64, ring)),
    ]


def places(count: int, classes: int = 1000) -> Points:
    """Secret places without data."""
    return Points((torch.empty((count, 1), device="meta"),), classes)


def _sign(p: ReplicatedCost, ring: Ring, bits: int, drop: int) -> Case:
    """`negative` on so many bits."""
    bound = float(2 ** (bits + drop - 1) - (2 << drop)) if bits < ring.bits else float(2 ** (ring.bits - 1))
    assert sign_width(ring, 0, bound, drop) == bits
    name = f"`negative` on {bits} bits" + (f", {drop} dropped" if drop else "")
    return name, lambda n: p.negative(meta((n,), 0, ring), bound=bound, drop=drop)


def _zero(p: ReplicatedCost, ring: Ring, bits: int) -> Case:
    """`is_zero` on so many bits."""
    bound = float(2**bits - 1) if bits < ring.bits else float(2 ** (ring.bits - 1))
    assert zero_width(ring, 0, bound) == bits
    return f"`is_zero` on {bits} bits", lambda n: p.is_zero(meta((n,), 0, ring), bound=bound)


def both_sizes(cases: Iterable[Case]) -> list[Row]:
    """A row a case: bits and rounds for a large tensor, then for a small one."""
    return [(name, *spent(rounds(LARGE), LARGE), *spent(rounds(SMALL), SMALL)) for name, rounds in cases]


SIZES = (f"bits, {LARGE:,}", "rounds", f"bits, {SMALL:,}", "rounds")


# ---------------------------------------------------------------------- functions
P = ReplicatedCost(RING64, FRACS[RING64])


def secret(*shape: int, frac: int = FRACS[RING64]) -> Shared:
    """A secret tensor without data."""
    return meta(shape, frac, RING64)


def promise(d: Declared) -> Row:
    """Domain, error and behaviour outside, as declared."""
    low, high = (_number(edge) for edge in d.domain)
    return f"{low} to {high}", _number(d.error) + (" rel." if d.relative else ""), d.outside


def _number(value: float) -> str:
    """A large or small power of two as such, anything else in decimals."""
    mantissa, exponent = math.frexp(value)
    return f"2^{exponent - 1}" if mantissa == 0.5 and abs(exponent) > 8 else f"{value:g}"


def elementwise() -> list[Row]:
    """Both sets; of `puma` only what differs."""
    rows = []
    for of in (default, puma):
        for name, function in of.functions().items():
            if of is puma and function is getattr(default, name):
                continue
            costs = (spent(function(P, secret(n), bound=BOUND), n) for n in (LARGE, SMALL))
            label = f"`{name}`" + (" (puma)" if of is puma else "")
            rows.append((label, *promise(declared(function)), *(cell for pair in costs for cell in pair)))
    return rows


def of_one_scale() -> list[Row]:
    """Functions that normalise their argument, over their declared domain."""
    rows: list[Row] = []
    for function, approx in (
        (reciprocal.reciprocal, "default"),
        (reciprocal.reciprocal, "puma"),
        (rsqrt.rsqrt, "default"),
        (rsqrt.rsqrt, "puma"),
        (sqrt.sqrt, None),
        (log.log, None),
        (log.log2, None),
    ):
        found = declared(function)
        range_ = {"bound": found.domain[1], "floor": max(found.domain[0], 2.0**-18)}
        options: dict[str, Any] = range_ if approx is None else {**range_, "approx": approx}
        bits, rounds = spent(function(P, secret(SMALL), **options), SMALL)
        domain, error, outside = promise(found)
        published = approx == "puma"
        label = f"`{found.name}`" + (" (puma)" if published else "")
        rows.append((label, domain, "as published" if published else error, outside, bits, rounds))
    return rows


def rows_of(n: int) -> Shared:
    """Scores of 12 heads and 128 queries."""
    return secret(HEADS, TOKENS, n)


def softmaxes() -> list[Row]:
    """Per entry, by length of the row and set; a causal mask halves the work."""
    found: list[Row] = []
    for n in (16, 128, 512, 2048):
        size = HEADS * TOKENS * n
        costs = [spent(softmax.softmax(P, rows_of(n), bound=16.0, approx=a), size) for a in ("default", "puma")]
        found.append((str(n), *costs[0], *costs[1]))
    return found


def row_functions() -> list[Row]:
    """Functions of a row or of a table, per output."""
    causal = torch.full((TOKENS, TOKENS), -torch.inf).triu(1)
    scores, values = rows_of(TOKENS), secret(HEADS, TOKENS, 64)
    width, ids, vocabulary = 768, 128, 30522
    x, one = secret(TOKENS, width), secret(width)
    hot, table_ = secret(ids, vocabulary, frac=0), secret(vocabulary, 384)
    row = secret(64, TOKENS)
    cases: list[tuple[str, Step[Any], int, str]] = [
        (
            "softmax, causal mask, 12 x 128 x 128",
            softmax.softmax(P, scores, bound=16.0, mask=causal),
            scores.numel,
            "score",
        ),
        (
            "`attend` (softmax and product with values), 12 x 128 x 128, D = 64",
            attention.attend(P, scores, values, bound=16.0, value_bound=8.0),
            scores.numel,
            "score",
        ),
        ("log_softmax, 12 x 128 x 128", softmax.log_softmax(P, scores, bound=16.0), scores.numel, "score"),
        ("layer_norm, 128 x 768, no weights", norms.layer_norm(P, x, bound=BOUND), x.numel, "entry"),
        (
            "layer_norm, 128 x 768, secret weights",
            norms.layer_norm(P, x, bound=BOUND, weight=one, bias=one),
            x.numel,
            "entry",
        ),
        (
            "layer_norm (puma), 128 x 768, no weights",
            norms.layer_norm(P, x, bound=BOUND, approx="puma"),
            x.numel,
            "entry",
        ),
        ("rms_norm, 128 x 768, no weights", norms.rms_norm(P, x, bound=BOUND), x.numel, "entry"),
        ("maximum of 128, 64 rows", order.maximum(P, row, bound=BOUND), row.numel, "entry"),
        ("argmax of 128, 64 rows", order.argmax(P, row, bound=BOUND), row.numel, "entry"),
        (
            "embedding of one-hot ids, 128 x 30522, D = 384",
            embedding.embedding_of_one_hot(P, hot, table_),
            ids * 384,
            "output",
        ),
        (
            "embedding of ids by equality, the same",
            embedding.embedding_of_ids(P, secret(ids, frac=0), table_),
            ids * 384,
            "output",
        ),
    ]
    return [(name, *spent(step, count), unit) for name, step, count, unit in cases]


def token_ids() -> list[Row]:
    """What looking token ids up costs the client and the parties, by how they travel."""
    ids, classes, width = 32, 50_257, 768
    words, held = secret(classes, width), meta((ids,), 0, RING64)
    hot = secret(ids, classes, frac=0)
    full, seeds, keys = 8 * ids, 4 * 32, 6 * ids * key_bytes(classes)  # a word to two parties each, seeds to two
    cases = (
        ("keys (`dpf`)", keys, P.lookup(places(ids, classes), words)),
        ("one-hot rows (`onehot`)", seeds + 2 * full * classes, embedding.embedding_of_one_hot(P, hot, words)),
        ("as they are (`equality`)", seeds + 2 * full, embedding.embedding_of_ids(P, held, words)),
    )
    rows: list[Row] = []
    for name, client, step in cases:
        cost = total(step)
        rows.append((name, f"{client / 1e3:,.1f}", f"{sum(cost.bytes_sent) / 1e6:.3f}", str(cost.rounds)))
    return rows


def slow_network() -> list[Row]:
    """Functions under both schedules, and the primitives of `wan` alone, at the sizes of a layer of BERT base."""
    near, far = (ReplicatedCost(RING64, FRACS[RING64], schedule) for schedule in (LAN, WAN))
    x, scores, wide = secret(TOKENS, 768), rows_of(TOKENS), secret(TOKENS, 3072)
    sums, total_ = secret(HEADS * TOKENS, frac=18), secret(TOKENS, frac=36)
    norm, inverse = Cells.covering(1 << 8, 1 << 56, 9), Cells.covering(1 << 17, 1 << 26, 8)
    tables = {cells: torch.zeros(3, cells.count, dtype=torch.int64) for cells in (norm, inverse)}
    row = torch.arange(HEADS * TOKENS).repeat_interleave(TOKENS)
    flat, dot = scores.reshape(-1), (secret(TOKENS, 1, 768), secret(TOKENS, 768, 1))

    def both(run: Callable[[ReplicatedCost], Step[Any]]) -> list[Step[Any]]:
        return [run(near), run(far)]

    cases: list[tuple[str, list[Step[Any]], int, str]] = [
        ("layer_norm, 128 x 768", both(lambda p: norms.layer_norm(p, x, bound=BOUND)), x.numel, "entry"),
        ("softmax, 12 x 128 x 128", both(lambda p: softmax.softmax(p, scores, bound=8.0)), scores.numel, "score"),
        ("gelu, 128 x 3072", both(lambda p: default.functions()["gelu"](p, wide, bound=16.0)), wide.numel, "entry"),
        ("`pick` of 3 at 512 cells to an octave", [far.pick(total_, norm, tables[norm])], TOKENS, "number"),
        ("`pick` of 3 at 256 cells to an octave", [far.pick(sums, inverse, tables[inverse])], sums.numel, "number"),
        ("`pick_product`, 768 terms", [far.pick_product(*dot, 0.0, norm, tables[norm])], TOKENS, "number"),
        ("`pick_product`, the other cells", [far.pick_product(*dot, 0.0, inverse, tables[inverse])], TOKENS, "number"),
        ("`highest`, rows of 128, 64 bins", [far.highest(flat, row, shift=18, bins=64)], flat.numel, "entry"),
        ("`highest`, rows of 128, 128 bins", [far.highest(flat, row, shift=18, bins=128)], flat.numel, "entry"),
    ]
    rows: list[Row] = []
    for name, steps, count, unit in cases:
        *first, last = [spent(step, count) for step in steps]
        rows.append((name, *(first[0] if first else ("", "")), *last, unit))
    return rows


# ---------------------------------------------------------------------- the page
def frame() -> str:
    """Bytes of an invocation's own two rounds."""
    before, after = total(costs.invocation_before()), total(costs.invocation_after())
    return f"{before.bytes_sent[0]} and {after.bytes_sent[0]}"


def page() -> str:
    """docs/costs.md."""
    head = ("function", "domain tested", "error", "outside")
    parts = [
        "# Costs",
        "Made by `python benchmarks/protocol_costs.py --write`; `tests/docs/test_costs_table.py` makes it again and "
        "compares. The figures come from `ReplicatedCost`, which `tests/conformance` and `tests/replicated` hold equal "
        "to measured runs, round by round.",
        "**Bits** are payload, per element of the result, in all: the three parties together. Frame headers "
        f"({FRAME_HEADER} bytes a message) are not in them. **Rounds** are the longest chain of dependent messages. "
        f"Comparisons choose digits by the number of elements ([protocols.md](protocols.md)), so a large tensor "
        f"({LARGE:,} elements) and a small one ({SMALL:,}) are given. An invocation adds two rounds of "
        f"{frame()} bytes a party, headers included.",
        "What is not listed sends nothing: `add`, `sub`, `neg`, `add_public`, `scale`, `rescale`, `matmul_int`, `xor`, "
        "`invert`, `constant`, and everything that only moves entries.",
    ]
    for ring, frac in FRACS.items():
        parts += [
            f"## Primitives in 2^{ring.bits}, f = {frac}",
            table(("primitive", *SIZES), both_sizes(primitives(ring))),
        ]
    parts += [
        "## Elementwise functions",
        f"k = 64, f = 18, bound = {BOUND:g}. Domain, error and behaviour outside are the functions' own declarations "
        "(`hush.mpc.functions.declare`), swept through shares by `tests/functions/test_elementwise.py`. Of the set "
        "`puma` only the functions that differ are listed.",
        table((*head, *SIZES), elementwise()),
        "## Functions of one scale",
        f"Cost over the whole declared domain (`floor`, `bound`), {SMALL:,} elements; a narrower domain costs less. "
        "Swept by `tests/functions/test_normalise.py`. `puma` has the published polynomial and number of iterations, "
        "and their errors ([functions.md](functions.md)).",
        table((*head, "bits", "rounds"), of_one_scale()),
        "## Softmax",
        f"Per entry, {HEADS} x {TOKENS} rows, |scores| <= 16, no mask.",
        table(("entries a row", "default: bits", "rounds", "puma: bits", "rounds"), softmaxes()),
        "## Functions of a row",
        table(("function", "bits", "rounds", "per"), row_functions()),
        "## Over a slow network",
        "The schedules `lan` and `wan` ([compiler.md](compiler.md), [protocols.md](protocols.md) section 12).",
        table(("step", "lan: bits", "rounds", "wan: bits", "rounds", "per"), slow_network()),
        "## Secret token ids",
        "32 ids of a vocabulary of 50,257, rows of 768 numbers of a secret table: what the client sends to all three "
        "parties, what the parties send to each other, frame headers included. How ids travel is `lookup` of "
        "`hush.compile`; seconds are in [results/embedding.md](../benchmarks/results/embedding.md).",
        table(("way", "client KB", "parties MB", "rounds"), token_ids()),
        "## Costs of a program",
        "`print(program)` lists bytes and rounds by layer and by operator, `hush inspect PROGRAM --by op` also by "
        "primitive inside each operator. All add up to the program's "
        "(`tests/compiler/test_itemise.py`). [profiling.md](profiling.md) says where the time of a run goes.",
        "## Growth",
        "`python benchmarks/growth.py` runs an encoder of 2 layers and width 128 at 128 positions, and varies length "
        "(32 to 1,024), batch (1 to 16), layers (1 to 16) and width (64 to 1,024) one by one: seconds, bytes, rounds "
        "and memory of each point, their exponents over the upper half of each axis, and a plot. It writes "
        "`growth.json`, `growth.md` and `growth.png` into `benchmarks/results`. Bytes and rounds are the model's, and "
        "every run is held to them.",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} instead of printing it")
    if parser.parse_args().write:
        PAGE.write_text(page())
    else:
        sys.stdout.write(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
