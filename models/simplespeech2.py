"""SimpleSpeech 2: Yang et al., "SimpleSpeech 2: Towards Simple and Efficient Text-to-Speech with Flow-based Scalar
Latent Transformer Diffusion Models", 2024, arXiv 2408.13893; its codec is that of SimpleSpeech, arXiv 2406.02328.

SQ-Codec takes speech to a latent of few values a frame, each bounded by tanh and rounded to one of 2 S + 1 levels.
Speech is made in that latent by a flow: z_t = t x + (1 - t) noise, and a transformer, which sees time, speaker, text
and latent as one sequence, says v = x - noise. `SimpleSpeech2` takes Euler steps from noise (t = 0) to x (t = 1),
rounds and decodes, all of it one program, between whose steps nothing is opened.

Checked against the code of the first paper (yangdongchao/SimpleSpeech): all of the codec (causal convolutions, units
of dilation 1 to 9, one PReLU for all downsampling layers, which is their default argument; S = 9; a latent is rounded
again before it is decoded; 32 values every 320 samples), and of the network in front of its blocks the embedders of
time, text and speaker, the convolution over the latent and the order of the sequence. Of the second paper's network no
code is public: RMS norms before each part, rotary positions, norms of queries and keys, SwiGLU, experts by time and
guidance are its description as we read it; the numbers of layers and heads, the codec's channels and its factors are
our choice. Weight normalisation is folded into the convolutions.

Secret: noise, text and speaker features (of frozen encoders that a client can run), latent and speech. Public: lengths
(so the duration), times, hence which expert computes at each step, the number of levels. An embedding of time is
computed in plaintext by the owner of the weights. Rounding compares each value with each boundary between levels;
beyond the outermost levels, where no codec's latent lies, it gives these. A value so near to a boundary that fixed
point takes it to the other side is one level away, so errors come in steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.initial import seeded
from hush.models.registry import Call, Entry, Size, register
from hush.models.rotary import Turn, rotary_tables, rotated
from hush.models.sketch import Curve, Curves


@dataclass(frozen=True, slots=True)
class CodecConfig:
    """SQ-Codec at 16 kHz. `levels`: S, on either side of 0."""

    init_channel: int = 48
    num_samples: int = 2  # averaged before the first block, repeated after the last
    downsample_factors: tuple[int, ...] = (2, 4, 4, 5)
    dilations: tuple[int, ...] = (1, 3, 5, 7, 9)
    latent_dim: int = 32
    levels: int = 9
    default_kernel_size: int = 7
    delay_kernel_size: int = 5
    res_kernel_size: int = 7

    @property
    def hop(self) -> int:
        """Samples a frame of the latent."""
        return self.num_samples * math.prod(self.downsample_factors)

    @property
    def channels(self) -> list[int]:
        """Of each block's shorter side and, last, of the innermost."""
        return [self.init_channel * 2**i for i in range(len(self.downsample_factors) + 1)]


@dataclass(frozen=True, slots=True)
class SimpleSpeech2Config:
    """Sizes; features of text as ByT5 gives them, of the speaker as XLSR-53 does."""

    codec: CodecConfig = field(default_factory=CodecConfig)
    hidden_size: int = 768
    num_heads: int = 8
    depth: int = 12
    ffn_dim: int = 2048
    experts: int = 4
    context_dim: int = 1536
    speaker_dim: int = 1024
    kernel_size: int = 5
    frequencies: int = 256
    steps: int = 25
    guidance: float = 3.0  # 1: none, at half the work
    requantise: bool = True  # round before decoding
    frames: int = 500
    text: int = 154


