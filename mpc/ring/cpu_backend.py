"""The C++ backend: the native kernels behind the interface that every backend has."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hush.mpc.cells import Cells
from hush.mpc.errors import ShapeError
from hush.mpc.ring import _cpu
from hush.mpc.ring.blocks import LEFT, LEVEL, RIGHT
from hush.mpc.ring.cpu_steps import CpuSteps
from hush.mpc.ring.ring import Ring
from hush.mpc.ring.torch_backend import words
from hush.mpc.ring.torch_cells import VALUE

Pair = tuple[Tensor, Tensor]
_WHOLE = -1  # no role: a party's whole part
_TREE_KEYS = LEFT + RIGHT + VALUE


class CpuKernels(CpuSteps):
    """`Kernels` in C++ for one instruction set (default: the best of this CPU); other devices get the reference.

    Large products use `torch.get_num_threads()` threads. The GIL is free while a kernel runs.
    """

    name = "cpu"
    device = torch.device("cpu")
    seeds = False

    def __init__(self, isa: str | None = None) -> None:
        super().__init__(isa or _cpu.supported()[0])

    @property
    def about(self) -> str:
        """What serves, for people."""
        return f"C++, {self._native.isa}"

    def matmul(self, x: Tensor, y: Tensor, ring: Ring) -> Tensor:
        """x @ y mod 2^k, batched and broadcast."""
        if not x.is_cpu:
            return self._reference.matmul(x, y, ring)
        return self._product([x], [y], ring)

    def cross_matmul(self, x: Pair, y: Pair, ring: Ring) -> Tensor:
        """x0 @ (y0 + y1) + x1 @ y0: one product of twice the depth, which reads every operand once."""
        if not x[0].is_cpu:
            return self._reference.cross_matmul(x, y, ring)
        return self._product(x, y, ring)

    def role_matmul(self, x: Pair, y: Pair, spans: Sequence[tuple[int, int, int]], ring: Ring) -> Tensor:
        """A party's part of a replicated product in which roles rotate over the columns."""
        if not x[0].is_cpu:
            return self._reference.role_matmul(x, y, spans, ring)
        return self._product(x, y, ring, spans)

    def _product(
        self, x: Sequence[Tensor], y: Sequence[Tensor], ring: Ring, spans: Sequence[tuple[int, int, int]] = ()
    ) -> Tensor:
        columns = y[0].shape[-1]
        if x[0].shape[-1] != y[0].shape[-2]:
            raise ShapeError(f"matmul: {tuple(x[0].shape)} does not fit {tuple(y[0].shape)}")
        if y[0].dim() == 2:  # one matrix: all rows of x are one batch
            shape = (*x[0].shape[:-1], columns)
            left, right = [_rows(v) for v in x], [v.unsqueeze(0) for v in y]
        else:
            batch = np.broadcast_shapes(x[0].shape[:-2], y[0].shape[:-2])
            shape = (*batch, x[0].shape[-2], columns)
            left, right = ([_batched(v, batch) for v in side] for side in (x, y))
        left, right = _alike(left), _alike(right)
        out = torch.empty(shape, dtype=ring.dtype)
        flat = out.view(*left[0].shape[:2], columns)
        (x0, x1), (y0, y1) = _arrays(left), _arrays(right)
        threads = torch.get_num_threads()
        for role, start, stop in spans or [(_WHOLE, 0, columns)]:
            b0, b1 = y0[..., start:stop], None if y1 is None else y1[..., start:stop]
            self._native.matmul(x0, x1, b0, b1, flat.numpy()[..., start:stop], threads, role)
        return ring.settle(out)

    def cross_mul(self, x: Pair, y: Pair, ring: Ring) -> Tensor:
        """x0 * (y0 + y1) + x1 * y0, broadcast."""
        if not x[0].is_cpu:
            return self._reference.cross_mul(x, y, ring)
        shape = np.broadcast_shapes(x[0].shape, y[0].shape, (1,))
        out = torch.empty(shape, dtype=ring.dtype)
        (x0, x1), (y0, y1) = (_alike([_walkable(v.expand(shape)) for v in side]) for side in (x, y))
        self._native.cross_mul(x0.numpy(), x1.numpy(), y0.numpy(), y1.numpy(), out.numpy())
        return ring.settle(out.view(np.broadcast_shapes(x[0].shape, y[0].shape)))

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
        """1-D or 2-D convolution; the windows go straight into the product's packing."""
        if not x.is_cpu:
            return self._reference.conv(x, w, stride, padding, dilation, groups, ring)
        return self._convolution([x], [w], (stride, padding, dilation), groups, ring)

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
        """conv(x0, w0 + w1) + conv(x1, w0), as one product."""
        if not x[0].is_cpu:
            return self._reference.cross_conv(x, w, stride, padding, dilation, groups, ring)
        return self._convolution(x, w, (stride, padding, dilation), groups, ring)

    def _convolution(
        self, x: Sequence[Tensor], w: Sequence[Tensor], steps: tuple[tuple[int, ...], ...], groups: int, ring: Ring
    ) -> Tensor:
        if x[0].dim() == 3:  # 1-D: one row
            flat = self._convolution(
                [v.unsqueeze(2) for v in x],
                [v.unsqueeze(2) for v in w],
                tuple((default, *given) for default, given in zip((1, 0, 1), steps, strict=True)),
                groups,
                ring,
            )
            return flat.squeeze(2)
        (down, right), (top, left), (dy, dx) = steps
        padded = _alike([torch.nn.functional.pad(v, (left, left, top, top)) for v in x])
        size, kernel = padded[0].shape, w[0].shape
        high = (size[2] - dy * (kernel[2] - 1) - 1) // down + 1
        wide = (size[3] - dx * (kernel[3] - 1) - 1) // right + 1
        if high < 1 or wide < 1:
            raise ShapeError(f"conv: kernel {tuple(kernel[2:])} is larger than its padded input {tuple(size[2:])}")
        out = torch.empty(size[0], kernel[0], high, wide, dtype=ring.dtype)
        (x0, x1), (w0, w1) = _arrays(padded), _arrays([v.contiguous() for v in w])
        threads = torch.get_num_threads()
        self._native.conv(x0, x1, w0, w1, out.numpy(), (down, right), (dy, dx), groups, threads)
        return ring.settle(out)

    def to_planes(self, x: Tensor, planes: int, ring: Ring, shift: int = 0) -> Tensor:
        """Bit slices [planes, words]; bits at and above the ring's width, and past the last element, are 0."""
        if not x.is_cpu:
            return self._reference.to_planes(x, planes, ring, shift)
        real = max(0, min(planes, ring.bits - shift))
        make = torch.empty if real == planes else torch.zeros
        out = make(planes, words(x.numel()), dtype=torch.int64)
        if real:
            self._native.to_planes(x.reshape(-1).contiguous().numpy(), out[:real].numpy(), shift)
        return out

    def from_planes(self, planes: Tensor, numel: int, ring: Ring) -> Tensor:
        """Elements [numel] from their bit slices; planes beyond the ring's width vanish."""
        if not planes.is_cpu:
            return self._reference.from_planes(planes, numel, ring)
        out = torch.zeros(numel, dtype=ring.dtype) if planes.shape[0] == 0 else torch.empty(numel, dtype=ring.dtype)
        self._native.from_planes(_word_rows(planes[: ring.bits], numel).numpy(), out.numpy())
        return out

    def spread(self, planes: Tensor, numel: int, ring: Ring) -> Tensor:
        """[planes, numel] of 0 and 1."""
        if not planes.is_cpu:
            return self._reference.spread(planes, numel, ring)
        out = torch.empty(planes.shape[0], numel, dtype=ring.dtype)
        self._native.spread(_word_rows(planes, numel).numpy(), out.numpy())
        return out

    def at_cells(
        self, corrections: Tensor, seeds: Tensor, offsets: Tensor, cells: Cells, side: int, tables: Tensor
    ) -> Tensor:
        """A walk that meets the tables' entries on its way, where this CPU has AES instructions."""
        if not _cpu.has_trees():
            return self._reference.at_cells(corrections, seeds, offsets, cells, side, tables)
        if corrections.shape != (len(seeds), LEVEL * cells.depth + 8 * len(cells.widths)):
            raise ShapeError(f"corrections of shape {tuple(corrections.shape)} do not fit {len(seeds)} secrets")
        out = torch.empty(len(seeds), tables.shape[1], dtype=torch.int64)
        given, own, w, entries = (v.contiguous().numpy() for v in (corrections, seeds, offsets, tables))
        shape = cells.fine, cells.lowest, cells.highest
        _cpu.trees(_TREE_KEYS, given, own, w, entries, out.numpy(), shape, side)
        return out

    def turned_sums(self, codes: Tensor, turns: Tensor, row: Tensor, rows: int) -> Tensor:
        """Two runs of additions a code."""
        out = torch.zeros(rows, codes.shape[1], dtype=torch.uint8)
        given, by, whose = (v.contiguous().numpy() for v in (codes, turns, row))
        _cpu.turned_sums(given, by, whose, out.numpy())
        return out

    def __repr__(self) -> str:
        return f"CpuKernels({self._native.isa!r})"


