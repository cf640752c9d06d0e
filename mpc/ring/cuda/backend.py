"""The backend `cuda`: kernels in Triton where a pass saves something, torch operations elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hush.mpc.cells import Cells
from hush.mpc.errors import ShapeError
from hush.mpc.ring import backends
from hush.mpc.ring.cuda import chacha, choices, convolve, limbs, planes, residues, rows, steps
from hush.mpc.ring.cuda.kept import Kept
from hush.mpc.ring.cuda.launch import interpreted
from hush.mpc.ring.ring import Ring
from hush.mpc.ring.seeded import expanded
from hush.mpc.ring.torch_backend import TorchKernels
from hush.mpc.ring.torch_steps import Terms
from hush.mpc.ring.widths import Widths

Pair = tuple[Tensor, Tensor]
Term = tuple[int, ...]  # which of the second operands a first one is multiplied by
_HALF, _WHOLE = 1 << 63, 1 << 64
_ALIGNED, _SHALLOW = 16, 32


class _Way(NamedTuple):
    """How products of matrices are made of small numbers."""

    split: Callable[[Tensor, int], Tensor]
    split_right: Callable[[Tensor, int], Tensor]
    product: Callable[[Tensor, Tensor, torch.dtype], Tensor]


_LIMBS = _Way(limbs.split, limbs.split_right, limbs.product)
_RESIDUES = _Way(residues.split, residues.split_right, residues.product)


class CudaKernels(TorchKernels):
    """`Kernels` on one GPU: operands lie on `device`, and so do results.

    `kept`: bytes of limbs of second operands (weights, which every inference multiplies by) that stay on the device
    beside them, see `Kept`; 0 keeps none. `products`: of matrices, by limbs, or by residues in the rings where those
    are fewer int8 products (above 2^32; 18 bytes a number in Z_2^64, where limbs take 8). Convolutions are by limbs.
    """

    name = "cuda"
    seeds = True

    def __init__(
        self, device: torch.device, *, kept: int = 0, products: Literal["limbs", "residues"] = "limbs"
    ) -> None:
        super().__init__(limbs=True)
        self._by_residues = products == "residues"
        self.device, self._limbs_of, self._host = device, Kept(kept), backends.get()

    def keep(self, most: int) -> None:
        """Keep limbs of so many bytes from now on; those used least recently go at once if there are more."""
        self._limbs_of.limit(most)

    @property
    def about(self) -> str:
        """What serves, for people."""
        where = "interpreted" if interpreted() else torch.cuda.get_device_name(self.device)
        return f"Triton, {where}"

    # ------------------------------------------------------------------ products
    def matmul(self, x: Tensor, y: Tensor, ring: Ring) -> Tensor:
        """x @ y mod 2^k, batched and broadcast."""
        return self._product([x], [y], ring, ((1,),))

    def cross_matmul(self, x: Pair, y: Pair, ring: Ring) -> Tensor:
        """x0 @ (y0 + y1) + x1 @ y0 as one product of twice the depth."""
        return self._product(x, y, ring, ((1, 1), (1, 0)))

    def role_matmul(self, x: Pair, y: Pair, spans: Sequence[tuple[int, int, int]], ring: Ring) -> Tensor:
        """See `Kernels.role_matmul`."""
        first, both, second = (1, 0), (1, 1), (0, 1)
        ways: tuple[tuple[Sequence[Tensor], tuple[Term, ...]], ...] = (
            ([x[0] + x[1]], (both,)),
            (x, (second, both)),
            (x, (second, first)),
        )
        if not all(rows.usable(_rows(x), v) for v in y):
            y = (expanded(y[0]), expanded(y[1]))  # once for all spans
        parts = [self._product(ways[role][0], y, ring, ways[role][1], slice(a, b)) for role, a, b in spans]
        return torch.cat(parts, -1)

    def _product(
        self,
        x: Sequence[Tensor],
        y: Sequence[Tensor],
        ring: Ring,
        terms: tuple[Term, ...],
        columns: slice = slice(None),
    ) -> Tensor:
        """sum_i x_i @ (sum_j terms[i][j] y_j), of some columns."""
        if x[0].shape[-1] != y[0].shape[-2]:
            raise ShapeError(f"matmul: {tuple(x[0].shape)} does not fit {tuple(y[0].shape)}")
        lead = torch.Size(np.broadcast_shapes(x[0].shape[:-2], y[0].shape[:-2])) if y[0].dim() > 2 else None
        use = (terms, ring.bits, columns.start, columns.stop)
        if lead is None and not self._limbs_of.holds(y, use):
            some = [v[..., columns] for v in y]
            if all(rows.usable(_rows(x), v) for v in some):
                return ring.settle(_few_rows(x, some, terms))
        y = [expanded(v) for v in y]
        padding = _padding(len(x) * x[0].shape[-1])
        way = _RESIDUES if self._by_residues and residues.fewer(ring.bits) else _LIMBS

        def digits() -> Tensor:
            whole = _by_columns([v[..., columns] for v in y], terms, padding)
            whole = whole.unsqueeze(0) if lead is None else _items(whole, lead)
            return way.split_right(whole.transpose(-1, -2), ring.bits)

        right = digits() if lead is not None else self._limbs_of(y, use, digits)
        if lead is None:  # one matrix: all rows are one item
            shape = tuple(x[0].shape[:-1])
            left = [v.reshape(1, _rows(x), v.shape[-1]) for v in x]
        else:
            shape, left = (*lead, x[0].shape[-2]), [_items(v, lead) for v in x]
        if padding:
            left.append(left[0].new_zeros(*left[0].shape[:-1], padding))
        whole = left[0] if len(left) == 1 else torch.cat(left, -1)
        out = way.product(way.split(whole, ring.bits), right, ring.dtype)
        return ring.settle(out.reshape(*shape, right.shape[-1]))

    def cross_mul(self, x: Pair, y: Pair, ring: Ring) -> Tensor:
        """x0 * (y0 + y1) + x1 * y0, broadcast."""
        return steps.cross_mul(x, y, ring.bits)

    # ------------------------------------------------------------------ convolutions
    def conv(
        self,
        x: Tensor,
        w: Tensor,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
        ring: Ring,
    ) -> Tensor:
        """Convolution of one to three dimensions as an implicit product; of more, as the reference makes it."""
        if not 3 <= w.dim() <= 2 + convolve.MOST_DIMENSIONS:
            return super().conv(x, w, stride, padding, dilation, groups, ring)
        return self._convolution([x], [w], ((1,),), (stride, padding, dilation), groups, ring)

    def cross_conv(
        self,
        x: Pair,
        w: Pair,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
        ring: Ring,
    ) -> Tensor:
        """conv(x0, w0 + w1) + conv(x1, w0) as one implicit product of twice the channels."""
        if not 3 <= w[0].dim() <= 2 + convolve.MOST_DIMENSIONS:
            return super().cross_conv(x, w, stride, padding, dilation, groups, ring)
        return self._convolution(x, w, ((1, 1), (1, 0)), (stride, padding, dilation), groups, ring)

    def _convolution(
        self,
        x: Sequence[Tensor],
        w: Sequence[Tensor],
        terms: tuple[Term, ...],
        steps_: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
        groups: int,
        ring: Ring,
    ) -> Tensor:
        """sum_i conv(x_i, sum_j terms[i][j] w_j)."""
        g = convolve.Geometry.of(x[0].shape, w[0].shape, steps_, groups)
        if g.kernels < convolve.FEW:
            out = convolve.direct(x, _sums(w, terms), g)
        else:
            right = self._limbs_of(
                w, ("conv", terms, ring.bits), lambda: limbs.split(convolve.depths(_sums(w, terms)), ring.bits)
            )
            out = convolve.product(limbs.split(convolve.inputs(x, g), ring.bits), right, g, ring.dtype)
        space = out.shape[-(w[0].dim() - 2) :]
        return ring.settle(out.reshape(*out.shape[:2], *space))

    # ------------------------------------------------------------------ planes
    def to_planes(self, x: Tensor, planes_: int, ring: Ring, shift: int = 0) -> Tensor:
        """Bit slices [planes, words]; 0 at and above the ring's width."""
        there = max(0, min(planes_, ring.bits - shift))
        found = planes.gather(x, there, shift)
        return found if there == planes_ else torch.cat([found, found.new_zeros(planes_ - there, found.shape[1])])

    def from_planes(self, planes_: Tensor, numel: int, ring: Ring) -> Tensor:
        """Elements [numel] from their bit slices."""
        return ring.settle(planes.scatter(planes_[: ring.bits], numel, ring.dtype))

    def spread(self, planes_: Tensor, numel: int, ring: Ring) -> Tensor:
        """[planes, numel] of 0 and 1."""
        return planes.spread(planes_, numel, ring.dtype)

    # ------------------------------------------------------------------ steps
    def answer(self, mine: Tensor, got: Tensor | None, low: Tensor, mask: Tensor, base: Tensor, w: Widths) -> Tensor:
        """See `Kernels.answer`."""
        return self._message(steps.answer(mine, got, low, mask, base, w), w.top)

    def correct(self, base: Tensor, message: Tensor, w: Widths) -> None:
        """See `Kernels.correct`."""
        steps.correct(base, message if w.top.native else self.from_planes(message, base.shape[0], w.top), w)

    def split(
        self, r: Terms, z: Tensor, drawn: Tensor, low: Tensor, masks: Pair, x2: Tensor, w: Widths
    ) -> tuple[Tensor, Tensor]:
        """See `Kernels.split`."""
        rest, whole = steps.split(r, z, drawn, low, masks, x2, w)
        return self._message(rest, w.top), whole

    def narrow(self, z: Tensor, zero: Pair | tuple[()], constant: int, w: Widths) -> Tensor:
        """See `Kernels.narrow`."""
        return steps.narrow(z, zero, (constant + _HALF) % _WHOLE - _HALF, w)

    # ------------------------------------------------------------------ selections
    def blend(self, xs: Sequence[Tensor], factors: Sequence[int], constant: int, ring: Ring) -> Tensor:
        """See `Kernels.blend`."""
        return choices.blend(xs, factors, constant, ring.bits)

    def deal_choice(self, bits: Pair, x: Pair, draws: Pair, ring: Ring) -> Pair:
        """See `Kernels.deal_choice`."""
        return choices.deal_choice(bits, x, draws, ring.bits)

    def choose(self, c: Tensor, known: Terms, other: Tensor, dealt: Pair, total: Tensor, ring: Ring) -> Tensor:
        """See `Kernels.choose`."""
        return choices.choose(c, known, other, dealt, total, ring.bits)

    # ------------------------------------------------------------------ randomness, and what stays on the CPU
    def keystream(self, key: bytes, nonce: bytes, nbytes: int) -> Tensor:
        """ChaCha20, made on the device."""
        return chacha.keystream(key, nonce, nbytes, self.device)

    def at_cells(
        self, corrections: Tensor, seeds: Tensor, offsets: Tensor, cells: Cells, side: int, tables: Tensor
    ) -> Tensor:
        """By the CPU's kernels: trees are of few numbers, and AES is what CPUs have instructions for."""
        return self._host.at_cells(corrections.cpu(), seeds.cpu(), offsets.cpu(), cells, side, tables.cpu())

    def turned_sums(self, codes: Tensor, turns: Tensor, row: Tensor, rows: int) -> Tensor:
        """By the CPU's kernels."""
        return self._host.turned_sums(codes.cpu(), turns.cpu(), row.cpu(), rows)

    def __repr__(self) -> str:
        return f"CudaKernels({str(self.device)!r})"