class Rounding(nn.Module):
    """round(S x) / S for |x| <= 1, counted from the boundaries below x; straight through in training."""

    boundaries: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        boundaries = (torch.arange(2 * levels) + 0.5) / levels - 1
        self.register_buffer("boundaries", boundaries, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[...], and so again."""
        if self.training:
            return x + (torch.round(self.levels * x) / self.levels - x).detach()
        below = (x.unsqueeze(-1) > self.boundaries).to(x.dtype)
        levels: Tensor = below.sum(-1) / self.levels - 1
        return levels


class CausalConv(nn.Module):
    """A convolution that sees no later sample."""

    def __init__(self, dim: int, out: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.reach = dilation * (kernel - 1)
        self.conv = nn.Conv1d(dim, out, kernel, stride, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] -> [B, C', T / stride]."""
        out: Tensor = self.conv(F.pad(x, (self.reach, 0)))
        return out


class ResidualUnit(nn.Module):
    """A dilated convolution and one of width 1, a PReLU after each."""

    def __init__(self, dim: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = CausalConv(dim, dim, kernel, 1, dilation), CausalConv(dim, dim, 1)
        self.activation1, self.activation2 = nn.PReLU(), nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] -> [B, C, T]."""
        out: Tensor = x + self.activation2(self.conv2(self.activation1(self.conv1(x))))
        return out


def _units(dim: int, c: CodecConfig) -> list[nn.Module]:
    return [ResidualUnit(dim, c.res_kernel_size, dilation) for dilation in c.dilations]


class Upsample(nn.Module):
    """A transposed convolution without its last samples, which would look ahead."""

    def __init__(self, dim: int, out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.layer = stride, nn.ConvTranspose1d(dim, out, 2 * stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] -> [B, C', stride T]."""
        out: Tensor = self.layer(x)
        return out[..., : -self.stride]


class Encoder(nn.Module):
    """Speech to a latent in -1..1, not rounded yet."""

    def __init__(self, c: CodecConfig) -> None:
        super().__init__()
        kernel, shared = c.default_kernel_size, nn.PReLU()
        layers: list[nn.Module] = [CausalConv(1, c.init_channel, kernel)]
        layers += [CausalConv(c.init_channel, c.init_channel, kernel), nn.PReLU(), nn.AvgPool1d(c.num_samples)]
        for dim, stride in zip(c.channels, c.downsample_factors, strict=False):
            layers += [*_units(dim, c), CausalConv(dim, 2 * dim, 2 * stride, stride), shared]
        self.layers = nn.Sequential(*layers, CausalConv(c.channels[-1], c.latent_dim, kernel), nn.Tanh())

    def forward(self, wave: Tensor) -> Tensor:
        """[B, 1, T] -> [B, latent, T / hop]."""
        out: Tensor = self.layers(wave)
        return out


class Decoder(nn.Module):
    """A latent to speech; the first convolution looks ahead by half its width."""

    def __init__(self, c: CodecConfig) -> None:
        super().__init__()
        kernel, ahead = c.default_kernel_size, c.delay_kernel_size
        layers: list[nn.Module] = [nn.Conv1d(c.latent_dim, c.channels[-1], ahead, padding=(ahead - 1) // 2)]
        for dim, stride in reversed(list(zip(c.channels, c.downsample_factors, strict=False))):
            layers += [Upsample(2 * dim, dim, stride), *_units(dim, c)]
        layers += [nn.Upsample(scale_factor=c.num_samples), CausalConv(c.init_channel, c.init_channel, kernel)]
        self.layers = nn.Sequential(*layers, nn.PReLU(), CausalConv(c.init_channel, 1, kernel))

    def forward(self, latent: Tensor) -> Tensor:
        """[B, latent, T] -> [B, 1, T hop]."""
        out: Tensor = self.layers(latent)
        return out


class SQCodec(nn.Module):
    """Encode, round, decode."""

    def __init__(self, c: CodecConfig) -> None:
        super().__init__()
        self.encoder, self.vq, self.decoder = Encoder(c), Rounding(c.levels), Decoder(c)

    def forward(self, wave: Tensor) -> Tensor:
        """[B, 1, T] -> [B, 1, T]."""
        out: Tensor = self.decoder(self.vq(self.encoder(wave)))
        return out


class ConditionEmbedder(nn.Module):
    """Features to tokens."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        layers = nn.Linear(dim, width), nn.GELU(approximate="tanh"), nn.Linear(width, width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, C] -> [B, L, D]."""
        out: Tensor = self.mlp(x)
        return out


class Attention(nn.Module):
    """Over the whole sequence; queries and keys are normalised, then turned by their position."""

    def __init__(self, c: SimpleSpeech2Config) -> None:
        super().__init__()
        width, size = c.hidden_size, c.hidden_size // c.num_heads
        self.size = size
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.q_norm, self.k_norm = nn.RMSNorm(size, eps=1e-5), nn.RMSNorm(size, eps=1e-5)

    def forward(self, x: Tensor, turn: Turn) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        q, k, v = (part(x).unflatten(-1, (-1, self.size)).transpose(1, 2) for part in (self.wq, self.wk, self.wv))
        q, k = rotated(self.q_norm(q), *turn), rotated(self.k_norm(k), *turn)
        out: Tensor = self.wo(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class SwiGLU(nn.Module):
    """A gated feed-forward layer: one expert."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.w2 = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        out: Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return out


class Block(nn.Module):
    """Attention, then the expert of the time."""

    def __init__(self, c: SimpleSpeech2Config) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = (nn.RMSNorm(c.hidden_size, eps=1e-5) for _ in range(2))
        self.attention = Attention(c)
        self.experts = nn.ModuleList(SwiGLU(c.hidden_size, c.ffn_dim) for _ in range(c.experts))

    def forward(self, x: Tensor, turn: Turn, expert: int) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        x = x + self.attention(self.attention_norm(x), turn)
        out: Tensor = x + self.experts[expert](self.ffn_norm(x))
        return out


class Denoiser(nn.Module):
    """The transformer: the velocity at a latent. All rows of a batch have one expert, so times of one bucket."""

    rates: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, c: SimpleSpeech2Config) -> None:
        super().__init__()
        self.config, width, half = c, c.hidden_size, c.frequencies // 2
        rates = 1000 * torch.exp(torch.arange(half) * (-math.log(10000) / half))
        self.register_buffer("rates", rates, persistent=False)
        cos, sin = rotary_tables(width // c.num_heads, 2 + c.text + c.frames, 10000.0, {})
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.t_embedder = nn.Sequential(nn.Linear(c.frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.c1_embedder = ConditionEmbedder(c.context_dim, width)
        self.spk_embedder = ConditionEmbedder(c.speaker_dim, width)
        self.proj_in = nn.Conv1d(c.codec.latent_dim, width, c.kernel_size, padding=c.kernel_size // 2)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.final_norm = nn.RMSNorm(width, eps=1e-5)
        self.final_layer = nn.Linear(width, c.codec.latent_dim)

    def conditions(self, text: Tensor, speaker: Tensor) -> Tensor:
        """[B, L, context], [B, speaker] -> tokens [B, 1 + L, D], the same at every step."""
        return torch.cat([self.spk_embedder(speaker.unsqueeze(1)), self.c1_embedder(text)], 1)

    def forward(self, latent: Tensor, time: Tensor, expert: int, tokens: Tensor) -> Tensor:
        """[B, T, latent], times [B or 1], conditions [B, 1 + L, D] -> [B, T, latent]."""
        angles = time[:, None, None] * self.rates
        when = self.t_embedder(torch.cat([angles.cos(), angles.sin()], -1)).expand(len(latent), -1, -1)
        frames = self.proj_in(latent.transpose(1, 2)).transpose(1, 2)
        x, turn = torch.cat([when, tokens, frames], 1), (self.cos, self.sin)
        for block in self.blocks:
            x = block(x, turn, expert)
        out: Tensor = self.final_layer(self.final_norm(x[:, -latent.shape[1] :]))
        return out


class FlowSampler(nn.Module):
    """Euler steps from noise to a latent, guided away from what the network says without text and speaker."""

    times: Tensor

    def __init__(self, c: SimpleSpeech2Config) -> None:
        super().__init__()
        self.config, self.denoiser = c, Denoiser(c)
        self.null_text = nn.Parameter(torch.zeros(c.context_dim))
        self.null_speaker = nn.Parameter(torch.zeros(c.speaker_dim))
        self.register_buffer("times", torch.arange(c.steps) / c.steps, persistent=False)

    def expert(self, step: int) -> int:
        """Which expert computes in a step: as many buckets of time, alike in length."""
        return step * self.config.experts // self.config.steps

    def forward(self, noise: Tensor, text: Tensor, speaker: Tensor) -> Tensor:
        """[B, T, latent], [B, L, context], [B, speaker] -> [B, T, latent]."""
        if self.config.guidance != 1:
            text = torch.cat([text, self.null_text.expand_as(text)])
            speaker = torch.cat([speaker, self.null_speaker.expand_as(speaker)])
        tokens, latent, steps = self.denoiser.conditions(text, speaker), noise, self.config.steps
        for k in range(steps):
            latent = latent + self._velocity(latent, k, tokens) / steps
        return latent

    def _velocity(self, latent: Tensor, step: int, tokens: Tensor) -> Tensor:
        weight, time, expert = self.config.guidance, self.times[step : step + 1], self.expert(step)
        if weight == 1:
            velocity: Tensor = self.denoiser(latent, time, expert, tokens)
            return velocity
        both: Tensor = self.denoiser(torch.cat([latent, latent]), time, expert, tokens)
        told, untold = both.chunk(2)
        return weight * told + (1 - weight) * untold


class SimpleSpeech2(nn.Module):
    """The sampler and the codec's decoder."""

    def __init__(self, c: SimpleSpeech2Config) -> None:
        super().__init__()
        self.sampler = FlowSampler(c)
        self.vq = Rounding(c.codec.levels) if c.requantise else nn.Identity()
        self.decoder = Decoder(c.codec)

    def forward(self, noise: Tensor, text: Tensor, speaker: Tensor) -> Tensor:
        """[B, T, latent], [B, L, context], [B, speaker] -> speech [B, 1, T hop]."""
        latent = self.sampler(noise, text, speaker).transpose(1, 2)
        out: Tensor = self.decoder(self.vq(latent))
        return out


PAPER = SimpleSpeech2Config()
TINY = replace(
    PAPER,
    codec=CodecConfig(init_channel=8, downsample_factors=(2, 4), dilations=(1, 3, 9), latent_dim=8),
    hidden_size=64,
    num_heads=4,
    depth=2,
    ffn_dim=128,
    experts=2,
    context_dim=24,
    speaker_dim=16,
    frequencies=32,
    steps=4,
    guidance=2.0,
    frames=16,
    text=6,
)
CONFIGS = {"tiny": TINY, "paper": PAPER}


def tone(batch: int, length: int, numbers: torch.Generator) -> Tensor:
    """Three harmonics of a random pitch between 1/32 and 1/12 of the sample rate [B, 1, length]."""
    pitch = 1 / (12 + 20 * torch.rand(batch, 1, 1, generator=numbers))
    order = torch.arange(1, 4)[:, None]
    phase = torch.rand(batch, 3, 1, generator=numbers)
    waves = torch.sin(2 * math.pi * (pitch * order * torch.arange(length) + phase)) / order
    return 0.5 * waves.sum(1, keepdim=True)


def speech_example(size: str, seq: int, batch: int, seed: int) -> Call:
    """Noise [B, frames, latent], features of text [B, L, context] and of a speaker [B, speaker], all normal."""
    c, numbers = CONFIGS[size], torch.Generator().manual_seed(seed)
    shapes = (batch, seq, c.codec.latent_dim), (batch, c.text, c.context_dim), (batch, c.speaker_dim)
    return tuple(torch.randn(shape, generator=numbers) for shape in shapes)


def codec_example(size: str, seq: int, batch: int, seed: int) -> Call:
    """Tones [B, 1, frames hop], others for each seed."""
    return (tone(batch, seq * CONFIGS[size].codec.hop, torch.Generator().manual_seed(seed)),)


def speech_sketch(call: Call, output: Tensor) -> Curves:
    """The waveform."""
    return Curves("SimpleSpeech 2: a waveform", (Curve("speech", output[0, 0], answer=True),), "sample")


def codec_sketch(call: Call, output: Tensor) -> Curves:
    """The waveform, and what is left of it."""
    curves = Curve("given", call[0][0, 0]), Curve("decoded", output[0, 0], answer=True)
    return Curves("SQ-Codec: a waveform, coded and decoded", curves, "sample")


def _sizes(network: Callable[[str], Callable[[], nn.Module]]) -> dict[str, Size]:
    return {s: Size(network(s), seq=c.frames, longest=c.frames, fixed=True) for s, c in CONFIGS.items()}


SPEECH = _sizes(lambda size: partial(SimpleSpeech2, CONFIGS[size]))
CODEC = _sizes(lambda size: partial(SQCodec, CONFIGS[size].codec))

register(
    Entry(
        id="simplespeech2",
        title="SimpleSpeech 2",
        paper="arXiv 2408.13893",
        task="audio",
        sizes=SPEECH,
        build=lambda size, source: seeded(SPEECH[size].architecture),
        example=speech_example,
        err_bound=5e-3,
        sketch=speech_sketch,
    )
)
register(
    Entry(
        id="sq-codec",
        title="SQ-Codec of SimpleSpeech 2",
        paper="arXiv 2408.13893",
        task="audio",
        sizes=CODEC,
        build=lambda size, source: seeded(CODEC[size].architecture),
        example=codec_example,
        err_bound=4e-3,
        sketch=codec_sketch,
    )
)
