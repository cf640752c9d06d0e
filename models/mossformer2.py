"""MossFormer2: Zhao et al., "MossFormer2: Combining Transformer and RNN-Free Recurrent Network for Enhanced Time-Domain
Monaural Speech Separation", ICASSP 2024, arXiv 2312.11825.

A learned filter bank turns the waveform into frames, the mask network into one mask a speaker, and the transposed
filter bank each masked set of frames into a waveform. A layer of the mask network has two parts. Gated attention
(FLASH) attends within groups of frames by the squared ReLU of scores, and over all frames by linear attention; it has
no softmax. The recurrent module, a gated memory of feedforward layers (FSMN), looks at 39 frames and at 77 by
convolutions that are dilated and densely connected; `recurrent=False` leaves it out, which is MossFormer's layer.

Checked against the official code (modelscope/ClearerVoice-Studio, mossformer2_ss): with its weights copied over, gamma
and beta drawn anew, two layers of 32 channels answer alike to 4e-8. Quirks kept: the dense connection concatenates
[new, old] and its grouped convolution then joins neighbours in that list, not a channel with itself; linear attention
is divided by the number of frames, scores by the group size; the last group is filled with zeros, which weigh nothing.
`mapping` is what the authors' earlier code (alibabasglab/MossFormer2) does for WHAMR!: what the mask network says is
the frames themselves, not a mask. Dropout is left out.

Our own reading, the same function: gamma, which makes queries and keys, starts at 0.02, and attended values then lie
near the fixed point's last place. The weights' owner divides gamma and beta by gamma's root mean square s; the factors
s^2 come back where they matter, and nowhere before the last ScaleNorm, which takes them away. Scores are
relu(q.k / sqrt g)^2, and the other 1/g comes after they are weighed. ScaleNorm is an RMS norm with eps 1e-10 under the
root where the code clamps the root at 1e-5: rows as short as that come out differently. SiLU is written with a tangent.

Secret: the mixture, the masks, the waveforms. Public: lengths, rotary and sinusoidal tables.
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
class MossFormer2Config:
    """Sizes; the defaults are those of two speakers, one second at 16 kHz."""

    samples: int = 16_000
    num_spks: int = 2
    encoder_kernel_size: int = 16
    encoder_embedding_dim: int = 512
    mossformer_sequence_dim: int = 512
    num_mossformer_layer: int = 24
    group_size: int = 256
    query_key_dim: int = 128
    rotary_dim: int = 32
    expansion_factor: int = 4
    conv_kernel: int = 17
    inner_channels: int = 256
    lorder: int = 20
    fsmn_depth: int = 2
    recurrent: bool = True
    mapping: bool = False

    @property
    def frames(self) -> int:
        """Windows of the filter bank: half a window apart, whole ones only."""
        return 2 * self.samples // self.encoder_kernel_size - 1


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """x where it is positive, slope * x elsewhere: one comparison and one product."""
    return slope * x + (1 - slope) * F.relu(x)


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x) by way of the tangent, whose approximation on shares is closer than SiLU's own."""
    half = x / 2
    return half + half * torch.tanh(half)


class ScaleNorm(nn.Module):
    """Rows of one length, and one factor for all channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return F.rms_norm(x, x.shape[-1:], eps=1e-10) * self.g


class FFConvM(nn.Module):
    """Norm, linear layer, SiLU, and a convolution of each channel over time, added to what goes into it."""

    def __init__(self, norm: nn.Module, width: int, out: int, kernel: int) -> None:
        super().__init__()
        self.norm, self.linear = norm, nn.Linear(width, out)
        self.conv = nn.Conv1d(out, out, kernel, padding=kernel // 2, groups=out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, E]."""
        hidden = silu(self.linear(self.norm(x)))
        out: Tensor = hidden + self.conv(hidden.transpose(1, 2)).transpose(1, 2)
        return out


