"""Small networks of all families of functions, each inferred by three parties on the device of `foreign_device`.

    TRITON_INTERPRET=1 python -m support.foreign_nets mlp gelu ...

prints a line of JSON for each: how far its output is from the network's own, and where parties waited. --names: all.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from support.decoder import CONTEXT, Decoder, Next, Prefill
from support.foreign_device import DEVICE, NAME, WAITS, foreign
from torch import Tensor, nn
from torch.nn import functional as F

from hush.mpc import beside
from hush.mpc.compiler import Program, compile_generator, compile_module
from hush.mpc.functions.sampling import Choice
from hush.mpc.schedule import LAN, WAN, Schedule
from hush.parties.request import Request
from hush.parties.threads import ThreadTrio

VOCABULARY, PROMPT = 23, [7, 1, 9, 4, 2]


@dataclass(frozen=True)
class Net:
    """What is tried; `options` are the compiler's."""

    module: nn.Module
    args: tuple[Tensor, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule = LAN
    seeds: bool | None = None


class _Function(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Tensor:
        return self.function(*args)


class _Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cells(x)[0]  # type: ignore[no-any-return]


class _Padded(nn.Module):
    """Ids that are looked up, compared with a number, and read as numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.table(ids) * (ids > 3)[..., None] + ids[..., None] / 16  # type: ignore[no-any-return]


def _of(function: Callable[..., Tensor], *shapes: tuple[int, ...], schedule: Schedule = LAN) -> Callable[[], Net]:
    return lambda: Net(_Function(function), tuple(torch.randn(s) for s in shapes), schedule=schedule)


def _ids(*shape: int) -> Tensor:
    return torch.randint(0, 16, shape)


def _table(**options: Any) -> Callable[[], Net]:
    return lambda: Net(nn.Sequential(nn.Embedding(16, 4), nn.Linear(4, 3)), (_ids(1, 3),), options)


def _conv(**options: Any) -> Callable[[], Net]:
    def made() -> Net:
        first = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        second = nn.Conv2d(8, 8, 3, groups=8, padding=1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 3)
        return Net(nn.Sequential(*first, *second), (torch.rand(1, 3, 4, 4),), options)

    return made


def _layer(schedule: Schedule = LAN, **options: Any) -> Callable[[], Net]:
    def made() -> Net:
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0)
        return Net(layer, (torch.randn(1, 3, 8),), options, schedule)

    return made


def _lines(x: Tensor) -> Tensor:
    return x.clamp(-0.5, 0.5) + torch.where(x > 0, x, torch.zeros(())) + x.masked_fill(x < 0.1, 2.0) + F.leaky_relu(x)


def _logic(x: Tensor, y: Tensor) -> Tensor:
    return ((x > y) & (x > 0) | (y == x)).float() + (x != y) * x


def _layout(x: Tensor) -> Tensor:
    wide = torch.cat([F.pad(x, (1, 1), value=0.5), x.roll(1, -1).repeat(1, 2)[:, :6]], 0).cumsum(-1).flip(-1)
    return F.pad(wide[None], (1, 1), mode="reflect")[..., torch.tensor([2, 0])] * torch.tensor([1.5, 2.5])


def _masked_rows(x: Tensor) -> Tensor:
    return x[torch.tensor([[True, False, True], [False, True, True]])] + torch.arange(4.0)


def _picked(x: Tensor) -> Tensor:
    return torch.index_select(x, 1, torch.tensor([2, 0])) + torch.gather(x, 1, torch.tensor([[1, 2], [0, 3]]))


def _written(x: Tensor) -> Tensor:
    return torch.zeros(2, 6).scatter(1, torch.tensor([[0, 2], [1, 3]]), x).index_add(1, torch.tensor([4, 5]), x)


def _statistics(x: Tensor) -> Tensor:
    return x.mean(-1, keepdim=True) + x.var(-1, keepdim=True) + x.norm(dim=-1, keepdim=True) + x.logsumexp(-1, True)


def _real(x: Tensor) -> Tensor:
    y = x.abs()
    return torch.exp(-y) + torch.log(y + 1) + torch.sqrt(y + 1) + torch.sin(x) + torch.cos(x) + 1 / (y + 1)


def _attention(x: Tensor, keep: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x, attn_mask=(keep > 0)[:, None, None, :])


def _largest(x: Tensor) -> Tensor:
    return x.max(-1).values + x.amin(-1)


NETS: dict[str, Callable[[], Net]] = {
    "mlp": lambda: Net(nn.Sequential(nn.Linear(8, 4), nn.GELU(), nn.Linear(4, 3)), (torch.randn(1, 8),)),
    "weights as seeds": lambda: Net(nn.Linear(8, 3), (torch.randn(1, 8),), seeds=True),
    "weights as seeds, many rows": lambda: Net(nn.Linear(8, 3), (torch.randn(9, 8),), seeds=True),
    "layer": _layer(),
    "layer of public weights": _layer(weights="public"),
    "layer far apart": _layer(WAN),
    "normalisation": lambda: Net(nn.LayerNorm(8), (torch.rand(2, 8),)),
    "causal attention": _of(lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True), (1, 2, 4, 4)),
    "softmax far apart": _of(lambda x: x.softmax(-1), (2, 9), schedule=WAN),
    "hidden mask": lambda: Net(_Function(_attention), (torch.randn(1, 2, 4, 4), torch.tensor([[1, 1, 1, 0]]))),
    "activations": _of(lambda x: torch.sigmoid(x) + torch.tanh(x) + F.elu(x) + F.silu(x) + F.softplus(x), (6,)),
    "functions": _of(_real, (6,)),
    "lines": _of(_lines, (6,)),
    "logic": _of(_logic, (6,), (6,)),
    "lstm": lambda: Net(_Lstm(), (torch.randn(1, 1, 4),)),
    "argmax": _of(lambda x: x.argmax(-1), (3, 5)),
    "largest": _of(_largest, (3, 5)),
    "largest of many": _of(lambda x: x.amax(-1), (4, 40)),
    "top k": _of(lambda x: torch.cat([torch.topk(x, 2).values, torch.sort(x).values], -1), (2, 5)),
    "convolution": _conv(),
    "convolution of public weights": _conv(weights="public"),
    "adaptive pooling": lambda: Net(
        nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Conv2d(2, 4, 1)), (torch.rand(1, 2, 5, 5),)
    ),
    "one-hot embedding": _table(lookup="onehot"),
    "embedding by equality": _table(lookup="equality"),
    "embedding by keys": _table(lookup="dpf"),
    "public embedding": _table(lookup="onehot", weights="public"),
    "public embedding by keys": _table(lookup="dpf", weights="public"),
    "keys and a number": lambda: Net(_Padded(), (_ids(1, 4).clamp(min=1),), {"lookup": "dpf"}),
    "picked": _of(_picked, (2, 5)),
    "masked rows": _of(_masked_rows, (2, 3, 4)),
    "secret places": lambda: Net(
        _Function(lambda x, i: torch.gather(x, 1, i)), (torch.randn(2, 5), torch.randint(0, 5, (2, 3)))
    ),
    "written": _of(_written, (2, 2)),
    "layout": _of(_layout, (2, 4)),
    "interpolation": _of(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), (1, 2, 3, 3)),
    "statistics": _of(_statistics, (2, 5)),
    "products": _of(lambda x, y: torch.einsum("bi,bj->ij", x, y), (2, 3), (2, 4)),
}


def _inferred(net: Net) -> float:
    """How far the output is from the network's."""
    module = net.module.eval()
    program = replace(compile_module(module, net.args, **net.options), schedule=net.schedule)
    with foreign(), ThreadTrio(program, backend=NAME, deadline=500, seeds=net.seeds) as trio:
        WAITS.clear()
        made = trio.infer(net.args).output
    with torch.no_grad():
        return float((made.double() - module(*net.args).double()).abs().max())


def _generated(choice: Choice) -> float:
    """How many tokens of two turns are not the network's own; of a draw, which has one turn, whether it is no token."""
    net = Decoder(VOCABULARY).eval()
    calls = [(torch.randint(0, VOCABULARY, (1, len(PROMPT))),) for _ in range(6)]
    program: Program = compile_generator(Prefill(net), Next(net), calls[0], calls=calls[1:], context=CONTEXT)
    ids, told = torch.tensor([PROMPT]), []
    with foreign(), ThreadTrio(program, backend=NAME, deadline=500) as trio:
        WAITS.clear()
        for turn in range(1 if choice.temperature else 2):
            told.append(int(trio.infer([ids], None, None, Request(turn > 0, choice=choice)).output["token"]))
    if choice.temperature:
        return float(sum(not 0 <= token < VOCABULARY for token in told))
    best = list(PROMPT)
    with torch.no_grad():
        for _ in told:
            best.append(int(net(torch.tensor([best]))[0, -1].argmax()))
    return float(sum(a != b for a, b in zip(told, best[len(PROMPT) :], strict=True)))


GENERATIONS = {
    "greedy generation": Choice(),
    "sampled generation": Choice(temperature=0.8),
    "generation sampled from a few": Choice(temperature=0.8, top_k=4),
}
LARGE = "large public tensors"
NAMES = (*NETS, *GENERATIONS, LARGE)


def _beside() -> float:
    """Of a tensor that CUDA may wait for, how many copies are made in vain, or are not those of the tensor as it is."""
    host, wrong = torch.arange(beside.SMALL), 0
    with foreign():
        WAITS.clear()
        for step in range(2):
            host += step
            first, second = (beside.beside(host, DEVICE) for _ in range(2))
            wrong += (first is not second) + (not torch.equal(first.cpu(), host))
    return float(wrong)


def _tried(name: str) -> float:
    if name == LARGE:
        return _beside()
    return _generated(GENERATIONS[name]) if name in GENERATIONS else _inferred(NETS[name]())


def main(names: list[str]) -> None:
    """One after the other; an error is told as such and ends nothing."""
    for name in names:
        torch.manual_seed(0)
        try:
            error: float | str = _tried(name)
        except Exception:
            error = traceback.format_exc()[-3000:]
        print(json.dumps({"name": name, "error": error, "waits": sorted(WAITS)}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--names"]:
        print(json.dumps(NAMES))
    else:
        main(sys.argv[1:])
