"""LMUFormer: Liu et al., "LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre Memory Units", ICLR 2024,
arXiv 2402.04882, and its spiking form.

Convolutions over time embed a sequence, a Legendre memory unit (LMU) in the place of attention mixes its steps, 1x1
convolutions mix its channels, and scores of classes are averaged over time. An LMU squeezes each step into one number
u, keeps of all u so far the Legendre coefficients m (a linear system that nothing is learned of), and reads m and the
step together. In the spiking form every activation is a leaky integrate-and-fire neuron (LIF) whose time is the
sequence itself: v += (x - v) / tau, a spike where v reaches the threshold, and v starts from 0 again.

Checked against the official code (zeyuliu1037/LMUFormer), lmu_rnn_conv1d and, for the spiking form, where norms and
neurons come before the convolutions, slmu_rnn_ms_conv1d with spikingjelly's neurons: with equal weights and statistics
both answer alike to 2e-8. The memory has as many coefficients as there are channels, twice as many in the spiking form,
and theta is the length; GELU in the middle of the channel mixer and ReLU behind it; linear layers start at 0.02. The
neurons have the threshold 1 (0.5 before the LMU), a hard reset, and in training a sigmoid of slope 4 for the gradient,
which no reset passes on.

Our own reading, the same function: the code convolves u with the memory's impulse response by FFT in float32; here the
same Toeplitz product is a convolution with a public kernel. Scores are averaged before the last layer, which is linear.
Neurons of random weights hardly ever fire, so `build` gives the spiking form the statistics of its norms on examples.

A neuron that comes within rounding of its threshold (some 1e-5) may fire on shares where it does not in plain. One
answer in some hundreds has such a neuron, and is off by what a spike weighs, the others are as exact as without.

Secret: the sequence, what becomes of it, each spike: a secret comparison a neuron and step, unrolled over the sequence,
and the state lives on in shares. Public: lengths, the memory's kernel, thresholds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.initial import seeded
from hush.models.registry import Call, Entry, Size, register
from hush.models.series import wave
from hush.models.sketch import Bars


@dataclass(frozen=True, slots=True)
class LMUFormerConfig:
    """Sizes; the defaults are those of Speech Commands V2: 128 frames of 128 mel bands, 35 words."""

    seq_len: int = 128
    in_channels: int = 128
    embed_dims: int = 256
    memory_ratio: int = 1
    theta: float = 128.0
    mlp_ratio: int = 4
    depths: int = 1
    num_classes: int = 35
    spiking: bool = False
    tau: float = 2.0
    v_threshold: float = 1.0
    first_threshold: float = 0.5  # of the neurons before the memory


def state_space(order: int, theta: float) -> tuple[Tensor, Tensor]:
    """The memory's step m' = A m + B u, A [M, M] and B [M], in float64: its linear system, u held for a step.

    The exponential of [[A, B], [0, 0]] holds both.
    """
    place = torch.arange(order, dtype=torch.float64)
    rate, i, j = ((2 * place + 1) / theta)[:, None], place[:, None], place[None]
    signs = 1 - 2 * torch.remainder(i - j + 1, 2)
    continuous = rate * torch.where(i < j, -torch.ones_like(signs), signs)
    drive = rate * (1 - 2 * torch.remainder(i, 2))
    step = torch.matrix_exp(F.pad(torch.cat([continuous, drive], 1), (0, 0, 0, 1)))
    return step[:order, :order], step[:order, order]


def impulse(order: int, theta: float, length: int) -> Tensor:
    """[M, length]: the coefficients 0, 1, 2.. steps after a single 1, A^t B."""
    step, drive = state_space(order, theta)
    after = [drive]
    for _ in range(length - 1):
        after.append(step @ after[-1])
    return torch.stack(after, 1)


class Memory(nn.Module):
    """Legendre coefficients of all steps so far; nothing to learn, nothing secret but the input."""

    kernel: Tensor

    def __init__(self, order: int, theta: float, length: int) -> None:
        super().__init__()
        kernel = impulse(order, theta, length).flip(1).unsqueeze(1).float()
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, u: Tensor) -> Tensor:
        """[B, 1, T] -> [B, M, T], T being the length it was made for."""
        return F.conv1d(F.pad(u, (u.shape[-1] - 1, 0)), self.kernel)


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons, one for each channel."""

    def __init__(self, c: LMUFormerConfig, threshold: float | None = None) -> None:
        super().__init__()
        self.tau, self.threshold = c.tau, c.v_threshold if threshold is None else threshold

    def spikes(self, v: Tensor, fired: Tensor) -> Tensor:
        """`fired` as numbers; in training with the gradient of a sigmoid."""
        hard = fired.to(v.dtype)
        if not self.training:
            return hard
        smooth = torch.sigmoid(4 * (v - self.threshold))
        return hard + smooth - smooth.detach()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] -> spikes [B, C, T]."""
        first, *later = x.unbind(-1)
        v = first / self.tau
        fired = v >= self.threshold
        spikes = [self.spikes(v, fired)]
        for now in later:
            v = v.masked_fill(fired, 0.0)
            v = v + (now - v) / self.tau
            fired = v >= self.threshold
            spikes.append(self.spikes(v, fired))
        return torch.stack(spikes, -1)


def convolution(channels: int, out: int) -> nn.Conv1d:
    """Three steps wide, as long as its input, without a bias."""
    return nn.Conv1d(channels, out, 3, padding=1, bias=False)


class Tokenizer(nn.Module):
    """Four times convolution, ReLU, norm; a last convolution of it, for relative positions, added."""

    def __init__(self, c: LMUFormerConfig) -> None:
        super().__init__()
        width = c.embed_dims
        self.conv = nn.ModuleList(convolution(c.in_channels if i == 0 else width, width) for i in range(4))
        self.bn = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(4))
        self.rpe_conv = convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] -> [B, D, T]."""
        for conv, bn in zip(self.conv, self.bn, strict=True):
            x = bn(F.relu(conv(x)))
        out: Tensor = x + self.rpe_conv(x)
        return out


