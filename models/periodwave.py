"""PeriodWave: Lee et al., "PeriodWave: Multi-Period Flow Matching for High-Fidelity Waveform Generation", ICLR 2025,
arXiv 2408.07547.

A vocoder: a mel spectrogram becomes a waveform along the flow dx/dt = v(x, mel, t) from noise (t = 0) to sound (t = 1).
The network v folds a waveform of T samples to [T / p, p] for each of several periods p, so that what repeats every p
samples comes to lie in one column, and passes every fold through one and the same UNet, told by an embedding which
period it sees. `PeriodWave` is the solver around v: a whole generation is one program, between whose steps nothing
is opened.

Checked against a public copy of the authors' code (Alizeded/PeriodWave): layers and their sizes; noise with the
deviation of the mel's energy, at least 0.1, which is also one more row of the mel; Euler and midpoint steps; FreeU,
which weighs skips by `s_w` and what comes from below by `b_w` (0.9 and 1.1 recommended, with midpoints); and what looks
unintended there, behind a flag each, true as in the code: `scale_by_hidden` scales the period's embedding by
sqrt(hidden_dim), where it has hidden_dim / 2 entries (a comment there says so); `pad_by_width` pads the mel's features
for a period as if they had one frame.

Our own: SiLU is written by tanh, the same function; weight normalisation is folded into the convolutions, as the code
does before inference; GRN divides root mean squares, not norms (their ratio is the same, epsilon is scaled along);
stride, hence the hop, and the number of blocks are fields, of which the tiny size takes less. The paper's variants by
frequency band (wavelets) are left out.

Secret: mel, noise, waveform and all features. Public: lengths, periods, times and their number. Embeddings of times and
periods depend on weights alone, so they are computed in plaintext by the owner; `prior` and noise by the client.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.initial import seeded
from hush.models.registry import Call, Entry, Size, register
from hush.models.sketch import Curve, Curves


@dataclass(frozen=True, slots=True)
class PeriodWaveConfig:
    """Sizes; the defaults are those of 24 kHz, and of 16 steps by midpoints."""

    n_mel: int = 100
    periods: tuple[int, ...] = (1, 2, 3, 5, 7)
    hidden_dim: int = 512
    convnext_blocks: int = 8
    cond_blocks: int = 4
    kernel_size: int = 9
    stride: int = 4
    steps: int = 16
    solver: str = "midpoint"  # or "euler"
    s_w: float = 1.0
    b_w: float = 1.0
    scale_by_hidden: bool = True
    pad_by_width: bool = True
    noise_scale: float = 0.667  # of the client's noise
    frames: int = 128

    @property
    def final_dim(self) -> int:
        """Channels of what the UNet gives: those of its first skip, which is added at the end."""
        return self.hidden_dim // 16

    @property
    def hop(self) -> int:
        """Samples a frame of the mel: the UNet goes down thrice, the mel's features up by four once."""
        return 4 * self.stride**3


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x), as h + h tanh(h) for h = x / 2: on shares tanh is several times as exact as SiLU, and a waveform
    passes dozens of them, one after the other."""
    half = x / 2
    return half + half * torch.tanh(half)


class SiLU(nn.Module):
    """`silu` among layers."""

    def forward(self, x: Tensor) -> Tensor:
        """[...], and so again."""
        return silu(x)


class GRN(nn.Module):
    """Global response normalisation: channels compete by their energy over time."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.zeros(1, 1, dim)), nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, C]."""
        energy = torch.sqrt(x.square().mean(1, keepdim=True) + 1e-12)  # the square root has no slope at 0
        share = energy / (energy.mean(-1, keepdim=True) + 1e-6 / math.sqrt(x.shape[1]))
        return self.gamma * (x * share) + self.beta + x


