"""The C++ kernels (native/module.cpp). Arrays are int64 or int32 and are not copied; `out` is written.

ValueError: operands that do not fit each other, or an instruction set that this CPU lacks.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.signedinteger[Any]]

def supported() -> list[str]:
    """The instruction sets of this CPU that have kernels, best first, of: avx512, avx2, portable."""

def has_trees() -> bool:
    """Whether this CPU has the AES instructions that `trees` takes."""

def trees(
    keys: bytes,
    corrections: NDArray[np.uint8],
    seeds: Ints,
    offsets: Ints,
    tables: Ints,
    out: Ints,
    shape: tuple[int, int, int],
    side: int,
) -> None:
    """out [n, T] = shares of a side times the tables (`hush.mpc.ring.torch_cells`); shape: fine, lowest, highest."""

def turned_sums(codes: NDArray[np.uint8], turns: Ints, row: Ints, out: NDArray[np.uint8]) -> None:
    """out [rows, B] += codes [N, B], each turned and added to its row."""

class Kernels:
    """The kernels of one instruction set."""

    def __init__(self, isa: str) -> None: ...
    @property
    def isa(self) -> str: ...
    def matmul(
        self, x0: Ints, x1: Ints | None, y0: Ints, y1: Ints | None, out: Ints, threads: int, role: int = -1
    ) -> None:
        """out = x0 @ y0, or x0 @ (y0 + y1) + x1 @ y0, or what a role does of it (`Kernels.role_matmul`);
        [batch, m, k] and [batch, k, n] of any strides."""

    def conv(
        self,
        x0: Ints,
        x1: Ints | None,
        w0: Ints,
        w1: Ints | None,
        out: Ints,
        stride: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
        threads: int,
    ) -> None:
        """Convolution of a padded x [n, c, h, w] with w [o, c/groups, kh, kw]; pairs as in matmul."""

    def cross_mul(self, x0: Ints, x1: Ints, y0: Ints, y1: Ints, out: Ints) -> None:
        """out = x0 * (y0 + y1) + x1 * y0; one shape, innermost strides 0 or 1."""

    def to_planes(self, elements: Ints, out: Ints, shift: int) -> None:
        """out [count, words] = bits shift .. shift + count - 1 of elements [n]."""

    def from_planes(self, planes: Ints, out: Ints) -> None:
        """out [n] = the numbers whose bits are planes [count, words]."""

    def spread(self, planes: Ints, out: Ints) -> None:
        """out [count, n] = every bit as 0 or 1."""
    def answer(
        self,
        widths: tuple[int, int, int],
        mine: Ints,
        got: Ints | None,
        low: Ints,
        mask: Ints,
        base: Ints,
        message: Ints,
        masked: Ints | None,
    ) -> None: ...
    def correct(self, widths: tuple[int, int, int], base: Ints, message: Ints) -> None: ...
    def split(
        self,
        widths: tuple[int, int, int],
        mine: Ints,
        got: Ints | None,
        z: Ints,
        drawn: Ints,
        low: Ints,
        mask: Ints,
        other: Ints,
        base: Ints,
        message: Ints,
        masked: Ints | None,
    ) -> None: ...
    def narrow(
        self,
        widths: tuple[int, int, int],
        z: Ints,
        plus: Ints | None,
        minus: Ints | None,
        constant: int,
        out: Ints,
    ) -> None: ...
    def blend(self, bits: int, xs: list[Ints], factors: list[int], constant: int, out: Ints) -> None: ...
    def deal_choice(
        self,
        bits: int,
        b0: Ints,
        b1: Ints,
        x0: Ints,
        x1: Ints,
        a: Ints,
        d: Ints,
        out: Ints,
        second: Ints,
    ) -> None: ...
    def choose(
        self,
        bits: int,
        c: Ints,
        x0: Ints,
        x1: Ints | None,
        other: Ints,
        a: Ints,
        d: Ints,
        out: Ints,
    ) -> None: ...
    def chacha20(self, key: bytes, nonce: bytes, out: NDArray[np.uint8]) -> None: ...
