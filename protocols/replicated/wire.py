"""How elements travel: whole words at the native widths, bit planes at every other width, so that no bit is padding
beyond the last word of a plane and every size is public."""

from __future__ import annotations

import torch
from torch import Tensor

from hush.mpc.ring import Ring
from hush.mpc.ring.kernels import Kernels
from hush.mpc.secret import words
from hush.mpc.step import Spec


def pack(kernels: Kernels, flat: Tensor, ring: Ring) -> Tensor:
    """A message that carries ring elements [n]: themselves, or their `ring.bits` planes."""
    return flat if ring.native else kernels.to_planes(flat, ring.bits, ring)


def unpack(kernels: Kernels, message: Tensor, numel: int, ring: Ring) -> Tensor:
    """The elements [n] of a message."""
    return message if ring.native else kernels.from_planes(message, numel, ring)


def spec(numel: int, ring: Ring) -> Spec:
    """What the receiver of such a message awaits."""
    if ring.native:
        return Spec((numel,), ring.dtype)
    return Spec((ring.bits, words(numel)), torch.int64)


def size(numel: int, ring: Ring) -> int:
    """Bytes of such a message."""
    return spec(numel, ring).nbytes
