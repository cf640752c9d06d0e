"""LLaMA: Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", arXiv 2302.13971.

Names follow the HF state dict without its `model.` (`layers.{i}.self_attn.q_proj`, ...). Pre-norm blocks with RMS norm
(Zhang & Sennrich, arXiv 1910.07467), rotary positions (Su et al., arXiv 2104.09864), SwiGLU (Shazeer, arXiv
2002.05202), and in its successors queries that share keys in groups (Ainslie et al., arXiv 2305.13245).

Secret: token ids, the mask of a padded prompt, every activation. Public: sequence length, slots. Rotary positions count
differences only, so that slots serve as positions when a prompt is padded on the left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.checkpoint import Names
from hush.models.config import check_length, read_config, require
from hush.models.decoding import EVERY, LAST, Cache, State, attending, grown, grown_mask, look_up, past, stored
from hush.models.initial import initialised
from hush.models.language import Family, Member
from hush.models.registry import register
from hush.models.rotary import Turn, rotary_tables, rotated

CONTEXT = 8192  # the longest that rotary tables are made for


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """Sizes of a LLaMA; the fields are those of an HF `config.json`. The defaults are those of LLaMA-7B."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_parameters: Mapping[str, Any] = field(default_factory=dict)
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    hidden_act: str = "silu"

    def __post_init__(self) -> None:
        heads, width = self.num_attention_heads, self.hidden_size
        require(self.head_dim is not None or width % heads == 0, f"hidden_size {width} is no multiple of {heads} heads")
        require(heads % self.kv_heads == 0, f"{heads} heads do not share {self.kv_heads} keys evenly")
        require(self.size % 2 == 0, f"heads of size {self.size} cannot be rotated")
        rotary_tables(self.size, 1, self.rope_theta, self.rope_parameters)  # refuses what it does not know
        require(self.hidden_act == "silu", f"hidden_act is {self.hidden_act}, and this network's is silu")

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> LlamaConfig:
        """The fields that a `config.json` gives; the rest of it is ignored. Older files say rope_scaling."""
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        require(isinstance(rope, Mapping), f"rope_parameters is {rope!r}, and an object is due")
        theta = rope.get("rope_theta", config.get("rope_theta"))
        return read_config(cls, dict(config) | {"rope_parameters": rope, "rope_theta": theta})

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def group(self) -> int:
        """Query heads for each of them."""
        return self.num_attention_heads // self.kv_heads

    @property
    def size(self) -> int:
        """Entries of one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def longest(self) -> int:
        """The context."""
        return min(self.max_position_embeddings, CONTEXT)


class RMSNorm(nn.Module):
    """x over its root mean square, times a weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., H] -> [..., H]."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


