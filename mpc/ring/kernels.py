"""The interface of a kernel backend: exact ring arithmetic on tensors, interchangeable bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from hush.mpc.cells import Cells
from hush.mpc.ring.ring import Ring
from hush.mpc.ring.torch_steps import Terms
from hush.mpc.ring.widths import Widths


class Kernels(Protocol):
    """Ring kernels of one backend. Inputs are tensors in the ring's storage; results are reduced.

    Bit planes are int64 tensors [planes, ceil(n/64)]: element e of the flattened input is bit e%64 of word e//64.
    """

    name: str
    device: torch.device
    """Where operands lie, and results."""
    seeds: bool
    """Whether second operands of products of matrices may be `hush.mpc.ring.seeded.Seeded`."""

    def matmul(self, x: Tensor, y: Tensor, ring: Ring) -> Tensor:
        """x @ y mod 2^k; batched and broadcast as torch.matmul, both at least 2-D."""

    def cross_matmul(self, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], ring: Ring) -> Tensor:
        """x0 @ (y0 + y1) + x1 @ y0: a party's part of a replicated product."""

    def role_matmul(
        self, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], spans: Sequence[tuple[int, int, int]], ring: Ring
    ) -> Tensor:
        """A party's part of a replicated product where, for each (role, start, stop) of `spans`, it plays a role on the
        columns start..stop: role 0 has (x0 + x1) @ (y0 + y1), role 1 x1 @ (y0 + y1) + x0 @ y1 and role 2 x0 @ y1 +
        x1 @ y0. Together they make the product with five products of matrices, where `cross_matmul` takes six."""

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

    def at_cells(
        self, corrections: Tensor, seeds: Tensor, offsets: Tensor, cells: Cells, side: int, tables: Tensor
    ) -> Tensor:
        """int64 [n, T]: a side's shares, in Z_2^64, of the entries of tables [count, T] at the cells that n secrets lie
        in (`protocols.replicated.prefix`), from corrections uint8 [n, bytes], the side's seeds int64 [n, 2] and the
        offsets int64 [n]. On the CPU."""

    def turned_sums(self, codes: Tensor, turns: Tensor, row: Tensor, rows: int) -> Tensor:
        """uint8 [rows, B] mod 2^8: the sum over each row of codes uint8 [N, B], each turned by turns int64 [N], so that
        its entry v comes to lie at v + turn mod B, a power of two; `row` int64 [N] says whose code each is. On the CPU.
        """

    def keystream(self, key: bytes, nonce: bytes, nbytes: int) -> Tensor:
        """uint8 [nbytes]: ChaCha20 (RFC 8439) of a 32-byte key and a 12-byte nonce, counter from 0."""

    # -------------------------------------------------------------- steps of protocols, flat [n], see torch_steps
    def answer(self, mine: Tensor, got: Tensor | None, low: Tensor, mask: Tensor, base: Tensor, w: Widths) -> Tensor:
        """The message p = (1 - 2 c_msb) low - mask mod 2^e for c = mine + got + 2^(k-2), or c = mine; `base` becomes
        floor(c mod 2^(k-1) / 2^f) + (c_msb + p) 2^h - 2^(k-2-f) mod 2^k'."""

    def correct(self, base: Tensor, message: Tensor, w: Widths) -> None:
        """base + 2^h p mod 2^k' for a received p, written to `base`."""

    def split(
        self, r: Terms, z: Tensor, drawn: Tensor, low: Tensor, masks: tuple[Tensor, Tensor], x2: Tensor, w: Widths
    ) -> tuple[Tensor, Tensor]:
        """(message, r') for r' = sum(r) - z = r_msb 2^(k-1) + r_hi 2^f + ...; the message is r_msb - low mod 2^e, x2
        becomes (a + b) 2^h - r_hi - drawn mod 2^k' with (a, b) = masks."""

    def narrow(self, z: Tensor, zero: tuple[Tensor, Tensor] | tuple[()], constant: int, w: Widths) -> Tensor:
        """floor((z + constant mod 2^k) / 2^f) mod 2^k', z with a share of zero (plus, minus) added, if there is one."""

    def blend(self, xs: Sequence[Tensor], factors: Sequence[int], constant: int, ring: Ring) -> Tensor:
        """sum_i factors[i] xs[i] + constant mod 2^k, for one to four operands."""

    def deal_choice(
        self, bits: tuple[Tensor, Tensor], x: tuple[Tensor, Tensor], draws: tuple[Tensor, Tensor], ring: Ring
    ) -> tuple[Tensor, Tensor]:
        """(a - draws[0], a (x0 + x1) - draws[1]) for the bits a = b0 ^ b1, int64 [words]."""

    def choose(
        self, c: Tensor, known: Terms, other: Tensor, dealt: tuple[Tensor, Tensor], total: Tensor, ring: Ring
    ) -> Tensor:
        """total + c sum(known) + (1 - 2c) (d + a other) for the bits c, int64 [words], and (a, d) = dealt; may
        overwrite `total`."""
