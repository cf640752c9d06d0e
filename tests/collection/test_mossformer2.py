"""MossFormer2 against its definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.initial import seeded
from hush.models.mossformer2 import (
    CONFIGS,
    FLASH,
    PAPER,
    TINY,
    DilatedMemory,
    MossFormer2,
    MossFormer2Config,
    Rotary,
    example,
    prelu,
    silu,
)
from hush.models.registry import get


def network(c: MossFormer2Config = TINY) -> MossFormer2:
    made = seeded(lambda: MossFormer2(c))
    assert isinstance(made, MossFormer2)
    return made


def layer(c: MossFormer2Config = TINY) -> FLASH:
    """Gated attention whose queries and keys are of the size that training gives them."""
    made = seeded(lambda: FLASH(c))
    assert isinstance(made, FLASH)
    numbers = torch.Generator().manual_seed(1)
    with torch.no_grad():
        made.qk_offset_scale.gamma.normal_(0.0, 0.7, generator=numbers)
        made.qk_offset_scale.beta.normal_(0.0, 0.3, generator=numbers)
    return made


def published(flash: FLASH, x: Tensor) -> Tensor:
    """Gated attention as it is published: query and key as they are, both kinds of attention for each frame."""
    half, group, frames = x.shape[-1] // 2, flash.group, x.shape[1]
    now = torch.cat([F.pad(x[..., :half], (0, 0, 1, 0))[:, :frames], x[..., half:]], -1)
    v, u = flash.to_hidden(now).chunk(2, -1)
    offset, base = flash.qk_offset_scale, flash.to_qk(now)
    quad_q, lin_q, quad_k, lin_k = (
        flash.rotary_pos_emb(base * gamma + beta) for gamma, beta in zip(offset.gamma, offset.beta, strict=True)
    )
    place = torch.arange(frames) // group
    near = (place[:, None] == place).float()
    weights = F.relu(quad_q @ quad_k.transpose(1, 2) / group) ** 2 * near + lin_q @ lin_k.transpose(1, 2) / frames
    gated = (weights @ u) * v * torch.sigmoid((weights @ v) * u)
    out: Tensor = x + flash.to_out(gated)
    return out


@pytest.mark.parametrize("samples", [512, 520])  # 63 frames, the last group of 16 not full, and 64
def test_gated_attention_is_the_published_one(samples: int) -> None:
    flash = layer(replace(TINY, samples=samples))
    x = torch.randn(2, flash.rotary_pos_emb.cos.shape[0], 32, generator=torch.Generator().manual_seed(0))
    assert (flash(x) - published(flash, x)).abs().max() < 2e-4


def test_rotary_products_depend_on_the_distance_alone() -> None:
    turn = Rotary(8, 20)
    q, k = torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
    products = turn(q.expand(1, 20, -1))[0] @ turn(k.expand(1, 20, -1))[0].T
    for distance in (0, 3, -7):
        found = products.diagonal(distance)
        assert (found - found[0]).abs().max() < 1e-4
    assert torch.equal(turn(q.expand(1, 20, -1))[..., 8:], q[8:].expand(1, 20, -1))


def test_dense_convolutions_join_neighbours_in_the_list() -> None:
    """The second convolution's channel c reads channels 2c and 2c + 1 of [new, old], as the code has it."""
    memory = seeded(lambda: DilatedMemory(TINY))
    assert isinstance(memory, DilatedMemory)
    seen = torch.zeros(1, 64, 100)
    seen[0, 10, 50] = 1.0
    answered = memory.conv[1](seen)[0].abs() > 0
    assert answered.any(1).nonzero().flatten().tolist() == [5]
    assert answered[5].nonzero().flatten().tolist() == list(range(12, 89, 2))  # 39 frames, two apart


def test_a_louder_mixture_has_louder_voices() -> None:
    net, (x,) = network(), example("tiny", TINY.samples, 1, 3)
    assert (net(2 * x) - 2 * net(x)).abs().max() < 1e-4


def test_shapes_and_batches() -> None:
    net, (x,) = network(), example("tiny", TINY.samples, 2, 3)
    both = net(x)
    assert both.shape == (2, 2, TINY.samples)
    assert (both - torch.cat([net(row[None]) for row in x])).abs().max() < 1e-5


def test_what_no_window_covers_is_silent() -> None:
    net = network(replace(TINY, samples=517))
    assert torch.equal(net(torch.randn(1, 517))[..., 512:], torch.zeros(1, 2, 5))


def test_masks_are_not_negative_and_mapping_is_the_masks_themselves() -> None:
    net, (x,) = network(), example("tiny", TINY.samples, 1, 0)
    masks = net.mask_net(F.relu(net.encoder(x.unsqueeze(1))))
    assert masks.shape == (1, 2, TINY.frames, TINY.encoder_embedding_dim)
    assert masks.min() >= 0
    assert masks.max() > 0
    mapped = network(replace(TINY, mapping=True))(x)
    assert (mapped[0] - net.decoder(masks[0].transpose(1, 2))[:, 0]).abs().max() < 1e-6
    assert not torch.allclose(mapped, net(x))


def test_the_recurrent_module_can_be_left_out() -> None:
    net, (x,) = network(replace(TINY, recurrent=False)), example("tiny", TINY.samples, 1, 0)
    assert not net.mask_net.fsmn
    assert not torch.allclose(net(x), network()(x))


def test_activations() -> None:
    x = torch.linspace(-9, 9, 101)
    assert torch.allclose(silu(x), F.silu(x), atol=1e-6)
    assert torch.allclose(prelu(x, torch.tensor(0.25)), nn.PReLU()(x))


def counted(c: MossFormer2Config) -> int:
    """Parameters by hand."""
    bank, d, e, q, k = (
        c.encoder_embedding_dim,
        c.mossformer_sequence_dim,
        c.inner_channels,
        c.query_key_dim,
        c.conv_kernel,
    )

    def feed(width: int, out: int, norm: int) -> int:
        return norm + width * out + out + out * k

    hidden = d * c.expansion_factor
    flash = feed(d, hidden, 1) + feed(d, q, 1) + 8 * q + feed(hidden // 2, d, 1)
    memory = 2 * e * e + e + sum(e * (i + 1) * (2 * c.lorder - 1) + 3 * e for i in range(c.fsmn_depth))
    recurrent = 2 * d * e + e + d + 1 + 4 * e + 2 * feed(e, e, 2 * e) + memory
    ends = 2 * bank + 2 * bank * d + 1 + 4 * d + 1 + d * d * c.num_spks + d * c.num_spks + 2 * (d * d + d)
    return 2 * bank * c.encoder_kernel_size + ends + c.num_mossformer_layer * (flash + recurrent)


@pytest.mark.parametrize("size", ["tiny", "paper"])
def test_parameters(size: str) -> None:
    assert get("mossformer2").sizes[size].parameters() == counted(CONFIGS[size])


def test_parameters_at_paper_size() -> None:
    """What the official code has, but for the 16 frequencies of its rotary positions, which nothing trains."""
    assert counted(PAPER) == 55_735_394
