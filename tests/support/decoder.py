"""A small network that generates, with everything that such networks have: rotary places, learned places, a mask."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = dict[str, Tensor]
CONTEXT = 16


class Decoder(nn.Module):
    """One block of attention over rotated keys, learned positions, a tied head."""

    def __init__(self, vocabulary: int = 23, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.embed = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(CONTEXT, width)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        angles = torch.arange(CONTEXT)[:, None] * 10.0 ** -torch.arange(self.size // 2)
        self.register_buffer("cos", torch.cat([angles.cos()] * 2, -1), persistent=False)
        self.register_buffer("sin", torch.cat([angles.sin()] * 2, -1), persistent=False)

    def turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotary places."""
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, T, W] -> queries, keys, values [B, heads, T, size]."""
        q, k, v = (
            t.unflatten(-1, (self.heads, self.size)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1)
        )
        return self.turned(q, cos, sin), self.turned(k, cos, sin), v

    def logits(self, x: Tensor) -> Tensor:
        """Tied head."""
        return F.linear(x, self.embed.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """[B, T] -> [B, T, V]."""
        length = ids.shape[1]
        x = self.embed(ids) + self.places.weight[:length]
        q, k, v = self.project(x, self.cos[:length], self.sin[:length])
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.logits(x + self.out(mixed.transpose(1, 2).flatten(2)))


class Prefill(nn.Module):
    """The prompt, padded on the left where the mask says so."""

    def __init__(self, net: Decoder) -> None:
        super().__init__()
        self.net = net

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor | State]:
        """[B, T] -> logits [B, V] and state."""
        net, length = self.net, ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        if mask is None:
            where = F.one_hot(torch.full((ids.shape[0],), length - 1), CONTEXT)
            x = net.embed(ids) + net.places.weight[:length]
            keep, extra = causal, {}
        else:
            first = mask.long() - F.pad(mask.long()[:, :-1], (1, 0))
            shifts = torch.arange(length)[:, None] - torch.arange(length)  # position p of slot j: first real slot j - p
            rows = first[:, shifts.clamp(min=0)] * (shifts >= 0)
            x = net.embed(ids) + rows.to(net.places.weight.dtype) @ net.places.weight[:length]
            where = F.pad(rows[:, -1], (0, CONTEXT - length))
            keep, extra = causal & mask[:, None, None, :], {"mask": mask}
        q, k, v = net.project(x, net.cos[:length], net.sin[:length])
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
        x = x + net.out(mixed.transpose(1, 2).flatten(2))
        return {"logits": net.logits(x[:, -1]), "state": {"k.0": k, "v.0": v, "where": where, **extra}}


class Next(nn.Module):
    """One token more."""

    def __init__(self, net: Decoder) -> None:
        super().__init__()
        self.net = net

    def forward(self, token: Tensor, place: Tensor, state: State) -> dict[str, Tensor | State]:
        """[B, V] -> logits [B, V] and state."""
        net = self.net
        where = F.pad(state["where"][:, :-1], (1, 0))
        x = (token.to(net.embed.weight.dtype) @ net.embed.weight)[:, None]
        x = x + (where.to(x.dtype) @ net.places.weight)[:, None]
        q, k, v = net.project(x, F.embedding(place, net.cos), F.embedding(place, net.sin))
        k, v = torch.cat([state["k.0"], k], 2), torch.cat([state["v.0"], v], 2)
        kept = {"k.0": k, "v.0": v, "where": where}
        keep = None
        if "mask" in state:
            kept["mask"] = torch.cat([state["mask"], torch.ones_like(state["mask"][:, :1])], 1)
            keep = kept["mask"][:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
        x = x + net.out(mixed.transpose(1, 2).flatten(2))
        return {"logits": net.logits(x[:, -1]), "state": kept}