def _items(x: Tensor, lead: torch.Size) -> Tensor:
    """[items, m, k]: matrices broadcast over leading dimensions."""
    return x.expand(*lead, *x.shape[-2:]).reshape(lead.numel(), *x.shape[-2:])


def _padding(depth: int) -> int:
    """Zeros to add to a depth: rows of bytes are copied 16 at a time where they begin at multiples of 16, else one by
    one. Shallow products are as they are."""
    return -depth % _ALIGNED if depth > _SHALLOW else 0


def _by_columns(y: Sequence[Tensor], terms: tuple[Term, ...], padding: int = 0) -> Tensor:
    """[..., columns, depth]: for each left operand the sum of its terms, side by side, and zeros, made in one pass.
    What is one operand stays where it lies."""
    turned = [v.transpose(-1, -2) for v in y]
    if terms == ((1,),) and not padding:
        return turned[0]
    *lead, depth = turned[0].shape
    out = turned[0].new_empty(*lead, len(terms) * depth + padding)
    out[..., len(terms) * depth :].zero_()
    for i, row in enumerate(terms):
        part = out[..., i * depth : (i + 1) * depth]
        first, *rest = (v for v, factor in zip(turned, row, strict=True) if factor)
        if rest:
            torch.add(first, rest[0], out=part)
        else:
            part.copy_(first)
        for more in rest[1:]:
            part.add_(more)
    return out


def _sums(y: Sequence[Tensor], terms: tuple[Term, ...]) -> list[Tensor]:
    """For each left operand the sum of its terms."""
    parts = []
    for row in terms:
        first, *rest = (v for v, factor in zip(y, row, strict=True) if factor)
        parts.append(sum(rest, first))
    return parts


def _rows(x: Sequence[Tensor]) -> int:
    """Of the first operands of a product with one matrix."""
    return x[0].shape[:-1].numel()


def _few_rows(x: Sequence[Tensor], y: Sequence[Tensor], terms: tuple[Term, ...]) -> Tensor:
    """sum_j (sum_i terms[i][j] x_i) @ y_j: each second operand is read once, and no sum of them is made."""
    total: Tensor | None = None
    for j, right in enumerate(y):
        first, *more = (v for v, row in zip(x, terms, strict=True) if row[j])
        left = sum(more, first).reshape(_rows(x), -1)
        made = rows.product(left, right)
        total = made if total is None else total.add_(made)
    assert total is not None
    return total.reshape(*x[0].shape[:-1], y[0].shape[-1])