class SpikingTokenizer(Tokenizer):
    """Convolutions of spikes; the last but one is the trunk, and only its branch for positions fires once more."""

    def __init__(self, c: LMUFormerConfig) -> None:
        super().__init__(c)
        self.lif = LIF(c)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] -> [B, D, T]."""
        for conv, bn in zip(self.conv, self.bn, strict=True):
            trunk = conv(x)
            x = self.lif(bn(trunk))
        out: Tensor = trunk + self.rpe_conv(x)
        return out


class LMU(nn.Module):
    """A Legendre memory unit, 1x1 convolution, norm."""

    def __init__(self, c: LMUFormerConfig) -> None:
        super().__init__()
        width, order = c.embed_dims, c.embed_dims * c.memory_ratio
        self.W_u, self.W_h = nn.Linear(width, 1), nn.Linear(order + width, width)
        self.memory = Memory(order, c.theta, c.seq_len)
        self.proj_conv, self.proj_bn = nn.Conv1d(width, width, 1), nn.BatchNorm1d(width)

    def squeezed(self, x: Tensor) -> Tensor:
        """[B, D, T] -> u [B, 1, T], before its activation."""
        return F.conv1d(x, self.W_u.weight.unsqueeze(-1), self.W_u.bias)

    def read(self, m: Tensor, x: Tensor) -> Tensor:
        """Coefficients [B, M, T] and steps [B, D, T] -> h [B, D, T], before its activation."""
        return F.conv1d(torch.cat([m, x], 1), self.W_h.weight.unsqueeze(-1), self.W_h.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, T] -> [B, D, T]."""
        m = self.memory(F.relu(self.squeezed(x)))
        out: Tensor = self.proj_bn(self.proj_conv(F.relu(self.read(m, x))))
        return out


class SpikingLMU(LMU):
    """The unit with spikes for its input, u, m and h."""

    def __init__(self, c: LMUFormerConfig) -> None:
        super().__init__(c)
        width = c.embed_dims
        self.prev_bn, self.bn_u, self.bn_h = nn.BatchNorm1d(width), nn.BatchNorm1d(1), nn.BatchNorm1d(width)
        self.bn_m = nn.BatchNorm1d(width * c.memory_ratio)
        self.prev_lif, self.lif = LIF(c, c.first_threshold), LIF(c)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, T] -> [B, D, T]."""
        x = self.prev_lif(self.prev_bn(x))
        u = self.lif(self.bn_u(self.squeezed(x)))
        m = self.lif(self.bn_m(self.memory(u)))
        h = self.lif(self.bn_h(self.read(m, x)))
        out: Tensor = self.proj_bn(self.proj_conv(h))
        return out


class ConvFFN(nn.Module):
    """The channel mixer: two 1x1 convolutions, each with norm and activation behind it."""

    def __init__(self, c: LMUFormerConfig) -> None:
        super().__init__()
        width, hidden = c.embed_dims, c.embed_dims * c.mlp_ratio
        self.fc1_conv, self.fc1_bn = nn.Conv1d(width, hidden, 1), nn.BatchNorm1d(hidden)
        self.fc2_conv, self.fc2_bn = nn.Conv1d(hidden, width, 1), nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, T] -> [B, D, T]."""
        return F.relu(self.fc2_bn(self.fc2_conv(F.gelu(self.fc1_bn(self.fc1_conv(x))))))