class ConvNeXtV2Block(nn.Module):
    """Depthwise convolution, norm, two layers with GELU and GRN between them."""

    def __init__(self, dim: int, intermediate: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, intermediate), nn.Linear(intermediate, dim)
        self.grn = GRN(intermediate)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] -> [B, C, T]."""
        hidden = self.norm(self.dwconv(x).transpose(1, 2))
        hidden = self.pwconv2(self.grn(F.gelu(self.pwconv1(hidden))))
        out: Tensor = x + hidden.transpose(1, 2)
        return out


class MelSpectrogramUpsampler(nn.Module):
    """The mel's features at four times its frames, folded by each period."""

    def __init__(self, c: PeriodWaveConfig) -> None:
        super().__init__()
        width, half = c.hidden_dim, c.hidden_dim // 2
        self.periods, self.pad_by_width = c.periods, c.pad_by_width
        self.embed = nn.Conv1d(c.n_mel + 1, width, 7, padding=3)
        self.convnext_block = nn.Sequential(*(ConvNeXtV2Block(width, 3 * width) for _ in range(c.convnext_blocks)))
        self.up = nn.ConvTranspose1d(width, half, 8, 4, padding=2)
        self.cond = nn.Sequential(*(ConvNeXtV2Block(half, 4 * half) for _ in range(c.cond_blocks)))
        self.cond_block = nn.ModuleList(
            nn.Conv2d(half, width, (2 * p, 1), (p, 1), padding=((2 * p - 1) // 2, 0)) for p in c.periods
        )

    def forward(self, mel: Tensor) -> list[Tensor]:
        """[B, n_mel + 1, frames] -> [B, D, at least 4 frames / p, 1] for each period p."""
        x = self.embed(mel)
        x = self.cond(self.up(silu(self.convnext_block(x) + x)))
        x = silu(x)
        return [self._folded(x, i) for i in range(len(self.periods))]

    def _folded(self, x: Tensor, i: int) -> Tensor:
        pad = self.periods[i] - (1 if self.pad_by_width else x.shape[-1]) % self.periods[i]
        folded: Tensor = self.cond_block[i](F.pad(x, (0, pad), "reflect").unsqueeze(-1))
        return folded


class Resblock(nn.Module):
    """Two convolutions along time, each after SiLU; `planar` for folded waveforms, else for waveforms."""

    def __init__(self, dim: int, dilation: int, planar: bool = True) -> None:
        super().__init__()
        self.block1, self.block2 = (_conv(dim, gap, planar) for gap in (dilation, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, p] or [B, C, T], and so again."""
        out: Tensor = x + self.block2(silu(self.block1(silu(x))))
        return out


def _conv(dim: int, dilation: int, planar: bool) -> nn.Module:
    if planar:
        return nn.Conv2d(dim, dim, (3, 1), dilation=(dilation, 1), padding=(dilation, 0))
    return nn.Conv1d(dim, dim, 3, dilation=dilation, padding=dilation)


def _down(dim: int, out: int, kernel: int, stride: int) -> nn.Module:
    return nn.Conv2d(dim, out, (kernel, 1), (stride, 1), padding=((kernel - 1) // 2, 0), bias=False)


class DownConv2D(nn.Module):
    """Shorter by the stride, with the embedding of time and period added."""

    def __init__(self, dim: int, out: int, kernel: int, stride: int, hidden: int, act: bool = True) -> None:
        super().__init__()
        self.act, self.down = act, _down(dim, out, kernel, stride)
        self.mlp = nn.Linear(hidden, out)
        self.ResBlocks = nn.Sequential(Resblock(out, 1), Resblock(out, 2))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """[B, C, T, p], [B or 1, D] -> [B, C', T / stride, p]."""
        x = self.down(silu(x) if self.act else x)
        out: Tensor = self.ResBlocks(x + self.mlp(silu(emb))[..., None, None])
        return out


class MelCondConv2D(nn.Module):
    """The bottom of the UNet, where the mel comes in, one frame for all columns."""

    def __init__(self, dim: int, out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.down = _down(dim, out, kernel, stride)
        self.ResBlocks = nn.Sequential(*(Resblock(out, dilation) for dilation in (1, 2, 4)))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """[B, C, T, p], [B, D, at least T / stride, 1] -> [B, D, T / stride, p]."""
        x = self.down(silu(x))
        out: Tensor = self.ResBlocks(x + cond[:, :, : x.shape[2]])
        return out


class UpConv2D(nn.Module):
    """Longer by the stride, with a skip and the embedding added."""

    def __init__(self, dim: int, out: int, c: PeriodWaveConfig) -> None:
        super().__init__()
        self.s_w, self.b_w, s = c.s_w, c.b_w, c.stride
        self.up = nn.ConvTranspose2d(dim, out, (2 * s, 1), (s, 1), padding=(s // 2, 0), bias=False)
        self.mlp = nn.Linear(c.hidden_dim, out)
        self.ResBlocks = nn.Sequential(Resblock(out, 1), Resblock(out, 2))

    def forward(self, x: Tensor, skip: Tensor, emb: Tensor) -> Tensor:
        """[B, C, T, p], [B, C', stride T, p], [B or 1, D] -> [B, C', stride T, p]."""
        x = self.b_w * self.up(silu(x)) + self.s_w * skip
        out: Tensor = self.ResBlocks(x + self.mlp(silu(emb))[..., None, None])
        return out


def fold(x: Tensor, period: int, unit: int) -> Tensor:
    """[B, C, T] -> [B, C, T' / p, p]: padded by reflection to whole columns of a multiple of `unit` samples."""
    over = x.shape[-1] % (period * unit)
    if over:
        x = F.pad(x, (0, period * unit - over), "reflect")
    return x.reshape(*x.shape[:2], -1, period)


def unfold(x: Tensor, length: int) -> Tensor:
    """[B, C, T' / p, p] -> [B, C, T]."""
    return x.flatten(2)[..., :length]


class GeneratorP(nn.Module):
    """The UNet over a folded waveform, the same for every period."""

    def __init__(self, c: PeriodWaveConfig) -> None:
        super().__init__()
        width, kernel, self.unit = c.hidden_dim, c.kernel_size, c.stride**3
        a, b, d = width // 16, width // 8, width // 4
        self.downs = nn.ModuleList(
            [
                DownConv2D(1, a, 1, 1, width, act=False),
                DownConv2D(a, b, kernel, c.stride, width),
                DownConv2D(b, d, kernel, c.stride, width),
            ]
        )
        self.mid = MelCondConv2D(d, width, kernel, c.stride)
        self.ups = nn.ModuleList([UpConv2D(width, d, c), UpConv2D(d, b, c), UpConv2D(b, c.final_dim, c)])

    def forward(self, x: Tensor, emb: Tensor, cond: Tensor, period: int) -> Tensor:
        """[B, 1, T] with an embedding [B or 1, D] and the mel folded by the period -> [B, final, T]."""
        length, skips = x.shape[-1], []
        x = fold(x, period, self.unit)
        for layer in self.downs:
            x = layer(x, emb)
            skips.append(x)
        x = self.mid(x, cond)
        for layer in self.ups:
            x = layer(x, skips.pop(), emb)
        return unfold(x, length)


class VectorFieldEstimator(nn.Module):
    """v(x, mel, t): a sum over periods, then convolutions at the sample rate."""

    rates: Tensor

    def __init__(self, c: PeriodWaveConfig) -> None:
        super().__init__()
        width, half = c.hidden_dim, c.hidden_dim // 2
        self.periods, self.scale = c.periods, math.sqrt(width if c.scale_by_hidden else half)
        self.MelCond = MelSpectrogramUpsampler(c)
        self.period_emb = nn.Parameter(torch.randn(len(c.periods), half) * half**-0.5)
        rates = torch.exp(torch.arange(half // 2) * (-math.log(10000) / (half // 2 - 1)))
        self.register_buffer("rates", 1000 * rates, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
        self.mpg = GeneratorP(c)
        blocks = (Resblock(c.final_dim, dilation, planar=False) for dilation in (1, 2, 4))
        self.proj_layer = nn.Sequential(*blocks, SiLU(), nn.Conv1d(c.final_dim, 1, 7, padding=3, bias=False))

    def embedding(self, time: Tensor) -> Tensor:
        """Times [B] in 0..1 -> [B, periods, D]; of weights alone."""
        angles = time[:, None] * self.rates
        waves = torch.cat([angles.sin(), angles.cos()], -1)[:, None].expand(-1, len(self.periods), -1)
        periods = (self.period_emb * self.scale).expand(len(time), -1, -1)
        emb: Tensor = self.mlp(torch.cat([waves, periods], -1))
        return emb

    def forward(self, x: Tensor, cond: list[Tensor], emb: Tensor) -> Tensor:
        """[B, 1, T], what `MelCond` gives, an embedding [B or 1, periods, D] -> [B, 1, T]."""
        views = [self.mpg(x, emb[:, i], cond[i], p) for i, p in enumerate(self.periods)]
        out: Tensor = self.proj_layer(sum(views) / math.sqrt(len(views)))
        return out


class PeriodWave(nn.Module):
    """The solver of the flow, with as many steps as the config says, from noise to waveform."""

    times: Tensor

    def __init__(self, c: PeriodWaveConfig) -> None:
        super().__init__()
        self.config = c
        self.estimator = VectorFieldEstimator(c)
        self.register_buffer("times", torch.arange(2 * c.steps) / (2 * c.steps), persistent=False)  # and midpoints

    def forward(self, noise: Tensor, mel: Tensor) -> Tensor:
        """Noise [B, 1, T] of the prior's deviation, mel with that as last row [B, n_mel + 1, T / hop] -> [B, 1, T]."""
        x, cond, step = noise, self.estimator.MelCond(mel), 1 / self.config.steps
        for k in range(self.config.steps):
            slope = self._slope(x, cond, 2 * k)
            if self.config.solver == "midpoint":
                slope = self._slope(x + step / 2 * slope, cond, 2 * k + 1)
            x = x + step * slope
        return x

    def _slope(self, x: Tensor, cond: list[Tensor], place: int) -> Tensor:
        slope: Tensor = self.estimator(x, cond, self.estimator.embedding(self.times[place : place + 1]))
        return slope


def spectrogram(wave: Tensor, bands: int, hop: int) -> Tensor:
    """Log magnitudes [B, bands, T / hop] of a waveform [B, T]: triangular bands, evenly apart (mel's are not), of
    windows of four hops."""
    size = 4 * hop
    padded = F.pad(wave[:, None], ((size - hop) // 2, size - hop - (size - hop) // 2), "reflect")[:, 0]
    bins = torch.fft.rfft(padded.unfold(-1, size, hop) * torch.hann_window(size)).abs()
    centres, places = torch.linspace(0, 1, bands)[:, None], torch.linspace(0, 1, bins.shape[-1])
    weights = (1 - (places - centres).abs() * (bands - 1)).clamp(min=0)
    logs: Tensor = (bins @ weights.T).clamp(min=1e-3).log()
    return logs.transpose(1, 2)


def prior(mel: Tensor, least: float = 0.1, low: float = 0.0, high: float = 12.0) -> Tensor:
    """Deviation of the noise [B, 1, frames] by a mel's energy, which training data has between `low` and `high`."""
    energy = mel.exp().sum(1, keepdim=True).sqrt()
    return ((energy - low) / (high - low)).clamp(min=least)


def request(c: PeriodWaveConfig, mel: Tensor, noise: Tensor) -> Call:
    """What a client sends: its noise [B, 1, T], normal, at the prior's deviation, and its mel [B, n_mel, frames] with
    the prior."""
    deviation = prior(mel)
    return noise * c.noise_scale * deviation.repeat_interleave(c.hop, -1), torch.cat([mel, deviation], 1)


def tone(batch: int, length: int, numbers: torch.Generator) -> Tensor:
    """Harmonics of a random pitch between 1/40 and 1/12 of the sample rate, weaker upwards [B, length]."""
    pitch = 1 / (12 + 28 * torch.rand(batch, 1, 1, generator=numbers))
    order = torch.arange(1, 6)[:, None]
    phase = torch.rand(batch, 5, 1, generator=numbers)
    waves = torch.sin(2 * math.pi * (pitch * order * torch.arange(length) + phase)) / order
    return 0.5 * (waves * (pitch * order < 0.5)).sum(1)


PAPER = PeriodWaveConfig()
TINY = replace(
    PAPER,
    n_mel=16,
    periods=(1, 2, 3),
    hidden_dim=64,
    convnext_blocks=1,
    cond_blocks=1,
    stride=2,
    steps=1,
    frames=8,
)
CONFIGS = {"tiny": TINY, "paper": PAPER}
SIZES = {s: Size(partial(PeriodWave, c), seq=c.frames, longest=c.frames, fixed=True) for s, c in CONFIGS.items()}


def build(size: str, source: str | None) -> nn.Module:
    """Random weights with seed 0."""
    return seeded(SIZES[size].architecture)


def example(size: str, seq: int, batch: int, seed: int) -> Call:
    """Noise [B, 1, seq hop] and a tone's spectrogram with its prior [B, n_mel + 1, seq], others for each seed."""
    c, numbers = CONFIGS[size], torch.Generator().manual_seed(seed)
    mel = spectrogram(tone(batch, seq * c.hop, numbers), c.n_mel, c.hop)
    return request(c, mel, torch.randn(batch, 1, seq * c.hop, generator=numbers))


def sketch(call: Call, output: Tensor) -> Curves:
    """The noise that it starts from and the waveform."""
    curves = Curve("noise", call[0][0, 0]), Curve("waveform", output[0, 0], answer=True)
    return Curves("PeriodWave: from noise to a waveform", curves, "sample")


register(
    Entry(
        id="periodwave",
        title="PeriodWave",
        paper="arXiv 2408.07547",
        task="audio",
        sizes=SIZES,
        build=build,
        example=example,
        err_bound=2e-3,
        sketch=sketch,
    )
)