class Attention(nn.Module):
    """Attention with rotary positions; each head of keys and values serves a group of G query heads."""

    def __init__(self, c: LlamaConfig) -> None:
        super().__init__()
        self.kv_heads, self.size, self.group = c.kv_heads, c.size, c.group
        self.q_proj = nn.Linear(c.hidden_size, c.num_attention_heads * c.size, bias=c.attention_bias)
        self.k_proj = nn.Linear(c.hidden_size, c.kv_heads * c.size, bias=c.attention_bias)
        self.v_proj = nn.Linear(c.hidden_size, c.kv_heads * c.size, bias=c.attention_bias)
        self.o_proj = nn.Linear(c.num_attention_heads * c.size, c.hidden_size, bias=c.attention_bias)

    def queries(self, x: Tensor, turn: Turn) -> Tensor:
        """[B, T, H] -> [B, kv heads, G, T, size]."""
        q = self.q_proj(x).unflatten(-1, (self.kv_heads, self.group, self.size)).permute(0, 2, 3, 1, 4)
        return rotated(q, *turn)

    def keys(self, x: Tensor, turn: Turn) -> Cache:
        """[B, T, H] -> keys and values [B, kv heads, T, size]."""
        k, v = (p(x).unflatten(-1, (self.kv_heads, self.size)).transpose(1, 2) for p in (self.k_proj, self.v_proj))
        return rotated(k, *turn), v

    def forward(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> Tensor:
        """Queries of T slots, keys and values of C -> [B, T, H]; keep broadcasts to [B, kv heads, G * T, C]."""
        mixed = F.scaled_dot_product_attention(q.flatten(2, 3), k, v, attn_mask=keep)
        heads = torch.unflatten(mixed, 2, (self.group, q.shape[3])).permute(0, 3, 1, 2, 4)
        out: Tensor = self.o_proj(heads.flatten(2))
        return out


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, c: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=c.mlp_bias)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=c.mlp_bias)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=c.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, H] -> [B, T, H]."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """One pre-norm block."""

    def __init__(self, c: LlamaConfig) -> None:
        super().__init__()
        self.self_attn = Attention(c)
        self.mlp = MLP(c)
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(
        self, x: Tensor, turn: Turn, keep: Tensor | None, before: Cache | None = None, rows: slice = EVERY
    ) -> tuple[Tensor, Cache]:
        """[B, T, H], after the slots whose keys and values are `before` -> the wanted `rows` of the result, and the
        keys and values of all slots. keep: what those rows attend to, [B, 1, G * rows, slots] or broadcast to that."""
        normed = self.input_layernorm(x)
        # normed apart where rows are left out: all layers' weights take up the norm's alike then, and are deployed once
        own = normed if rows == EVERY else self.input_layernorm(x[:, rows])
        q = self.self_attn.queries(own, (turn[0][rows], turn[1][rows]))
        k, v = grown(before, *self.self_attn.keys(normed, turn))
        x = x[:, rows] + self.self_attn(q, k, v, keep)
        return x + self.mlp(self.post_attention_layernorm(x)), (k, v)


class Llama(nn.Module):
    """LLaMA with its language-model head."""

    def __init__(self, c: LlamaConfig) -> None:
        super().__init__()
        self.config = c
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.lm_head = None if c.tie_word_embeddings else nn.Linear(c.hidden_size, c.vocab_size, bias=False)

    def head(self, x: Tensor) -> Tensor:
        """[..., H] -> logits [..., V]."""
        return F.linear(self.norm(x), (self.lm_head or self.embed_tokens).weight)

    def turns(self, length: int) -> Turn:
        """Cosines and sines of the first positions, each [T, size]."""
        c = self.config
        check_length(length, c.longest)
        return rotary_tables(c.size, length, c.rope_theta, c.rope_parameters)

    def forward(self, input_ids: Tensor) -> Tensor:
        """[B, T] ids -> logits [B, T, V]. What comes after a text does not change it: pad on the right."""
        length = input_ids.shape[1]
        x, turn = self.embed_tokens(input_ids), self.turns(length)
        keep = attending(length, group=self.config.group)
        for layer in self.layers:
            x, _ = layer(x, turn, keep)
        return self.head(x)


class Prefill(nn.Module):
    """The prompt of a generation."""

    def __init__(self, net: Llama) -> None:
        super().__init__()
        self.net = net

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor | State]:
        """[B, T] ids, padded on the left where the bool mask says so -> logits [B, V] of the last slot, the state."""
        net, length = self.net, input_ids.shape[1]
        x, turn, caches = net.embed_tokens(input_ids), net.turns(length), []
        for layer in net.layers:
            rows = LAST if layer is net.layers[-1] else EVERY
            keep = attending(length, attention_mask, rows, net.config.group)
            x, cache = layer(x, turn, keep, rows=rows)
            caches.append(cache)
        mask = {} if attention_mask is None else {"mask": attention_mask}
        return {"logits": net.head(x[:, -1]), "state": stored(caches) | mask}


class Step(nn.Module):
    """One more token of a generation."""

    def __init__(self, net: Llama) -> None:
        super().__init__()
        self.net = net

    def forward(self, token: Tensor, place: Tensor, state: State) -> dict[str, Tensor | State]:
        """[B, V] one-hot token, its slot [1] -> logits [B, V] of the next, and the state with this one."""
        net, kept = self.net, grown_mask(state)
        keep = kept["mask"][:, None, None, :] if kept else None
        cos, sin = (F.embedding(place, table) for table in net.turns(net.config.longest))
        x, caches = look_up(token, net.embed_tokens.weight), []
        for i, layer in enumerate(net.layers):
            x, cache = layer(x, (cos, sin), keep, past(state, i))
            caches.append(cache)
        return {"logits": net.head(x[:, -1]), "state": stored(caches) | kept}


def generator(net: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The two halves of a generation, over one network's weights."""
    assert isinstance(net, Llama)
    return Prefill(net).eval(), Step(net).eval()


def names(c: LlamaConfig) -> Names:
    """Older files hold the rotary frequencies, and some a tied head, which is the embeddings'."""
    tied = (r"lm_head\.weight",) if c.tie_word_embeddings else ()
    return Names("model.", unused=(r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq", *tied))


FAMILY = Family(
    kind="llama",
    names=names,
    network=Llama,
    initialise=lambda c: initialised(lambda: Llama(c)),
    read=lambda checkpoint: LlamaConfig.from_json(checkpoint.config),
    generator=generator,
)
TINY = LlamaConfig(64, 32, 64, 2, 4, 2, max_position_embeddings=64)

register(
    Member(
        FAMILY,
        "llama-7b",
        "LLaMA 7B",
        "arXiv 2302.13971",
        "text generation",
        {"tiny": (TINY, 8), "paper": (LlamaConfig(), 8)},
        5e-3,
    ).entry()
)
