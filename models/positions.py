"""Tables of positions: sines and cosines in turn, as of the first transformer (Vaswani et al., arXiv 1706.03762)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoids(length: int, width: int) -> Tensor:
    """[length, width]: sines at even places, cosines at odd ones, wavelengths from 2 pi to 10,000 times that."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angle = torch.arange(length).unsqueeze(1) * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