class OffsetScale(nn.Module):
    """Several scaled and shifted copies of one projection: queries and keys of both kinds of attention."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(heads, width))
        self.beta = nn.Parameter(torch.zeros(heads, width))
        nn.init.normal_(self.gamma, std=0.02)

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """[B, T, D] -> `heads` times [B, T, D] over their size in gamma, and that size squared."""
        factor = self.gamma.square().mean()
        size = factor.sqrt()
        return (x.unsqueeze(-2) * (self.gamma / size) + self.beta / size).unbind(-2), factor


class Rotary(nn.Module):
    """Rotary positions on the first channels, pairs of neighbours; the tables are public."""

    cos: Tensor
    sin: Tensor

    def __init__(self, size: int, length: int) -> None:
        super().__init__()
        self.size = size
        frequencies = 10_000.0 ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)
        angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies
        self.register_buffer("cos", angles.cos().repeat_interleave(2, -1), persistent=False)
        self.register_buffer("sin", angles.sin().repeat_interleave(2, -1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        turned, kept = x[..., : self.size], x[..., self.size :]
        swapped = torch.stack([-turned[..., 1::2], turned[..., 0::2]], -1).flatten(-2)
        return torch.cat([turned * self.cos + swapped * self.sin, kept], -1)


class FLASH(nn.Module):
    """Gated attention with one head: quadratic within groups of frames, linear over all of them."""

    def __init__(self, c: MossFormer2Config) -> None:
        super().__init__()
        width, self.group = c.mossformer_sequence_dim, c.group_size
        hidden = width * c.expansion_factor
        self.to_hidden = FFConvM(ScaleNorm(width), width, hidden, c.conv_kernel)
        self.to_qk = FFConvM(ScaleNorm(width), width, c.query_key_dim, c.conv_kernel)
        self.qk_offset_scale = OffsetScale(c.query_key_dim)
        self.rotary_pos_emb = Rotary(min(c.rotary_dim, c.query_key_dim), c.frames)
        self.to_out = FFConvM(ScaleNorm(hidden // 2), hidden // 2, width, c.conv_kernel)

    def grouped(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, groups, g, D], the last group filled with zeros."""
        return torch.unflatten(F.pad(x, (0, 0, 0, -x.shape[1] % self.group)), 1, (-1, self.group))

    def weigh(self, scores: Tensor, factor: Tensor, q: Tensor, k: Tensor, values: Tensor) -> Tensor:
        """[B, T, D]: values weighed by `scores` [B, groups, g, g] within groups, by q (k^T values) over all frames."""
        frames = values.shape[1]
        within = (scores @ self.grouped(values)).flatten(1, 2)[:, :frames]
        return within * (factor / self.group) + q @ ((k.transpose(1, 2) @ values) / frames)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        shifted, kept = x.chunk(2, -1)
        now = torch.cat([F.pad(shifted, (0, 0, 1, 0))[:, :-1], kept], -1)
        v, u = self.to_hidden(now).chunk(2, -1)
        heads, factor = self.qk_offset_scale(self.to_qk(now))
        quad_q, lin_q, quad_k, lin_k = (self.rotary_pos_emb(head) for head in heads)
        scores = F.relu(self.grouped(quad_q) @ self.grouped(quad_k).transpose(-1, -2) / math.sqrt(self.group)).square()
        attended_v, attended_u = (self.weigh(scores, factor, lin_q, lin_k, part) for part in (v, u))
        gated = attended_u * v * torch.sigmoid(attended_v * u * factor)
        out: Tensor = x + self.to_out(gated)
        return out


class DilatedMemory(nn.Module):
    """FSMN: a bottleneck and convolutions over time, dilated 1, 2, 4.., each of all that came before it."""

    def __init__(self, c: MossFormer2Config) -> None:
        super().__init__()
        width, kernel, depths = c.inner_channels, 2 * c.lorder - 1, range(c.fsmn_depth)
        self.linear, self.project = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.conv = nn.ModuleList(
            nn.Conv1d(
                width * (i + 1),
                width,
                kernel,
                padding=(c.lorder - 1) * 2**i,
                dilation=2**i,
                groups=width,
                bias=False,
            )
            for i in depths
        )
        self.norm = nn.ModuleList(nn.InstanceNorm1d(width, affine=True) for _ in depths)
        self.prelu = nn.ParameterList(nn.Parameter(torch.full((width, 1), 0.25)) for _ in depths)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        out = seen = self.project(F.relu(self.linear(x))).transpose(1, 2)
        for conv, norm, slope in zip(self.conv, self.norm, self.prelu, strict=True):
            out = prelu(norm(conv(seen)), slope)
            seen = torch.cat([out, seen], 1)
        return x + torch.transpose(out, 1, 2)


class GatedFSMN(nn.Module):
    """The recurrent module: down to fewer channels, memory gated by a second branch, and back up."""

    def __init__(self, c: MossFormer2Config) -> None:
        super().__init__()
        width, inner = c.mossformer_sequence_dim, c.inner_channels
        self.conv1, self.conv2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.prelu = nn.Parameter(torch.full((1,), 0.25))
        self.norm1, self.norm2 = nn.LayerNorm(inner), nn.LayerNorm(inner)
        self.to_u = FFConvM(nn.LayerNorm(inner), inner, inner, c.conv_kernel)
        self.to_v = FFConvM(nn.LayerNorm(inner), inner, inner, c.conv_kernel)
        self.fsmn = DilatedMemory(c)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        inner = self.norm1(prelu(self.conv1(x), self.prelu))
        inner = self.to_v(inner) * self.fsmn(self.to_u(inner)) + inner
        out: Tensor = self.conv2(self.norm2(inner)) + x
        return out


