"""GPT-2: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.

Names follow the HF state dict of the bare model (`wte`, `h.{i}.attn.c_attn`, ...), whose linear layers hold their
weight as [in, out]. Pre-norm blocks, tanh GELU, learned absolute positions, a head tied to the embeddings.

Secret: token ids, the mask of a padded prompt, every activation. Public: sequence length, slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.checkpoint import Names
from hush.models.config import check_length, read_config, require
from hush.models.decoding import EVERY, LAST, Cache, State, attending, grown, grown_mask, look_up, past, stored
from hush.models.initial import DEVIATION, initialised
from hush.models.language import Family, Member
from hush.models.registry import register


@dataclass(frozen=True, slots=True)
class GPT2Config:
    """Sizes of a GPT-2; the fields are those of an HF `config.json`."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    layer_norm_epsilon: float = 1e-5
    activation_function: str = "gelu_new"
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    add_cross_attention: bool = False
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        require(self.n_embd % self.n_head == 0, f"n_embd {self.n_embd} is no multiple of n_head {self.n_head}")
        known = ("gelu_new", "gelu_pytorch_tanh", "gelu")
        require(self.activation_function in known, f"activation_function is none of {', '.join(known)}")
        require(self.scale_attn_weights, "scale_attn_weights is off, and this network divides scores by sqrt(size)")
        require(not self.scale_attn_by_inverse_layer_idx, "scale_attn_by_inverse_layer_idx is not in this network")
        require(not self.add_cross_attention, "add_cross_attention is not in this network")
        require(self.tie_word_embeddings, "the head is not tied to the embeddings, and this network ties it")

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> GPT2Config:
        """The fields that a `config.json` gives; the rest of it is ignored."""
        return read_config(cls, config)

    @property
    def longest(self) -> int:
        """The context."""
        return self.n_positions


class Conv1D(nn.Module):
    """A linear layer whose weight is [in, out], as in the published checkpoints."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return F.linear(x, self.weight.t(), self.bias)


class Attention(nn.Module):
    """Multi-head attention of each slot to those before it."""

    def __init__(self, c: GPT2Config) -> None:
        super().__init__()
        self.split = (c.n_head, c.n_embd // c.n_head)
        self.c_attn = Conv1D(c.n_embd, 3 * c.n_embd)
        self.c_proj = Conv1D(c.n_embd, c.n_embd)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, T, H] -> queries, keys, values [B, heads, T, size]."""
        q, k, v = (part.unflatten(-1, self.split).transpose(1, 2) for part in self.c_attn(x).chunk(3, -1))
        return q, k, v

    def forward(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> Tensor:
        """Queries of T slots, keys and values of C -> [B, T, H]; keep broadcasts to [B, heads, T, C]."""
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=keep).transpose(1, 2).flatten(2)
        out: Tensor = self.c_proj(mixed)
        return out


