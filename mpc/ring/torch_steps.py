"""The local steps of truncation and selection, in plain torch operations: what the other backends do in one pass.

Operands are flat tensors [n] of ring elements, messages as they travel: whole words at a native width, else bit planes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from hush.mpc.ring.ring import Ring
from hush.mpc.ring.widths import Widths, flip

Terms = tuple[Tensor] | tuple[Tensor, Tensor]


def _signed(number: int, ring: Ring) -> int:
    """A number mod 2^64 or 2^32, as torch takes it beside tensors of the ring's storage."""
    half = 1 << (8 * ring.dtype.itemsize - 1)
    return (number + half) % (2 * half) - half


class TorchSteps:
    """Steps of `hush.mpc.ring.kernels.Kernels`, on top of a backend's bit planes."""

    @abstractmethod
    def to_planes(self, x: Tensor, planes: int, ring: Ring, shift: int = 0) -> Tensor:
        """`Kernels.to_planes`."""

    @abstractmethod
    def from_planes(self, planes: Tensor, numel: int, ring: Ring) -> Tensor:
        """`Kernels.from_planes`."""

    @abstractmethod
    def spread(self, planes: Tensor, numel: int, ring: Ring) -> Tensor:
        """`Kernels.spread`."""

    def answer(self, mine: Tensor, got: Tensor | None, low: Tensor, mask: Tensor, base: Tensor, w: Widths) -> Tensor:
        """See `Kernels.answer`."""
        c = mine if got is None else w.ring.reduce(torch.add(mine, got).add_(w.offset))
        sign = w.sign(c)
        reply = flip(low, sign).sub_(mask)
        top = w.raise_top(reply - sign.to(reply.dtype))
        base.copy_(w.out.reduce(top.add_(w.middle(c)).sub_(w.offset >> w.shift)))
        return self._message(reply, w.top)

    def correct(self, base: Tensor, message: Tensor, w: Widths) -> None:
        """See `Kernels.correct`."""
        other = message if w.top.native else self.from_planes(message, base.shape[0], w.top)
        base.copy_(w.out.reduce(base + w.raise_top(other)))

    def split(
        self, r: Terms, z: Tensor, drawn: Tensor, low: Tensor, masks: tuple[Tensor, Tensor], x2: Tensor, w: Widths
    ) -> tuple[Tensor, Tensor]:
        """See `Kernels.split`."""
        whole = w.ring.reduce(sum(r[1:], r[0]) - z)
        x2.copy_(w.out.reduce(w.raise_top(masks[0] + masks[1]).sub_(w.middle(whole)).sub_(drawn)))
        rest = w.sign(whole).to(low.dtype).add_(low).neg_()
        return self._message(rest, w.top), whole

    def narrow(self, z: Tensor, zero: tuple[Tensor, Tensor] | tuple[()], constant: int, w: Widths) -> Tensor:
        """See `Kernels.narrow`."""
        masked = (z + zero[0]).sub_(zero[1]) if zero else z
        summand = w.ring.reduce(masked + constant)
        return w.out.reduce(w.ring.shift_right(summand, w.shift))

    def blend(self, xs: Sequence[Tensor], factors: Sequence[int], constant: int, ring: Ring) -> Tensor:
        """See `Kernels.blend`."""
        total = torch.full_like(xs[0], _signed(constant, ring))
        for x, factor in zip(xs, factors, strict=True):
            total += x * _signed(factor, ring)
        return ring.settle(total)

    def deal_choice(
        self, bits: tuple[Tensor, Tensor], x: tuple[Tensor, Tensor], draws: tuple[Tensor, Tensor], ring: Ring
    ) -> tuple[Tensor, Tensor]:
        """See `Kernels.deal_choice`."""
        a = self.spread((bits[0] ^ bits[1]).unsqueeze(0), x[0].shape[0], ring)[0]
        chosen = (x[0] + x[1]).bitwise_and_(-a)
        return ring.reduce(a - draws[0]), ring.reduce(chosen - draws[1])

    def choose(
        self, c: Tensor, known: Terms, other: Tensor, dealt: tuple[Tensor, Tensor], total: Tensor, ring: Ring
    ) -> Tensor:
        """See `Kernels.choose`."""
        sign = -self.spread(c.unsqueeze(0), total.shape[0], ring)[0]
        product = dealt[1].addcmul(dealt[0], other)
        return ring.reduce(total + flip(product, sign) + (sum(known[1:], known[0]) & sign))

    def _message(self, flat: Tensor, ring: Ring) -> Tensor:
        return flat if ring.native else self.to_planes(flat, ring.bits, ring)