class MaskNet(nn.Module):
    """Frames to one mask a speaker."""

    positions: Tensor

    def __init__(self, c: MossFormer2Config) -> None:
        super().__init__()
        bank, width = c.encoder_embedding_dim, c.mossformer_sequence_dim
        self.speakers = c.num_spks
        self.norm = nn.GroupNorm(1, bank, eps=1e-8)
        self.conv1d_encoder = nn.Linear(bank, width, bias=False)
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("positions", sinusoids(c.frames, width), persistent=False)
        self.layers = nn.ModuleList(FLASH(c) for _ in range(c.num_mossformer_layer))
        self.fsmn = nn.ModuleList(GatedFSMN(c) for _ in range(c.num_mossformer_layer if c.recurrent else 0))
        self.last_norm = nn.LayerNorm(width, eps=1e-6)
        self.intra_norm = nn.GroupNorm(1, width, eps=1e-8)
        self.prelu = nn.Parameter(torch.full((1,), 0.25))
        self.conv1d_out = nn.Linear(width, width * c.num_spks)
        self.output, self.output_gate = nn.Linear(width, width), nn.Linear(width, width)
        self.conv1_decoder = nn.Linear(width, bank, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        """[B, N, T] -> [B, speakers, T, N], not negative."""
        x = self.conv1d_encoder(self.norm(frames).transpose(1, 2)) + self.positions * self.scale
        inner = x
        for i, layer in enumerate(self.layers):
            inner = layer(inner)
            inner = self.fsmn[i](inner) if self.fsmn else inner
        x = x + self.intra_norm(self.last_norm(inner).transpose(1, 2)).transpose(1, 2)
        each = self.conv1d_out(prelu(x, self.prelu)).unflatten(-1, (self.speakers, -1)).transpose(1, 2)
        return F.relu(self.conv1_decoder(torch.tanh(self.output(each)) * torch.sigmoid(self.output_gate(each))))


def sinusoids(length: int, width: int) -> Tensor:
    """[length, width]: sines, then cosines, of position over wavelengths up to 10,000."""
    frequencies = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)


class MossFormer2(nn.Module):
    """Filter bank, mask network, filter bank back."""

    def __init__(self, c: MossFormer2Config) -> None:
        super().__init__()
        self.config = c
        bank, kernel = c.encoder_embedding_dim, c.encoder_kernel_size
        self.encoder = nn.Conv1d(1, bank, kernel, stride=kernel // 2, bias=False)
        self.mask_net = MaskNet(c)
        self.decoder = nn.ConvTranspose1d(bank, 1, kernel, stride=kernel // 2, bias=False)

    def forward(self, mixture: Tensor) -> Tensor:
        """[B, samples] -> [B, speakers, samples]; what no window covers is 0."""
        frames = F.relu(self.encoder(mixture.unsqueeze(1)))
        each = self.mask_net(frames).transpose(2, 3)
        if not self.config.mapping:
            each = each * frames.unsqueeze(1)
        waves: Tensor = self.decoder(each.flatten(0, 1)).squeeze(1)
        waves = F.pad(waves, (0, mixture.shape[1] - waves.shape[1]))
        return torch.unflatten(waves, 0, (-1, self.config.num_spks))


PAPER = MossFormer2Config()
TINY = replace(
    PAPER,
    samples=512,
    encoder_embedding_dim=32,
    mossformer_sequence_dim=32,
    num_mossformer_layer=1,
    group_size=16,
    query_key_dim=32,
    rotary_dim=16,
    inner_channels=32,
)
CONFIGS = {"tiny": TINY, "paper": PAPER}
SIZES = {s: Size(partial(MossFormer2, c), seq=c.samples, longest=c.samples, fixed=True) for s, c in CONFIGS.items()}


def voices(batch: int, samples: int, seed: int) -> Tensor:
    """[B, 2, samples] at 8 kHz: a low and a high voice, each a pitch that glides, with three overtones that swell."""
    numbers = torch.Generator().manual_seed(seed)

    def drawn(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, 2, 1, generator=numbers)

    time = torch.arange(samples, dtype=torch.float32) / 8000
    pitch = drawn(100.0, 180.0) * torch.tensor([1.0, 2.2])[:, None]
    phase = 2 * math.pi * (pitch * time * (1 + drawn(-0.5, 0.5) * time) + drawn(0, 1))
    wave = sum((torch.sin(n * phase + 6 * drawn(0, 1)) / n for n in (1, 2, 3, 4)), start=torch.zeros(()))
    return 0.3 * wave * (0.7 + 0.3 * torch.sin(2 * math.pi * (drawn(2.0, 6.0) * time + drawn(0, 1))))


def build(size: str, source: str | None) -> nn.Module:
    """Random weights with seed 0; the published checkpoints are not read."""
    return seeded(SIZES[size].architecture)


def example(size: str, seq: int, batch: int, seed: int) -> Call:
    """[B, samples]: two voices, others for each seed."""
    return (voices(batch, seq, seed).sum(1),)


def calibration(size: str, seq: int, batch: int) -> list[Call]:
    """Other voices, loud and soft."""
    return [(loudness * example(size, seq, batch, 10 + i)[0],) for i, loudness in enumerate((0.5, 1.0, 1.5))]


def sketch(call: Call, output: Tensor) -> Curves:
    """The mixture and what each speaker is said to have said."""
    said = (Curve(f"speaker {i + 1}", wave, answer=True) for i, wave in enumerate(output[0]))
    return Curves("MossFormer2: a mixture and its voices", (Curve("mixture", call[0][0]), *said), axis="sample")


register(
    Entry(
        id="mossformer2",
        title="MossFormer2",
        paper="arXiv 2312.11825",
        task="speech separation",
        sizes=SIZES,
        build=build,
        example=example,
        err_bound=3e-4,
        calibration=calibration,
        sketch=sketch,
    )
)
