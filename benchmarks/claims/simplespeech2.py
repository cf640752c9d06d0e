"""SimpleSpeech 2: in few steps a flow comes nearer to the speech asked for than the diffusion of SimpleSpeech does.

Synthetic: text is a row of sounds, each a point of the latent that a speaker moves and that lasts two frames, in
levels of the codec. Both networks are the same transformer, trained alike: one on the velocity of the flow, one on the
noise of the first paper's diffusion (its public configuration), which is sampled by DDIM in as many steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from claims.claim import Call, Claim
from claims.training import fit, seeded
from hush.models.simplespeech2 import TINY, FlowSampler, SimpleSpeech2Config

SOUNDS = 12
CONFIG = replace(TINY, context_dim=SOUNDS, text=4, frames=8, steps=4, guidance=1.0)
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
KEPT = (1 - BETAS).cumprod(0).float()  # of the signal's energy, after each of the diffusion's 1,000 times


def speech(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents [count, 8, 8], sounds one-hot [count, 4, 12], speakers [count, 16]."""
    table = torch.Generator().manual_seed(0)
    sounds = torch.randn(SOUNDS, CONFIG.codec.latent_dim, generator=table)
    moved = torch.randn(CONFIG.speaker_dim, CONFIG.codec.latent_dim, generator=table) / CONFIG.speaker_dim**0.5
    numbers = torch.Generator().manual_seed(seed)
    text = torch.eye(SOUNDS)[torch.randint(SOUNDS, (count, CONFIG.text), generator=numbers)]
    speaker = torch.randn(count, CONFIG.speaker_dim, generator=numbers)
    frames = (text @ sounds + (speaker @ moved)[:, None]).repeat_interleave(CONFIG.frames // CONFIG.text, 1)
    levels = CONFIG.codec.levels
    return torch.round(levels * torch.tanh(frames)) / levels, text, speaker


def times_of(expert: int, count: int) -> Tensor:
    """Random times of an expert's bucket."""
    return (expert + torch.rand(count)) / CONFIG.experts


def flow(network: nn.Module, latent: Tensor, text: Tensor, speaker: Tensor) -> Tensor:
    """Squared error of the velocity, in all buckets of time."""
    assert isinstance(network, FlowSampler)
    tokens, total = network.denoiser.conditions(text, speaker), torch.zeros(())
    for expert in range(CONFIG.experts):
        noise, time = torch.randn_like(latent), times_of(expert, len(latent))
        t = time[:, None, None]
        said = network.denoiser(t * latent + (1 - t) * noise, time, expert, tokens)
        total = total + (said - (latent - noise)).square().mean()
    return total


class Diffusion(FlowSampler):
    """The same network says the noise; DDIM without further noise. Time runs from 1 to 0."""

    def forward(self, noise: Tensor, text: Tensor, speaker: Tensor) -> Tensor:
        """[B, T, latent], [B, L, context], [B, speaker] -> [B, T, latent]."""
        tokens, x, steps = self.denoiser.conditions(text, speaker), noise, self.config.steps
        places = torch.linspace(999, 0, steps + 1).round().long()
        for k in range(steps):
            kept, less = KEPT[places[k]], KEPT[places[k + 1]] if k < steps - 1 else torch.ones(())
            said = self.denoiser(x, places[k : k + 1] / 1000, self.config.experts - 1 - self.expert(k), tokens)
            latent = ((x - (1 - kept).sqrt() * said) / kept.sqrt()).clamp(-1, 1)
            x = less.sqrt() * latent + (1 - less).sqrt() * said
        return x


def diffusion(network: nn.Module, latent: Tensor, text: Tensor, speaker: Tensor) -> Tensor:
    """Squared error of the noise, in all buckets of time."""
    assert isinstance(network, FlowSampler)
    tokens, total = network.denoiser.conditions(text, speaker), torch.zeros(())
    for expert in range(CONFIG.experts):
        noise, time = torch.randn_like(latent), times_of(expert, len(latent))
        kept = KEPT[(1000 * time).long()][:, None, None]
        said = network.denoiser(kept.sqrt() * latent + (1 - kept).sqrt() * noise, time, expert, tokens)
        total = total + (said - noise).square().mean()
    return total


def claim() -> Claim:
    """Error of the latent that text and speaker determine, against the diffusion's."""
    train, (wanted, text, speaker) = speech(4000, 1), speech(64, 2)
    numbers = torch.Generator().manual_seed(3)

    def call(text: Tensor, speaker: Tensor) -> Call:
        shape = len(text), CONFIG.frames, CONFIG.codec.latent_dim
        return torch.randn(shape, generator=numbers), text, speaker

    def trained(network: type[FlowSampler], loss: object, c: SimpleSpeech2Config = CONFIG) -> nn.Module:
        return fit(seeded(lambda: network(c)), train, loss, steps=300, rate=3e-3)  # type: ignore[arg-type]

    def score(outputs: Sequence[Tensor]) -> float:
        return (torch.cat(list(outputs)) - wanted).square().mean().item()

    held = call(text, speaker)
    by_flow, by_diffusion = trained(FlowSampler, flow), trained(Diffusion, diffusion)
    with torch.inference_mode():
        rival = score([by_diffusion(*held)])
    return Claim(
        network="simplespeech2",
        says="in 4 steps the flow's error is no more than half of the diffusion's (MSE of the latent)",
        module=by_flow,
        calls=[held],
        score=score,
        rival=rival,
        ranges=[call(train[1][i : i + 64], train[2][i : i + 64]) for i in (0, 64)],
        factor=0.5,
    )
