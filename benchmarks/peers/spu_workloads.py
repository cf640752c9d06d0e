"""The workloads in JAX, as SPU traces them. Runs in SPU's environment, without Hush.

PUMA's approximations are those of PUMA's paper (arXiv 2307.12533): a piecewise GELU, and a softmax that subtracts the
row's maximum, cuts exp below -14 and divides once a row; SPU's exp is then set to (1 + x/32)^32 (`spu_run.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SEED = 7
HIDDEN, FEED_FORWARD, HEADS = 768, 3072, 12
VOCABULARY, CONTEXT = 50_257, 1024
Tree = Any


@dataclass(frozen=True)
class Workload:
    """A function for SPU to trace, its secret arguments, and the exact function."""

    traced: Callable[..., Any]
    exact: Callable[..., Any]
    args: tuple[Tree, ...]


def gelu_erf(x):
    """BERT's."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * 0.7071067811865476))


def gelu_tanh(x):
    """GPT-2's, and SPU's usual choice for both."""
    return 0.5 * x * (1.0 + jnp.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


def gelu_puma(x):
    """PUMA's pieces: three comparisons, a cubic and an even sextic."""
    below, low, high = x < -4.0, x < -1.95, x > 3.0
    outer, inner = jnp.logical_xor(below, low), jnp.logical_not(jnp.logical_xor(low, high))
    x2 = jnp.square(x)
    x3, x4 = x * x2, jnp.square(x2)
    cubic = -0.011034134030615728 * x3 - 0.11807612951181953 * x2 - 0.42226581151983866 * x - 0.5054031199708174
    sextic = 0.0018067462606141187 * (x2 * x4) - 0.037688200365904236 * x4 + 0.3603292692789629 * x2 + 0.5 * x
    return high * x + outer * cubic + inner * (sextic + 0.008526321541038084)


def softmax_exact(x):
    """JAX's."""
    return jax.nn.softmax(x, axis=-1)


def softmax_puma(x):
    """With the row's maximum taken off and small terms cut."""
    x = x - jnp.max(x, axis=-1, keepdims=True)
    powers = jnp.exp(x) * (x > -14.0)
    return powers / jnp.sum(powers, axis=-1, keepdims=True)


def layer_norm(x, scale, shift):
    """eps 1e-5."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + 1e-5) * scale + shift


def layer(p, x, gelu, softmax, causal):
    """A transformer layer; norms after the sums, or before each part if causal."""

    def attend(y):
        q, k, v = jnp.split(y @ p["wqkv"] + p["bqkv"], 3, axis=-1)
        q, k, v = (t.reshape(t.shape[0], HEADS, -1).transpose(1, 0, 2) for t in (q, k, v))
        scores = jnp.matmul(q, k.transpose(0, 2, 1)) * (1.0 / np.sqrt(HIDDEN // HEADS))
        if causal:
            scores = scores + jnp.where(jnp.tril(jnp.ones(scores.shape[1:], dtype=bool)), 0.0, -100.0)[None]
        mixed = jnp.matmul(softmax(scores), v).transpose(1, 0, 2).reshape(y.shape)
        return mixed @ p["wo"] + p["bo"]

    def feed_forward(y):
        return gelu(y @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]

    if causal:
        x = x + attend(layer_norm(x, p["g1"], p["be1"]))
        return x + feed_forward(layer_norm(x, p["g2"], p["be2"]))
    x = layer_norm(x + attend(x), p["g1"], p["be1"])
    return layer_norm(x + feed_forward(x), p["g2"], p["be2"])


def parameters(rng) -> dict[str, np.ndarray]:
    """One layer's weights, in the order in which `workloads.py` draws them."""

    def drawn(*shape):
        return (rng.standard_normal(shape) * 0.02).astype(np.float32)

    h, f = HIDDEN, FEED_FORWARD
    p = {"wqkv": drawn(h, 3 * h), "bqkv": drawn(3 * h), "wo": drawn(h, h), "bo": drawn(h), "w1": drawn(h, f)}
    p |= {"b1": drawn(f), "w2": drawn(f, h), "b2": drawn(h), "g1": 1 + drawn(h), "be1": drawn(h)}
    return p | {"g2": 1 + drawn(h), "be2": drawn(h)}


def named(name: str, variant: str) -> Workload:
    """bert<layers> or gpt2_<layers>_<tokens>; variant puma, or default (GELU by tanh, JAX's softmax)."""
    rng = np.random.default_rng(SEED)
    softmax = softmax_puma if variant == "puma" else softmax_exact
    gelu = gelu_puma if variant == "puma" else gelu_tanh
    if name.startswith("gpt2_"):
        return _decoder(rng, *map(int, name.split("_")[1:]), gelu, softmax)
    layers = [parameters(rng) for _ in range(int(name.removeprefix("bert")))]
    x = rng.standard_normal((128, HIDDEN)).astype(np.float32)

    def encoder(gelu, softmax):
        def run(layers, x):
            for p in layers:
                x = layer(p, x, gelu, softmax, False)
            return x

        return run

    return Workload(encoder(gelu, softmax), encoder(gelu_erf, softmax_exact), (layers, x))


def _decoder(rng, count, tokens, gelu, softmax) -> Workload:
    layers = [parameters(rng) for _ in range(count)]

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    ends = {"wte": normal(VOCABULARY, HIDDEN) * 0.02, "wpe": normal(CONTEXT, HIDDEN)[:tokens] * 0.01}
    ends |= {"g": 1 + normal(HIDDEN) * 0.02, "b": normal(HIDDEN) * 0.02}
    ends = {key: value.astype(np.float32) for key, value in ends.items()}
    ids = rng.integers(0, VOCABULARY, (tokens,), dtype=np.int32)

    def decoder(gelu, softmax):
        def run(layers, ends, ids):
            hot = (ids[:, None] == jnp.arange(VOCABULARY, dtype=ids.dtype)[None]).astype(ends["wte"].dtype)
            x = hot @ ends["wte"] + ends["wpe"]
            for p in layers:
                x = layer(p, x, gelu, softmax, True)
            logits = layer_norm(x[-1:], ends["g"], ends["b"]) @ ends["wte"].T
            return logits, jnp.argmax(logits[0])

        return run

    return Workload(decoder(gelu, softmax), decoder(gelu_tanh, softmax_exact), (layers, ends, ids))
