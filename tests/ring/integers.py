"""Ring kernels in Python integers: what the backends must equal, written without torch's arithmetic."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from hush.mpc.ring import Ring

RINGS = [Ring(64), Ring(32), Ring(48), Ring(8), Ring(4), Ring(1)]
EXTREMES = [0, 1, -1, 2**63 - 1, -(2**63), 2**31, -(2**31) - 1, 2**32 - 1, 0x5555555555555555]

seeds = st.integers(0, 2**32 - 1)
rings = st.sampled_from(RINGS)


def elements(seed: int, ring: Ring, *shape: int) -> Tensor:
    """Elements of which about a third are extreme values, the rest uniform."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.randint(-(2**63), 2**63 - 1, shape, generator=generator)
    extreme = torch.tensor(EXTREMES)[torch.randint(len(EXTREMES), shape, generator=generator)]
    return ring.reduce(torch.where(torch.randint(3, shape, generator=generator) == 0, extreme, uniform))


def strided(x: Tensor, how: int) -> Tensor:
    """The same tensor in another memory layout: as it is, its last dimensions exchanged, or every second element."""
    if how == 1 and x.dim() > 1:
        return x.mT.contiguous().mT
    if how == 2 and x.dim() > 0:
        wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1] + 1, dtype=x.dtype)
        wide[..., 1::2] = x
        return wide[..., 1::2]
    return x


def integers(x: Tensor) -> np.ndarray:
    """The elements as Python integers, which never wrap."""
    return np.array([int(v) for v in x.reshape(-1)], dtype=object).reshape(tuple(x.shape))


def element(values: np.ndarray, ring: Ring) -> Tensor:
    """Python integers as ring elements."""
    half = 1 << (ring.bits - 1) if ring.native else 0
    flat = [(int(v) + half) % (1 << ring.bits) - half for v in np.asarray(values, dtype=object).reshape(-1)]
    return torch.tensor(flat, dtype=ring.dtype).reshape(np.shape(values))


def convolution(
    x: Tensor, w: Tensor, stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> np.ndarray:
    """The textbook sum over channels and kernel positions, for any number of spatial dimensions."""
    a, b = integers(x), integers(w)
    for axis, extent in enumerate(padding, start=2):
        side = integers(torch.zeros(*a.shape[:axis], extent, *a.shape[axis + 1 :]))
        a = np.concatenate([side, a, side], axis=axis)
    kernel, size = b.shape[2:], a.shape[2:]
    out = tuple((s - d * (k - 1) - 1) // t + 1 for s, k, t, d in zip(size, kernel, stride, dilation, strict=True))
    result = np.zeros((a.shape[0], b.shape[0], *out), dtype=object)
    per_group = b.shape[0] // groups
    for image, channel, place in product(range(a.shape[0]), range(b.shape[0]), product(*map(range, out))):
        first = channel // per_group * b.shape[1]
        window = tuple(
            slice(p * t, p * t + d * (k - 1) + 1, d) for p, t, d, k in zip(place, stride, dilation, kernel, strict=True)
        )
        seen = a[(image, slice(first, first + b.shape[1]), *window)]
        result[(image, channel, *place)] = (seen * b[channel]).sum()
    return result


def planes_of(x: Tensor, planes: int, ring: Ring, shift: int) -> Tensor:
    """Bit slices by hand."""
    values = [int(v) % (1 << ring.bits) for v in x.reshape(-1)]
    rows = [
        [
            sum(((v >> (shift + plane)) & 1) << lane for lane, v in enumerate(values[word : word + 64]))
            for word in range(0, len(values), 64)
        ]
        for plane in range(planes)
    ]
    table = np.array(rows, dtype=object).reshape(planes, -(-len(values) // 64))
    return element(table, Ring(64))
