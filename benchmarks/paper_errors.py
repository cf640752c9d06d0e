"""How far networks of published size, freshly initialised, are from float32 in fixed point: what `err_bound` rests on.

    python benchmarks/paper_errors.py                      # every network with ids for input
    python benchmarks/paper_errors.py gpt2-base --seq 16

One process emulates what three parties compute (they add an ulp a truncation). LLaMA-7B does not fit a common machine
whole: its 32 layers are made, compiled and run one after the other, each fed what the one before gave in fixed point,
and compared with the same layers in float32. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from functools import partial

import torch
from fidelity.interpret import FIXED, running
from torch import Tensor, nn

from hush import api
from hush.models import registry
from hush.models.decoding import attending
from hush.models.initial import DEVIATION, initialised
from hush.models.llama import Layer, LlamaConfig, RMSNorm
from hush.models.rotary import rotary_tables
from hush.mpc.compiler import Program
from hush.parties.cli.sources import resolve

MODELS = [e.id for e in registry.entries() if e.id != "minilm" and "paper" in e.sizes and e.adapt is not None]


class Joined(nn.Module):
    """A network's results as one tensor [B, .., H]: the pooled vector as one more row."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *args: Tensor) -> Tensor:
        """[B, T, ..] and, of an encoder, [B, ..] after it."""
        found = self.net(*args)
        return torch.cat([found[0], found[1][:, None]], 1) if isinstance(found, tuple) else found


class Block(nn.Module):
    """One layer of LLaMA with the positions and the mask that its network gives it."""

    def __init__(self, c: LlamaConfig) -> None:
        super().__init__()
        self.config, self.layer = c, Layer(c)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, H] -> [B, T, H]."""
        c, length = self.config, x.shape[1]
        turn = rotary_tables(c.size, length, c.rope_theta, c.rope_parameters)
        found: Tensor = self.layer(x, turn, attending(length, group=c.group))[0]
        return found


class Head(nn.Module):
    """What comes after the layers."""

    def __init__(self, c: LlamaConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, H] -> [B, T, V]."""
        found: Tensor = self.lm_head(self.norm(x))
        return found


def fixed(program: Program, args: Sequence[Tensor]) -> Tensor:
    """The program's result in one process."""
    with running(program, FIXED) as run:
        return run.infer(args).float()


def whole(model: str, seq: int | None) -> tuple[Tensor, Tensor]:
    """(in fixed point, in float32) of a network that fits."""
    source = resolve(model, size="paper", seq=seq)
    module = Joined(source.module).eval()
    program = api.compile(module, source.example, ranges=list(source.calls))
    with torch.inference_mode():
        plain = module(*source.call)
    return fixed(program, source.call), plain


def by_layer(seq: int, calls: int = 2) -> tuple[Tensor, Tensor]:
    """LLaMA-7B's logits in the same way; the last of `calls` is run, on the others ranges are calibrated."""
    c = LlamaConfig()
    numbers = torch.Generator().manual_seed(0)
    plain = [torch.randn(1, seq, c.hidden_size, generator=numbers) * DEVIATION for _ in range(calls + 1)]
    secure = plain[-1]
    for index in range(c.num_hidden_layers + 1):
        part = partial(Block if index < c.num_hidden_layers else Head, c)
        module = initialised(part, seed=index)
        program = api.compile(module, (plain[0],), ranges=[(x,) for x in plain[1:-1]])
        secure = fixed(program, (secure,))
        with torch.inference_mode():
            plain = [module(x) for x in plain]
        gap = float((secure - plain[-1]).abs().max())
        say(f"after {index + 1} of {c.num_hidden_layers} layers and the head: {gap:.1e} of {plain[-1].std():.2f}")
        del module, program
        gc.collect()
    return secure, plain[-1]


def say(what: str) -> None:
    """A line of progress."""
    print(what, file=sys.stderr, flush=True)


def main() -> None:
    """Print a row a network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--seq", type=int, help="default: each model's own")
    asked = parser.parse_args()
    print("| model | seq | outputs' deviation | largest error | mean error | err_bound |\n|---|---|---|---|---|---|")
    for model in asked.models:
        say(model)
        entry = registry.get(model)
        seq = entry.length("paper", asked.seq)
        secure, plain = by_layer(seq) if model == "llama-7b" else whole(model, seq)
        gap = (secure - plain).abs()
        figures = f"{plain.std():.2f} | {gap.max():.1e} | {gap.mean():.1e} | {entry.err_bound:.0e}"
        print(f"| {model} | {seq} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