class SpikingFFN(nn.Module):
    """The channel mixer with norm and neurons before each convolution."""

    def __init__(self, c: LMUFormerConfig) -> None:
        super().__init__()
        width, hidden = c.embed_dims, c.embed_dims * c.mlp_ratio
        self.fc1_bn, self.fc1_conv = nn.BatchNorm1d(width), nn.Conv1d(width, hidden, 1)
        self.fc2_bn, self.fc2_conv = nn.BatchNorm1d(hidden), nn.Conv1d(hidden, width, 1)
        self.lif = LIF(c)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, T] -> [B, D, T]."""
        hidden = self.fc1_conv(self.lif(self.fc1_bn(x)))
        out: Tensor = self.fc2_conv(self.lif(self.fc2_bn(hidden)))
        return out


class Block(nn.Module):
    """Memory over time, mixer over channels, both added to what goes into them."""

    def __init__(self, c: LMUFormerConfig) -> None:
        super().__init__()
        self.attn: nn.Module = SpikingLMU(c) if c.spiking else LMU(c)
        self.mlp: nn.Module = SpikingFFN(c) if c.spiking else ConvFFN(c)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, T] -> [B, D, T]."""
        x = x + self.attn(x)
        out: Tensor = x + self.mlp(x)
        return out


class LMUFormer(nn.Module):
    """Embed, remember and mix, score each step, average."""

    def __init__(self, c: LMUFormerConfig) -> None:
        super().__init__()
        self.patch_embed: nn.Module = SpikingTokenizer(c) if c.spiking else Tokenizer(c)
        self.block = nn.ModuleList(Block(c) for _ in range(c.depths))
        self.head_act: nn.Module = nn.Sequential(nn.BatchNorm1d(c.embed_dims), LIF(c)) if c.spiking else nn.Identity()
        self.head = nn.Linear(c.embed_dims, c.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] -> scores [B, classes]."""
        x = self.patch_embed(x.transpose(1, 2))
        for block in self.block:
            x = block(x)
        scores: Tensor = self.head(self.head_act(x).mean(-1))
        return scores


def settled(module: nn.Module, call: Call) -> nn.Module:
    """The module in eval mode, its norms with the statistics of one call."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        module.train()(*call)
    return module.eval()


PAPER = LMUFormerConfig()
TINY = replace(PAPER, seq_len=8, in_channels=8, embed_dims=32, theta=8.0, num_classes=10)
CONFIGS = {"tiny": TINY, "paper": PAPER}


def sizes_of(spiking: bool) -> dict[str, Size]:
    """Both sizes; the spiking form has twice the memory."""
    forms = {name: replace(c, spiking=spiking, memory_ratio=1 + spiking) for name, c in CONFIGS.items()}
    return {s: Size(partial(LMUFormer, c), seq=c.seq_len, longest=c.seq_len, fixed=True) for s, c in forms.items()}


def example(size: str, seq: int, batch: int, seed: int) -> Call:
    """[B, T, C]: waves of other periods and phases for each seed."""
    return (wave(batch, seq, CONFIGS[size].in_channels, seed),)


def build(sizes: dict[str, Size], size: str, source: str | None) -> nn.Module:
    """Random weights with seed 0: the authors publish no checkpoint."""
    return seeded(sizes[size].architecture)


def build_spiking(sizes: dict[str, Size], size: str, source: str | None) -> nn.Module:
    """The same, with norms that know what their inputs are like, so that neurons fire."""
    return settled(build(sizes, size, source), example(size, sizes[size].seq, 16, 100))


def calibration(size: str, seq: int, batch: int) -> list[Call]:
    """Other waves."""
    return [example(size, seq, batch, 200 + i) for i in range(8)]


def sketch(call: Call, output: Tensor) -> Bars:
    """The scores of the classes."""
    return Bars("LMUFormer: scores of classes", [str(i) for i in range(output.shape[1])], output[0])


BUILDERS: dict[str, Callable[[dict[str, Size], str, str | None], Any]] = {
    "lmuformer": build,
    "lmuformer-spiking": build_spiking,
}
for name, builder in BUILDERS.items():
    spiking = name == "lmuformer-spiking"
    sizes = sizes_of(spiking)
    register(
        Entry(
            id=name,
            title="Spiking LMUFormer" if spiking else "LMUFormer",
            paper="arXiv 2402.04882",
            task="sequence classification",
            sizes=sizes,
            build=partial(builder, sizes),
            example=example,
            err_bound=2e-2 if spiking else 6e-5,
            calibration=calibration,
            sketch=sketch,
        )
    )