def _rows(x: Tensor) -> Tensor:
    """[..., m, k] as one matrix [1, rows, k]: a view where strides allow."""
    return x.unsqueeze(0) if x.dim() == 2 else x.reshape(1, math.prod(x.shape[:-1]), x.shape[-1])


def _batched(x: Tensor, batch: Sequence[int]) -> Tensor:
    """[..., m, k] broadcast over `batch` as [items, m, k]: a view where strides allow."""
    matrix = x.shape[-2:]
    return x.expand(*batch, *matrix).reshape(math.prod(batch), *matrix)


def _alike(components: Sequence[Tensor]) -> list[Tensor]:
    """Both components in one layout."""
    if len(components) == 2 and components[0].stride() != components[1].stride():
        return [v.contiguous() for v in components]
    return list(components)


def _walkable(x: Tensor) -> Tensor:
    """x with an innermost stride of 0 or 1."""
    return x if x.stride(-1) in (0, 1) or x.shape[-1] < 2 else x.contiguous()


def _word_rows(planes: Tensor, numel: int) -> Tensor:
    """Planes of exactly the words that `numel` elements take, contiguous within each."""
    rows = planes[:, : words(numel)]
    if rows.shape[1] != words(numel):
        raise ShapeError(f"planes of {planes.shape[1]} words hold no {numel} elements")
    return rows if rows.stride(-1) == 1 or rows.shape[1] < 2 else rows.contiguous()


def _arrays(components: Sequence[Tensor]) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """One or two components as arrays over the same memory."""
    first = components[0].numpy()
    return first, components[1].numpy() if len(components) == 2 else None