class MLP(nn.Module):
    """The feed-forward half of a block."""

    def __init__(self, c: GPT2Config) -> None:
        super().__init__()
        inner = c.n_inner or 4 * c.n_embd
        self.c_fc = Conv1D(c.n_embd, inner)
        self.c_proj = Conv1D(inner, c.n_embd)
        self.form = "none" if c.activation_function == "gelu" else "tanh"

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, H] -> [B, T, H]."""
        out: Tensor = self.c_proj(F.gelu(self.c_fc(x), approximate=self.form))
        return out


class Block(nn.Module):
    """One pre-norm block."""

    def __init__(self, c: GPT2Config) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(c.n_embd, eps=c.layer_norm_epsilon)
        self.attn = Attention(c)
        self.ln_2 = nn.LayerNorm(c.n_embd, eps=c.layer_norm_epsilon)
        self.mlp = MLP(c)

    def forward(
        self, x: Tensor, keep: Tensor | None, before: Cache | None = None, rows: slice = EVERY
    ) -> tuple[Tensor, Cache]:
        """[B, T, H], after the slots whose keys and values are `before` -> the wanted `rows` of the result, and the
        keys and values of all slots. keep: what those rows attend to, [B, 1, rows, slots] or broadcast to that."""
        q, k, v = self.attn.project(self.ln_1(x))
        k, v = grown(before, k, v)
        x = x[:, rows] + self.attn(q[:, :, rows], k, v, keep)
        return x + self.mlp(self.ln_2(x)), (k, v)


class GPT2(nn.Module):
    """GPT-2 with its language-model head."""

    def __init__(self, c: GPT2Config) -> None:
        super().__init__()
        self.config = c
        self.wte = nn.Embedding(c.vocab_size, c.n_embd)
        self.wpe = nn.Embedding(c.n_positions, c.n_embd)
        self.h = nn.ModuleList(Block(c) for _ in range(c.n_layer))
        self.ln_f = nn.LayerNorm(c.n_embd, eps=c.layer_norm_epsilon)

    def head(self, x: Tensor) -> Tensor:
        """[..., H] -> logits [..., V]."""
        return F.linear(self.ln_f(x), self.wte.weight)

    def places(self, length: int) -> Tensor:
        """Rows of the first positions [T, H]."""
        check_length(length, self.config.n_positions)
        return self.wpe.weight[:length]

    def forward(self, input_ids: Tensor) -> Tensor:
        """[B, T] ids -> logits [B, T, V]. What comes after a text does not change it: pad on the right."""
        length = input_ids.shape[1]
        x, keep = self.wte(input_ids) + self.places(length), attending(length)
        for block in self.h:
            x, _ = block(x, keep)
        return self.head(x)


class Prefill(nn.Module):
    """The prompt of a generation."""

    def __init__(self, net: GPT2) -> None:
        super().__init__()
        self.net = net

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor | State]:
        """[B, T] ids, padded on the left where the bool mask says so -> logits [B, V] of the last slot, the state."""
        net, length = self.net, input_ids.shape[1]
        places, state = self._places(length, attention_mask)
        x, caches = net.wte(input_ids) + places, []
        for block in net.h:
            rows = LAST if block is net.h[-1] else EVERY
            x, cache = block(x, attending(length, attention_mask, rows), rows=rows)
            caches.append(cache)
        return {"logits": net.head(x[:, -1]), "state": stored(caches) | state}

    def _places(self, length: int, mask: Tensor | None) -> tuple[Tensor, State]:
        """Rows of the slots' positions; of a padded prompt also what the next token's comes from.

        The mask's step is the one-hot row of the first token's slot s, and slot j has position p where s = j - p: each
        slot's one-hot row of its position is that row backwards, shifted.
        """
        table = self.net.places(length)
        if mask is None:
            return table, {}
        first = mask.long() - F.pad(mask.long()[:, :-1], (1, 0))
        back = torch.arange(length)[:, None] - torch.arange(length)
        hot = first[:, back.clamp(min=0)] * (back >= 0)
        where = F.pad(hot[:, -1], (0, self.net.config.n_positions - length))
        return hot.to(table.dtype) @ table, {"mask": mask, "where": where}


class Step(nn.Module):
    """One more token of a generation."""

    def __init__(self, net: GPT2) -> None:
        super().__init__()
        self.net = net

    def forward(self, token: Tensor, place: Tensor, state: State) -> dict[str, Tensor | State]:
        """[B, V] one-hot token, its slot [1] -> logits [B, V] of the next, and the state with this one."""
        net, kept = self.net, grown_mask(state)
        keep = kept["mask"][:, None, None, :] if kept else None
        if "where" in state:
            kept["where"] = F.pad(state["where"][:, :-1], (1, 0))
            x = look_up(token, net.wte.weight) + look_up(kept["where"], net.wpe.weight)
        else:
            x = look_up(token, net.wte.weight) + F.embedding(place, net.wpe.weight)
        caches = []
        for i, block in enumerate(net.h):
            x, cache = block(x, keep, past(state, i))
            caches.append(cache)
        return {"logits": net.head(x[:, -1]), "state": stored(caches) | kept}


def generator(net: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The two halves of a generation, over one network's weights."""
    assert isinstance(net, GPT2)
    return Prefill(net).eval(), Step(net).eval()


def initialise(c: GPT2Config) -> nn.Module:
    """GPT-2's own initialisation: what is added to the residual is scaled by the root of how often that happens."""
    scaled = DEVIATION / (2 * c.n_layer) ** 0.5
    return initialised(lambda: GPT2(c), lambda name: scaled if name.endswith("c_proj.weight") else DEVIATION)


FAMILY = Family(
    kind="gpt2",
    # causal masks that older files hold as buffers, and the head, which is tied
    names=lambda c: Names("transformer.", unused=(r"h\.\d+\.attn\.(bias|masked_bias)", r"lm_head\.weight")),
    network=GPT2,
    initialise=initialise,
    read=lambda checkpoint: GPT2Config.from_json(checkpoint.config),
    generator=generator,
)
PAPER = "Radford et al. 2019"
TINY = GPT2Config(64, 64, 32, 2, 2)
SIZES = {
    "base": GPT2Config(),
    "medium": GPT2Config(n_embd=1024, n_layer=24, n_head=16),
    "large": GPT2Config(n_embd=1280, n_layer=36, n_head=20),
}

for name, config in SIZES.items():
    sizes = {"tiny": (TINY, 8), "paper": (config, 32)}
    register(Member(FAMILY, f"gpt2-{name}", f"GPT-2 {name}", PAPER, "text generation", sizes, 1e-2).entry())
