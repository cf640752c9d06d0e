"""LTSF-Linear: Zeng et al., "Are Transformers Effective for Time Series Forecasting?", AAAI 2023, arXiv 2205.13504.

One linear layer over time, shared by all variates: Linear; NLinear, which takes the last value away before and adds it
back after; DLinear, which forecasts trend and remainder apart. Checked against the official code
(cure-lab/LTSF-Linear): the moving average of 25 steps with the first and last value repeated, the `individual` flag
(a layer a variate), and the order of dimensions [batch, time, variate]. The code's optional initialisation by 1/L is a
comment there and a flag here, `averaging`.

Secret: the series, and with secret weights the layers. Public: lengths and the moving average's window. Products of
matrices are all there is, so a forecast is exact to the fixed point: the baseline of accuracy of this collection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hush.models.initial import seeded
from hush.models.registry import Call, Entry, Size, register
from hush.models.series import wave
from hush.models.sketch import Curves, forecast


@dataclass(frozen=True, slots=True)
class LTSFConfig:
    """Steps seen, steps forecast, variates."""

    seq_len: int = 336
    pred_len: int = 96
    channels: int = 1
    individual: bool = False
    kernel_size: int = 25
    averaging: bool = False


class Layers(nn.Module):
    """A linear layer over time for all variates, or one for each."""

    def __init__(self, c: LTSFConfig) -> None:
        super().__init__()
        self.individual = c.individual
        self.linear = nn.ModuleList(nn.Linear(c.seq_len, c.pred_len) for _ in range(c.channels if c.individual else 1))
        if c.averaging:
            for layer in self.linear:
                assert isinstance(layer, nn.Linear)
                nn.init.constant_(layer.weight, 1.0 / c.seq_len)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, L] -> [B, C, H]."""
        if not self.individual:
            shared: Tensor = self.linear[0](x)
            return shared
        return torch.stack([layer(x[:, i]) for i, layer in enumerate(self.linear)], 1)


class Linear(nn.Module):
    """One layer, and nothing else."""

    def __init__(self, c: LTSFConfig) -> None:
        super().__init__()
        self.Linear = Layers(c)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, C] -> [B, H, C]."""
        ahead: Tensor = self.Linear(x.transpose(1, 2))
        return ahead.transpose(1, 2)


class NLinear(nn.Module):
    """The series less its last value, which is added again: for a level that shifts."""

    def __init__(self, c: LTSFConfig) -> None:
        super().__init__()
        self.Linear = Layers(c)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, C] -> [B, H, C]."""
        last = x[:, -1:].detach()
        ahead: Tensor = self.Linear((x - last).transpose(1, 2))
        return ahead.transpose(1, 2) + last


class DLinear(nn.Module):
    """Trend, a moving average, and what remains: a layer for each."""

    def __init__(self, c: LTSFConfig) -> None:
        super().__init__()
        self.kernel = c.kernel_size
        self.Linear_Seasonal, self.Linear_Trend = Layers(c), Layers(c)

    def trend(self, x: Tensor) -> Tensor:
        """[B, C, L] -> its moving average, the ends repeated."""
        reach = (self.kernel - 1) // 2
        padded = torch.cat([x[..., :1].expand(-1, -1, reach), x, x[..., -1:].expand(-1, -1, reach)], -1)
        return F.avg_pool1d(padded, self.kernel, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, C] -> [B, H, C]."""
        series = x.transpose(1, 2)
        trend = self.trend(series)
        ahead: Tensor = self.Linear_Seasonal(series - trend) + self.Linear_Trend(trend)
        return ahead.transpose(1, 2)


PAPER = LTSFConfig()
TINY = replace(PAPER, seq_len=48, pred_len=12, channels=3, kernel_size=9)
NETWORKS: dict[str, Callable[[LTSFConfig], nn.Module]] = {"linear": Linear, "nlinear": NLinear, "dlinear": DLinear}


def example(c: dict[str, LTSFConfig], size: str, seq: int, batch: int, seed: int) -> Call:
    """[B, L, C]: waves of other periods and phases for each seed."""
    return (wave(batch, seq, c[size].channels, seed),)


def sketch(call: Call, output: Tensor) -> Curves:
    """The first variate with its forecast."""
    return forecast("LTSF-Linear: a series and its forecast", call[0][0, :, 0], output[0, :, 0])


CONFIGS = {"tiny": TINY, "paper": PAPER}
for name, network in NETWORKS.items():
    sizes = {s: Size(partial(network, c), seq=c.seq_len, longest=c.seq_len, fixed=True) for s, c in CONFIGS.items()}
    register(
        Entry(
            id=f"ltsf-{name}",
            title={"linear": "Linear", "nlinear": "NLinear", "dlinear": "DLinear"}[name] + " of LTSF-Linear",
            paper="arXiv 2205.13504",
            task="time series",
            sizes=sizes,
            build=lambda size, source, sizes=sizes: seeded(sizes[size].architecture),  # type: ignore[misc]
            example=partial(example, CONFIGS),
            err_bound=2e-4,
            sketch=sketch,
        )
    )
