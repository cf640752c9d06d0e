"""The peers' workloads as torch modules: the encoder and the decoder that SPU and CrypTen are measured on.

Shapes, the order in which numbers are drawn and the seed are those of the JAX functions that SPU runs
(`spu_workloads.py`), so weights and inputs are the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SEED = 7
HIDDEN, FEED_FORWARD, HEADS = 768, 3072, 12
VOCABULARY, CONTEXT = 50_257, 1024
_LAYER = (
    ("wqkv", (HIDDEN, 3 * HIDDEN), 0.0),
    ("bqkv", (3 * HIDDEN,), 0.0),
    ("wo", (HIDDEN, HIDDEN), 0.0),
    ("bo", (HIDDEN,), 0.0),
    ("w1", (HIDDEN, FEED_FORWARD), 0.0),
    ("b1", (FEED_FORWARD,), 0.0),
    ("w2", (FEED_FORWARD, HIDDEN), 0.0),
    ("b2", (HIDDEN,), 0.0),
    ("g1", (HIDDEN,), 1.0),
    ("be1", (HIDDEN,), 0.0),
    ("g2", (HIDDEN,), 1.0),
    ("be2", (HIDDEN,), 0.0),
)


@dataclass(frozen=True, slots=True)
class Workload:
    """A module, its call and which of the call is public."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Layer(nn.Module):
    """A transformer layer; GELU by erf, or tanh as GPT-2 has it."""

    def __init__(self, rng: np.random.Generator, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        drawn = {n: centre + 0.02 * rng.standard_normal(shape) for n, shape, centre in _LAYER}
        p = {name: torch.from_numpy(value.astype(np.float32)) for name, value in drawn.items()}
        self.qkv, self.out = _linear(p["wqkv"], p["bqkv"]), _linear(p["wo"], p["bo"])
        self.up, self.down = _linear(p["w1"], p["b1"]), _linear(p["w2"], p["b2"])
        self.norm1, self.norm2 = _norm(p["g1"], p["be1"]), _norm(p["g2"], p["be2"])
        self.gelu = nn.GELU(approximate="tanh" if causal else "none")

    def forward(self, x: Tensor) -> Tensor:
        """[tokens, HIDDEN] -> the same; norms after the sums, or before each part if causal."""
        if self.causal:
            x = x + self._attend(self.norm1(x))
            return x + self.down(self.gelu(self.up(self.norm2(x))))
        x = self.norm1(x + self._attend(x))
        return self.norm2(x + self.down(self.gelu(self.up(x))))

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = (part.view(x.shape[0], HEADS, -1).transpose(0, 1) for part in self.qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=self.causal)[0]
        return self.out(mixed.transpose(0, 1).reshape(x.shape))


class Encoder(nn.Module):
    """`bert12`: layers over embeddings [tokens, HIDDEN] that are secret themselves."""

    def __init__(self, rng: np.random.Generator, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(rng, causal=False) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """[tokens, HIDDEN] -> the same."""
        for layer in self.layers:
            x = layer(x)
        return x


class Decoder(nn.Module):
    """`gpt2`: token ids [tokens] -> (logits [1, VOCABULARY] of the next token, its id)."""

    def __init__(self, rng: np.random.Generator, layers: int, tokens: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(rng, causal=True) for _ in range(layers))
        normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
        self.table = nn.Parameter(torch.from_numpy(normal(VOCABULARY, HIDDEN) * np.float32(0.02)))
        places = normal(CONTEXT, HIDDEN)[:tokens] * np.float32(0.01)
        self.places = nn.Parameter(torch.from_numpy(places))
        scale, shift = (torch.from_numpy(normal(HIDDEN) * np.float32(0.02)) for _ in range(2))
        self.norm = _norm(1 + scale, shift)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The last position's logits, and the largest one's id."""
        x = F.embedding(ids, self.table) + self.places
        for layer in self.layers:
            x = layer(x)
        logits = F.linear(self.norm(x[-1:]), self.table)
        return logits, logits[0].argmax()


def encoder(layers: int, tokens: int = 128) -> Workload:
    """`bert{layers}`, at the peers' 128 tokens unless told otherwise."""
    rng = np.random.default_rng(SEED)
    module = Encoder(rng, layers)
    x = torch.from_numpy(rng.standard_normal((tokens, HIDDEN)).astype(np.float32))
    return Workload(module.eval().requires_grad_(False), (x,), {})


def decoder(layers: int, tokens: int) -> Workload:
    """`gpt2_{layers}_{tokens}`."""
    rng = np.random.default_rng(SEED)
    module = Decoder(rng, layers, tokens)
    ids = torch.from_numpy(rng.integers(0, VOCABULARY, (tokens,), dtype=np.int32)).long()
    return Workload(module.eval().requires_grad_(False), (ids,), {})


def named(name: str) -> Workload:
    """A workload by the name that the peers' scripts give it: bert12, gpt2_12_32."""
    if name.startswith("gpt2_"):
        _, layers, tokens = name.split("_")
        return decoder(int(layers), int(tokens))
    if name.startswith("bert"):
        return encoder(int(name.removeprefix("bert")))
    raise ValueError(f"no workload {name!r}: bert<layers> or gpt2_<layers>_<tokens>")


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """y = x weight + bias, weight [in, out]."""
    layer = nn.Linear(*weight.shape)
    layer.weight, layer.bias = nn.Parameter(weight.T.contiguous()), nn.Parameter(bias)
    return layer


def _norm(weight: Tensor, bias: Tensor) -> nn.LayerNorm:
    norm = nn.LayerNorm(weight.shape, eps=1e-5)
    norm.weight, norm.bias = nn.Parameter(weight), nn.Parameter(bias)
    return norm
