"""SimpleSpeech 2 and its codec: what their parts are defined to do, and their sizes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from hush.models.initial import seeded
from hush.models.registry import get
from hush.models.simplespeech2 import (
    PAPER,
    TINY,
    CausalConv,
    Denoiser,
    Encoder,
    FlowSampler,
    Rounding,
    SimpleSpeech2,
    SQCodec,
    codec_example,
    speech_example,
)


def sampler(**changes: object) -> FlowSampler:
    """Of one initialisation, whatever the solver."""
    module = seeded(lambda: FlowSampler(replace(TINY, **changes)))  # type: ignore[arg-type]
    assert isinstance(module, FlowSampler)
    return module


def half_of_codec(channels: int, factors: tuple[int, ...], latent: int) -> tuple[int, int]:
    """Parameters of encoder and decoder, by hand: a convolution of width k from a to b has a b k + b."""
    encoder = (channels * 7 + channels) + (channels**2 * 7 + channels) + 1 + 1  # two PReLUs, one for all blocks
    decoder = (channels**2 * 7 + channels) + 1 + (channels * 7 + 1)
    width = channels
    for stride in factors:
        units = 5 * (width**2 * 7 + width + width**2 + width + 2)
        encoder += units + (2 * width**2 * 2 * stride + 2 * width)
        decoder += units + (2 * width**2 * 2 * stride + width)
        width *= 2
    return encoder + (width * latent * 7 + latent), decoder + (latent * width * 5 + width)


def transformer(d: int, depth: int, inner: int, experts: int, head: int) -> int:
    """Parameters of the denoiser, by hand; latent 32, text 1536, speaker 1024, 256 frequencies."""
    block = 2 * d + 4 * d * d + 2 * head + experts * 3 * d * inner
    embedders = (256 * d + d) + (d * d + d) + sum(size * d + d + d * d + d + 2 * d for size in (1536, 1024))
    return depth * block + embedders + (32 * d * 5 + d) + d + (d * 32 + 32)


def test_parameters_at_paper_size() -> None:
    """Computed from the config; no number is published for it."""
    encoder, decoder = half_of_codec(48, (2, 4, 4, 5), 32)
    assert get("sq-codec").sizes["paper"].parameters() == encoder + decoder == 23_422_292
    flow = transformer(768, 12, 2048, 4, 96) + 1536 + 1024
    assert get("simplespeech2").sizes["paper"].parameters() == flow + decoder == 270_602_682


def test_hop_of_the_paper() -> None:
    """10 s at 16 kHz in 500 frames."""
    assert PAPER.codec.hop == 320
    assert PAPER.frames * PAPER.codec.hop == 160_000


@pytest.mark.parametrize("levels", [1, 3, 9])
def test_rounding(levels: int) -> None:
    module, x = Rounding(levels), torch.linspace(-1, 1, 1001)
    module.eval()
    torch.testing.assert_close(module(x), torch.round(levels * x) / levels)
    assert (module(x) - x).abs().max() <= 0.5 / levels + 1e-6
    assert len(module(x).unique()) == 2 * levels + 1
    assert module(torch.tensor([-3.0, 3.0])).tolist() == [-1.0, 1.0]


def test_rounding_is_straight_through_in_training() -> None:
    x = torch.linspace(-1, 1, 7, requires_grad=True)
    module = Rounding(9).train()
    module(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones(7))
    torch.testing.assert_close(module(x), module.eval()(x))


def test_more_levels_leave_less_of_an_error() -> None:
    """Of what the decoder gives, against the latent as it is."""
    codec = seeded(lambda: SQCodec(TINY.codec))
    assert isinstance(codec, SQCodec)
    latent = codec.encoder(codec_example("tiny", TINY.frames, 4, 0)[0])
    latent = latent / latent.abs().max()  # an untrained encoder uses few levels
    wanted = codec.decoder(latent)
    errors = [(codec.decoder(Rounding(s).eval()(latent)) - wanted).square().mean() for s in (1, 3, 5, 9)]
    assert errors == sorted(errors, reverse=True)


def test_the_encoder_sees_no_later_sample() -> None:
    encoder, wave = seeded(lambda: Encoder(TINY.codec)), codec_example("tiny", TINY.frames, 1, 0)[0]
    cut, hop = wave.clone(), TINY.codec.hop
    cut[..., 8 * hop :] = 0
    seen, early = encoder(wave), encoder(cut)
    assert torch.equal(seen[..., :8], early[..., :8])
    assert not torch.equal(seen[..., 8:], early[..., 8:])


def test_one_prelu_for_all_downsampling_layers() -> None:
    layers = list(Encoder(TINY.codec).layers)
    after = [b for a, b in pairwise(layers) if isinstance(a, CausalConv) and a.conv.stride != (1,)]
    assert len(after) == len(TINY.codec.downsample_factors)
    assert len(set(map(id, after))) == 1


@pytest.mark.parametrize(("steps", "experts"), [(25, 4), (4, 2), (8, 8)])
def test_experts_by_time(steps: int, experts: int) -> None:
    """One expert for a bucket of times, in order, all used."""
    chosen = [sampler(steps=steps, experts=experts).expert(k) for k in range(steps)]
    assert chosen == [int(experts * k / steps + 1e-9) for k in range(steps)]
    assert set(chosen) == set(range(experts))


def test_only_the_expert_of_the_time_computes() -> None:
    module = sampler(steps=2, guidance=1.0)
    call = speech_example("tiny", TINY.frames, 1, 0)
    before = module(*call)
    module.config = replace(module.config, steps=1)  # the second expert is out of reach now
    first = module(*call)
    for block in module.denoiser.blocks:
        block.experts[1].w2.weight.zero_()  # type: ignore[union-attr, operator, index]
    assert torch.equal(module(*call), first)
    module.config = replace(module.config, steps=2)
    assert not torch.equal(module(*call), before)


class Decay(nn.Module):
    """dx/dt = -(1 + t) x, whose solution is known, in place of the network."""

    def conditions(self, text: Tensor, speaker: Tensor) -> Tensor:
        return text

    def forward(self, latent: Tensor, time: Tensor, expert: int, tokens: Tensor) -> Tensor:
        return -(1 + time) * latent


def test_euler_is_of_first_order() -> None:
    errors = []
    for steps in (16, 32):
        module = sampler(steps=steps, guidance=1.0)
        module.denoiser = Decay()  # type: ignore[assignment]
        x = torch.ones(1, 1, 1, dtype=torch.float64)
        errors.append((module.double()(x, x, x) - torch.exp(torch.tensor(-1.5))).abs().item())
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)


def test_guidance_is_the_difference_that_the_conditions_make() -> None:
    noise, text, speaker = speech_example("tiny", TINY.frames, 1, 0)
    told = sampler(steps=1, guidance=1.0)(noise, text, speaker)
    untold = sampler(steps=1, guidance=1.0)(noise, torch.zeros_like(text), torch.zeros_like(speaker))
    guided = sampler(steps=1, guidance=3.0)(noise, text, speaker)
    torch.testing.assert_close(guided, untold + 3 * (told - untold), atol=1e-5, rtol=1e-4)


def test_the_order_of_sounds_matters() -> None:
    noise, text, speaker = speech_example("tiny", TINY.frames, 1, 0)
    module = sampler()
    assert not torch.allclose(module(noise, text, speaker), module(noise, text.flip(1), speaker), atol=1e-4)


def test_a_latent_is_rounded_before_it_is_decoded() -> None:
    call = speech_example("tiny", TINY.frames, 1, 0)
    rounded, kept = (seeded(lambda c=c: SimpleSpeech2(replace(TINY, requantise=c))) for c in (True, False))  # type: ignore[misc]
    assert rounded(*call).shape == (1, 1, TINY.frames * TINY.codec.hop)
    assert not torch.allclose(rounded(*call), kept(*call), atol=1e-5)


def test_a_batch_is_its_rows() -> None:
    call, module = speech_example("tiny", TINY.frames, 2, 0), sampler()
    alone = torch.cat([module(*(part[i : i + 1] for part in call)) for i in range(2)])
    torch.testing.assert_close(module(*call), alone, atol=1e-5, rtol=1e-4)


def test_the_velocity_is_of_the_latents_frames() -> None:
    module = seeded(lambda: Denoiser(TINY))
    assert isinstance(module, Denoiser)
    noise, text, speaker = speech_example("tiny", TINY.frames, 2, 0)
    assert module(noise, torch.tensor([0.1, 0.3]), 0, module.conditions(text, speaker)).shape == noise.shape
