"""The reference backend: every kernel in plain torch operations, the living definition of the others.

Works on any device. CUDA has no integer matmul in torch, so there (and wherever `limbs` is asked for) products go
through 16-bit limbs in float64, which is exact as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from torch import Tensor

from hush.mpc.cells import Cells
from hush.mpc.ring import torch_cells
from hush.mpc.ring.ring import RING64, Ring
from hush.mpc.ring.torch_steps import TorchSteps

WORD = 64
_LIMB = 16
_CELL_SHARES = 1 << 21  # that are there at a time
_TURNED = 1 << 20
_EXACT_K = 1 << 20  # 2^20 products of two 16-bit limbs stay below 2^53


def words(numel: int) -> int:
    """Words of a bit plane over `numel` elements."""
    return -(-numel // WORD)


def windows(
    x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...]
) -> Tensor:
    """Sliding windows of x [N, C, *space] as a view: [N, C, *out, *kernel]."""
    sides = [side for extent in reversed(padding) for side in (extent, extent)]
    x = torch.nn.functional.pad(x, sides)
    for dim, (size, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True), start=2):
        x = x.unfold(dim, (size - 1) * gap + 1, step)[..., ::gap]
    return x


def _limb_matmul(x: Tensor, y: Tensor) -> Tensor:
    """x @ y mod 2^64 through float64: limbs of 16 bits, products of limbs i, j with i + j < 4."""
    total: Tensor | None = None
    limbs = [
        [(v >> (_LIMB * i)) & 0xFFFF for i in range(WORD // _LIMB)] for v in (x.to(torch.int64), y.to(torch.int64))
    ]
    for start in range(0, max(x.shape[-1], 1), _EXACT_K):
        part = slice(start, start + _EXACT_K)
        for i, a in enumerate(limbs[0]):
            for j, b in enumerate(limbs[1][: WORD // _LIMB - i]):
                product = torch.matmul(a[..., part].double(), b[..., part, :].double()).to(torch.int64)
                product = product << (_LIMB * (i + j))
                total = product if total is None else total + product
    assert total is not None
    return total


class TorchKernels(TorchSteps):
    """`Kernels` in plain torch."""

    name = "torch"
    device = torch.device("cpu")
    seeds = False

    def __init__(self, *, limbs: bool = False) -> None:
        self._limbs = limbs

    def matmul(self, x: Tensor, y: Tensor, ring: Ring) -> Tensor:
        """x @ y mod 2^k, batched and broadcast."""
        if self._limbs or x.device.type == "cuda":
            return ring.reduce(_limb_matmul(x, y).to(ring.dtype))
        return ring.reduce(torch.matmul(x, y))

    def cross_matmul(self, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], ring: Ring) -> Tensor:
        """x0 @ (y0 + y1) + x1 @ y0."""
        return ring.reduce(self.matmul(x[0], y[0] + y[1], ring) + self.matmul(x[1], y[0], ring))

    def role_matmul(
        self, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], spans: Sequence[tuple[int, int, int]], ring: Ring
    ) -> Tensor:
        """See `Kernels.role_matmul`."""
        parts = []
        for role, start, stop in spans:
            y0, y1 = y[0][..., start:stop], y[1][..., start:stop]
            if role == 0:
                parts.append(self.matmul(x[0] + x[1], y0 + y1, ring))
            else:
                left = y0 + y1 if role == 1 else y0
                parts.append(ring.reduce(self.matmul(x[1], left, ring) + self.matmul(x[0], y1, ring)))
        return torch.cat(parts, -1)

    def cross_mul(self, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], ring: Ring) -> Tensor:
        """x0 * (y0 + y1) + x1 * y0."""
        return ring.reduce(x[0] * (y[0] + y[1]) + x[1] * y[0])

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
        """Convolution as a product of the kernel with the unfolded input."""
        seen = windows(x, tuple(w.shape[2:]), stride, padding, dilation)
        space = w.dim() - 2
        out = seen.shape[2 : 2 + space]
        seen = seen.reshape(x.shape[0], groups, w.shape[1], *seen.shape[2:])  # [N, G, C/G, *out, *kernel]
        seen = seen.movedim(tuple(range(3, 3 + space)), tuple(range(-space, 0)))  # [N, G, C/G, *kernel, *out]
        flat = seen.flatten(2, 2 + space).flatten(3)
        kernel = w.reshape(groups, w.shape[0] // groups, -1)
        return self.matmul(kernel, flat, ring).reshape(x.shape[0], w.shape[0], *out)

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
        """conv(x0, w0 + w1) + conv(x1, w0)."""
        first = self.conv(x[0], w[0] + w[1], stride, padding, dilation, groups, ring)
        return ring.reduce(first + self.conv(x[1], w[0], stride, padding, dilation, groups, ring))

    def to_planes(self, x: Tensor, planes: int, ring: Ring, shift: int = 0) -> Tensor:
        """Bit slices [planes, words]; bits at and above the ring's width, and past the last element, are 0."""
        flat = torch.nn.functional.pad(x.reshape(-1).to(torch.int64), (0, -x.numel() % WORD)).view(-1, WORD)
        lane = torch.arange(WORD, device=x.device)
        out = torch.zeros(planes, flat.shape[0], dtype=torch.int64, device=x.device)
        for plane in range(min(planes, ring.bits - shift)):
            out[plane] = (((flat >> (shift + plane)) & 1) << lane).sum(-1)
        return out

    def from_planes(self, planes: Tensor, numel: int, ring: Ring) -> Tensor:
        """Elements [numel] from their bit slices; planes beyond the ring's width vanish."""
        lane = torch.arange(WORD, device=planes.device)
        out = torch.zeros(planes.shape[1], WORD, dtype=torch.int64, device=planes.device)
        for position, plane in enumerate(planes[: ring.bits]):
            out += ((plane.unsqueeze(-1) >> lane) & 1) << position
        return ring.reduce(out.view(-1)[:numel].to(ring.dtype))

    def spread(self, planes: Tensor, numel: int, ring: Ring) -> Tensor:
        """[planes, numel] of 0 and 1."""
        lane = torch.arange(WORD, device=planes.device)
        bits = (planes.unsqueeze(-1) >> lane) & 1
        return bits.flatten(1)[:, :numel].to(ring.dtype)

    def at_cells(
        self, corrections: Tensor, seeds: Tensor, offsets: Tensor, cells: Cells, side: int, tables: Tensor
    ) -> Tensor:
        """`torch_cells.expand`, then a product with the tables; some secrets at a time."""
        each, found = max(1, _CELL_SHARES // cells.count), [tables.new_empty(0, tables.shape[1])]
        for start in range(0, seeds.shape[0], each):
            cut = slice(start, start + each)
            shares = torch_cells.expand(corrections[cut], seeds[cut], offsets[cut], cells, side)
            found.append(self.matmul(shares, tables, RING64))
        return torch.cat(found)

    def turned_sums(self, codes: Tensor, turns: Tensor, row: Tensor, rows: int) -> Tensor:
        """Some codes at a time."""
        bins = codes.shape[1]
        out, each = codes.new_zeros(rows, bins), max(1, _TURNED // bins)
        for start in range(0, codes.shape[0], each):
            cut = slice(start, start + each)
            place = (torch.arange(bins) - turns[cut, None]) & (bins - 1)
            out.index_add_(0, row[cut], codes[cut].gather(1, place))
        return out

    def keystream(self, key: bytes, nonce: bytes, nbytes: int) -> Tensor:
        """ChaCha20 by OpenSSL."""
        out = torch.zeros(nbytes, dtype=torch.uint8)
        if nbytes:
            view = out.numpy().data
            Cipher(algorithms.ChaCha20(key, b"\0\0\0\0" + nonce), mode=None).encryptor().update_into(view, view)
        return out

    def __repr__(self) -> str:
        return "TorchKernels()"
