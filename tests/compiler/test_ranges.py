"""Ranges that examples do not show: what secret bits and integers may become is declared, not calibrated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.programs import compiled, largest_error, run_fixed, run_shares
from torch import Tensor, nn
from torch.nn import functional as F


class Pooled(nn.Module):
    """Attention with a secret mask of keys, then the mean of the kept places: a small sentence encoder."""

    def __init__(self, form: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.form = form
        self.embedding = nn.Embedding(20, 8)
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.embedding(ids)
        q, k, v = self.q(x), self.k(x), self.v(x)
        if self.form == "sdpa":
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, :])
        else:
            low = (1.0 - mask[:, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
            scores = q @ k.transpose(1, 2) / 8**0.5 + low
            mixed = scores.softmax(-1) @ v
        real = mask.to(x.dtype).unsqueeze(-1)
        return (mixed * real).sum(1) / real.sum(1)


class Shifted(nn.Module):
    """A secret count, added to a score of small range and compared."""

    def forward(self, x: Tensor, bits: Tensor) -> Tensor:
        return F.relu(x - bits.to(x.dtype).sum(-1, keepdim=True))


def _ids(seed: int) -> Tensor:
    return torch.randint(0, 20, (1, 9), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("form", ["sdpa", "eager"])
@pytest.mark.parametrize("kept", [1, 2, 5])
def test_an_example_without_padding_serves_padded_inputs(form: str, kept: int) -> None:
    module = Pooled(form)
    program = compiled(module, (_ids(0), torch.ones(1, 9, dtype=torch.bool)))
    call: tuple[Any, ...] = (_ids(1), torch.arange(9)[None] < kept)
    with torch.no_grad():
        plain = module(*call)
    assert largest_error(run_fixed(program, call), plain) < 2e-3
    secure, cost = run_shares(program, call)
    assert largest_error(secure, plain) < 2e-3
    assert cost == program.cost


def test_an_example_of_zero_bits_serves_any_bits() -> None:
    module, x = Shifted(), torch.linspace(-0.5, 0.5, 12).reshape(3, 4)
    program = compiled(module, (x, torch.zeros(3, 64, dtype=torch.bool)))
    for bits in (torch.ones(3, 64, dtype=torch.bool), torch.arange(64).expand(3, 64) % 3 == 0):
        secure, _ = run_shares(program, (x, bits))
        assert largest_error(secure, module(x, bits)) < 1e-4
