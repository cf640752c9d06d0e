"""Long prompts: BERT base at 512 tokens and GPT-2 base at 1,024, and how large a chunk of attention should be.

    python benchmarks/long_prompts.py                  # both networks whole: 12 GB, minutes a run on two cores
    python benchmarks/long_prompts.py --only bert-base
    python benchmarks/long_prompts.py --chunks         # a GPT-2 layer of 1,024 tokens, chunks of 2^18 to 2^23 scores

Weights have the published initialisation and are secret; three processes over mutual TLS. BERT gets a secret mask with
an eighth of padding. GPT-2 runs the prompt of a generation: a causal mask, logits of the last token. `--chunks` runs
three threads, and its memory is that of all three.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import torch
from figures import RESULTS, machine
from torch import Tensor, nn
from torch.nn import functional as F

import hush
from hush.models import registry
from hush.mpc.functions import chunks
from hush.parties.cli import measure
from hush.parties.cost import predicted
from hush.parties.threads import ThreadTrio

Call = tuple[Tensor, ...]
BITS = range(18, 24)


def main() -> int:
    """Measure and write the files; exit status."""
    parser = argparse.ArgumentParser(description="Measure long prompts.")
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--chunks", action="store_true", help="one layer with chunks of several sizes instead")
    parser.add_argument("--chunk-bits", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.chunk_bits is not None:
        print(json.dumps(layer(options.chunk_bits)))
    elif options.chunks:
        write("long-prompts-chunks", {"layers": [json.loads(in_own_process(bits)) for bits in BITS]})
    else:
        for name in (name for name in NETWORKS if options.only in name):
            run = {"command": f"python benchmarks/long_prompts.py --only {name}", "result": [network(name)]}
            write(f"long-prompts-{name}", {"runs": [run]})
    return 0


def write(name: str, found: dict[str, Any]) -> None:
    """The result file of a set."""
    load = f"{os.getloadavg()[2]:.1f} processes at work in the last quarter of an hour"
    made = {"measured": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": machine() | {"load": load}, **found}
    (RESULTS / f"{name}.json").write_text(json.dumps(made, indent=1) + "\n")
    print(json.dumps(made, indent=1))


# ---------------------------------------------------------------------- whole networks
class Next(nn.Module):
    """The logits that follow a prompt."""

    def __init__(self, prefill: nn.Module) -> None:
        super().__init__()
        self.prefill = prefill

    def forward(self, ids: Tensor) -> Tensor:
        """[B, T] -> [B, V]."""
        logits: Tensor = self.prefill(ids)["logits"]
        return logits


def bert() -> tuple[nn.Module, list[Call]]:
    """BERT base, and calls of 512 tokens with a mask: the last is the one to run."""
    entry = registry.get("bert-base")
    ids, mask = entry.example("paper", 512, 1, 1)[0], torch.ones(1, 512, dtype=torch.bool)
    mask[:, -64:] = False
    assert entry.for_text is not None
    return entry.build("paper", None), [*entry.for_text("paper", 512, 1), (ids, mask)]


def gpt2() -> tuple[nn.Module, list[Call]]:
    """GPT-2 base as far as the next token, and calls of 1,024."""
    entry = registry.get("gpt2-base")
    assert entry.generator is not None
    prefill, _ = entry.generator(entry.build("paper", None))
    return Next(prefill), [entry.example("paper", 1024, 1, seed) for seed in range(3)]


NETWORKS: dict[str, tuple[Callable[[], tuple[nn.Module, list[Call]]], int]] = {
    "bert-base": (bert, 512),
    "gpt2-base": (gpt2, 1024),
}


def network(name: str) -> dict[str, Any]:
    """A network on shares beside itself in plaintext, after a warm-up of both."""
    make, seq = NETWORKS[name]
    module, calls = make()
    program = hush.compile(module, calls[0], ranges=calls[1:-1])
    weights = sum(torch.Size(spec.shape).numel() for spec in program.weight_specs)
    with measure.local(program, "grpc", "none", stage) as infer:
        done = measure.measure(module, calls[-1], program, infer, 1, stage(name))
    head = {"model": name, "size": "paper", "seq": seq, "link": "grpc", "net": "none", "weights": "secret"}
    times = {"times_plaintext": round(done.secure_s / done.plain_s, 1), "weight_bytes": 16 * weights}
    return head | done.figures() | times | {"versions": measure.versions()}


def stage(name: str) -> Callable[[str, float], None]:
    """Progress of a stage, to stderr."""
    print(name, file=sys.stderr)
    return lambda what, part: print(f"  {what} {part:.0%}", file=sys.stderr)


# ---------------------------------------------------------------------- the size of a chunk
class Layer(nn.Module):
    """A pre-norm block of GPT-2 base."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(768, 2304), nn.Linear(768, 768)
        self.up, self.down = nn.Linear(768, 3072), nn.Linear(3072, 768)
        self.before, self.between = nn.LayerNorm(768), nn.LayerNorm(768)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, H] -> [B, T, H]."""
        q, k, v = (part.unflatten(-1, (12, 64)).transpose(1, 2) for part in self.qkv(self.before(x)).chunk(3, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        after: Tensor = self.down(F.gelu(self.up(self.between(x)), approximate="tanh"))
        return x + after


def in_own_process(bits: int) -> str:
    """`layer` where no memory has been used yet."""
    command = [sys.executable, __file__, "--chunk-bits", str(bits)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def layer(bits: int) -> dict[str, Any]:
    """One layer's second run with chunks of 2^bits scores: seconds of the clock and of the cores, memory, cost."""
    chunks.MOST = 1 << bits
    torch.manual_seed(0)
    module, x = Layer().eval(), torch.randn(1, 1024, 768)
    program = hush.compile(module, (x,))
    cost = predicted(program)
    with ThreadTrio(program) as trio, torch.no_grad():
        base = rss()
        trio.infer((x,))
        before, begin = cpu(), time.perf_counter()
        done = trio.infer((x,))
        seconds, used = time.perf_counter() - begin, [b - a for a, b in zip(before, cpu(), strict=True)]
        error = float((done.output - module(x)).abs().max())
    return {
        "chunk": 1 << bits,
        "seconds": round(seconds, 2),
        "cpu_user_s": round(used[0], 2),
        "cpu_system_s": round(used[1], 2),
        "peak_bytes_of_three": rss() - base,
        "max_abs_err": error,
        "predicted": measure.cost_json(cost),
    } | measure.cost_json(done.report.cost)


def cpu() -> tuple[float, float]:
    """Seconds of the cores in this process so far, its own and the system's."""
    times = os.times()
    return times.user, times.system


def rss() -> int:
    """Peak of the resident memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
