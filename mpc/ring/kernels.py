"""The interface of a kernel backend: exact ring arithmetic on tensors, interchangeable bit for bit."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from hush.mpc.ring.ring import Ring


class Kernels(Protocol):
    """Ring kernels of one backend. Inputs are tensors in the ring's storage; results are reduced.

    Bit planes are int64 tensors [planes, ceil(n/64)]: element e of the flattened input is bit e%64 of word e//64.
    """

    name: str

    def matmul(self, x: Tensor, y: Tensor, ring: Ring) -> Tensor:
        """x @ y mod 2^k; batched and broadcast as torch.matmul, both at least 2-D."""

    def cross_matmul(self, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], ring: Ring) -> Tensor:
        """x0 @ (y0 + y1) + x1 @ y0: a party's part of a replicated product."""

    def cross_mul(self, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], ring: Ring) -> Tensor:
        """x0 * (y0 + y1) + x1 * y0, elementwise and broadcast."""

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
        """1-D or 2-D convolution: x [N, C, *space], w [O, C/groups, *kernel]."""

    def cross_conv(
        self,
        x: tuple[Tensor, Tensor],
        w: tuple[Tensor, Tensor],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
        ring: Ring,
    ) -> Tensor:
        """conv(x0, w0 + w1) + conv(x1, w0): a party's part of a replicated convolution."""

    def to_planes(self, x: Tensor, planes: int, ring: Ring, shift: int = 0) -> Tensor:
        """Bits shift .. shift+planes-1 of every element (as an unsigned ring element), bit-sliced."""

    def from_planes(self, planes: Tensor, numel: int, ring: Ring) -> Tensor:
        """[numel]: the elements whose bit j is plane j (sum of 2^j bit_j mod 2^k)."""

    def spread(self, planes: Tensor, numel: int, ring: Ring) -> Tensor:
        """[planes, numel]: every bit as a ring element 0 or 1."""
