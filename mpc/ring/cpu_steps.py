"""The local steps of truncation and selection in C++, each in one pass over its operands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from hush.mpc.ring import _cpu
from hush.mpc.ring.ring import Ring
from hush.mpc.ring.torch_backend import TorchKernels, words
from hush.mpc.ring.torch_steps import Terms
from hush.mpc.ring.widths import Widths

_MODULUS = 1 << 64


class CpuSteps:
    """Steps of `hush.mpc.ring.kernels.Kernels`; tensors of other devices go to the reference."""

    def __init__(self, isa: str) -> None:
        self._native, self._reference = _cpu.Kernels(isa), TorchKernels()

    def answer(self, mine: Tensor, got: Tensor | None, low: Tensor, mask: Tensor, base: Tensor, w: Widths) -> Tensor:
        """The reply to an opened value, and the component that it corrects."""
        if not mine.is_cpu:
            return self._reference.answer(mine, got, low, mask, base, w)
        message = _room(mine.shape[0], w.top)
        opened = None if got is None else _array(got)
        operands = _array(mine), opened, _array(low), _array(mask)
        self._native.answer(w.bits, *operands, base.numpy(), message.numpy(), None)
        return message

    def correct(self, base: Tensor, message: Tensor, w: Widths) -> None:
        """The component, corrected in place by the other reply."""
        if not base.is_cpu:
            return self._reference.correct(base, message, w)
        self._native.correct(w.bits, base.numpy(), _array(message))
        return None

    def split(
        self, r: Terms, z: Tensor, drawn: Tensor, low: Tensor, masks: tuple[Tensor, Tensor], x2: Tensor, w: Widths
    ) -> tuple[Tensor, Tensor]:
        """What the holder of the mask sends, and the mask."""
        if not z.is_cpu:
            return self._reference.split(r, z, drawn, low, masks, x2, w)
        message = _room(z.shape[0], w.top)
        whole = torch.empty(z.shape, dtype=w.ring.dtype)
        terms = _array(r[0]), _array(r[1]) if len(r) == 2 else None
        drawings = _array(drawn), _array(low), _array(masks[0]), _array(masks[1])
        self._native.split(w.bits, *terms, _array(z), *drawings, x2.numpy(), message.numpy(), whole.numpy())
        return message, whole

    def narrow(self, z: Tensor, zero: tuple[Tensor, Tensor] | tuple[()], constant: int, w: Widths) -> Tensor:
        """A masked summand, shifted into the output's ring."""
        if not z.is_cpu:
            return self._reference.narrow(z, zero, constant, w)
        out = torch.empty(z.shape, dtype=w.out.dtype)
        plus, minus = map(_array, zero) if zero else (None, None)
        self._native.narrow(w.bits, _array(z), plus, minus, constant, out.numpy())
        return out

    def blend(self, xs: Sequence[Tensor], factors: Sequence[int], constant: int, ring: Ring) -> Tensor:
        """A sum of multiples in one pass."""
        if not xs[0].is_cpu:
            return self._reference.blend(xs, factors, constant, ring)
        out = torch.empty(xs[0].shape, dtype=ring.dtype)
        units = [factor % _MODULUS for factor in factors]
        self._native.blend(ring.bits, [_array(x) for x in xs], units, constant % _MODULUS, out.numpy())
        return out

    def deal_choice(
        self, bits: tuple[Tensor, Tensor], x: tuple[Tensor, Tensor], draws: tuple[Tensor, Tensor], ring: Ring
    ) -> tuple[Tensor, Tensor]:
        """What role 0 deals for a selection."""
        if not x[0].is_cpu:
            return self._reference.deal_choice(bits, x, draws, ring)
        found = torch.empty_like(draws[0]), torch.empty_like(draws[0])
        operands = (_array(t) for t in (*bits, *x, *draws, *found))
        self._native.deal_choice(ring.bits, *operands)
        return found

    def choose(
        self, c: Tensor, known: Terms, other: Tensor, dealt: tuple[Tensor, Tensor], total: Tensor, ring: Ring
    ) -> Tensor:
        """A role's term of a selection, added to a total in place."""
        if not total.is_cpu:
            return self._reference.choose(c, known, other, dealt, total, ring)
        second = _array(known[1]) if len(known) == 2 else None
        operands = _array(c), _array(known[0]), second, _array(other), _array(dealt[0]), _array(dealt[1])
        self._native.choose(ring.bits, *operands, total.numpy())
        return total

    def keystream(self, key: bytes, nonce: bytes, nbytes: int) -> Tensor:
        """ChaCha20."""
        out = torch.empty(nbytes, dtype=torch.uint8)
        if nbytes:
            self._native.chacha20(key, nonce, out.numpy())
        return out


def _array(x: Tensor) -> NDArray[Any]:
    return (x if x.is_contiguous() else x.contiguous()).numpy()


def _room(numel: int, ring: Ring) -> Tensor:
    """An empty message of so many elements."""
    if ring.native:
        return torch.empty(numel, dtype=ring.dtype)
    return torch.empty(ring.bits, words(numel), dtype=torch.int64)
