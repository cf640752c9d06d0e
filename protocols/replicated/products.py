"""Products: one local product per party, then one truncation (or a resharing, where nothing is truncated).

x y = sum over i of z_i with z_i = x_i (y_i + y_{i+1}) + x_{i+1} y_i, all of it known to party i (Araki et al., CCS
2016). Truncation then works on the z_i directly: see `truncate`. Public factors are in `public`.

Matrices: the nine terms x_i y_j are as well (x_0 + x_1)(y_0 + y_1), known to party 0, x_2 (y_1 + y_2) + x_1 y_2, known
to party 1, and x_2 y_0 + x_0 y_2, known to party 2: five products of matrices where the above takes six. (Four do not
serve: that would take two numbers mod 2 with product 1 and sum 1.) The roles rotate over the columns. What a party
holds of z is different, but it is masked alike before anybody sees it.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from hush.mpc.protocol import ConvShape
from hush.mpc.ring import Ring
from hush.mpc.ring.kernels import Kernels
from hush.mpc.ring.widths import Widths
from hush.mpc.secret import Shared
from hush.mpc.step import Step
from hush.protocols.replicated import truncate
from hush.protocols.replicated.linear import product_shape, rescale
from hush.protocols.replicated.party import Party

_TILE = 32  # columns of a register tile, the widest
_ROTATE_MIN = 3 * _TILE  # columns that pay for cutting a product


def widths(ring: Ring, product: int, frac: int, out: Ring) -> Widths:
    """The truncation of a product with `product` fraction bits to `frac`; none where `frac` is finer."""
    return Widths(ring, out, max(product - frac, 0))


def matrix_products(columns: int) -> int:
    """How many products of matrices the parties compute for one of so many columns, all three together."""
    return 6 if columns < _ROTATE_MIN else 5


def operands(x: Shared, y: Shared) -> None:
    """Refuse operands of different rings."""
    if x.ring != y.ring:
        raise ValueError(
            f"product of rings 2^{x.ring.bits} and 2^{y.ring.bits}: truncate one to the other's ring first"
        )


def _pair(x: Shared) -> tuple[Tensor, Tensor]:
    return x.parts[0], x.parts[1]


def settle(party: Party, z: Tensor, ring: Ring, product: int, frac: int, out: Ring) -> Step[Shared]:
    """Local products z_i with `product` fraction bits brought to `frac` in `out`; exact where `frac` is not coarser."""
    w = widths(ring, product, frac, out)
    parts = yield from truncate.product(party, z, w)
    return rescale(Shared(parts, product - w.shift, out), frac)


def mul(party: Party, x: Shared, y: Shared, frac: int, out: Ring) -> Step[Shared]:
    """x * y elementwise, broadcast. Rounds, bits, error, leakage: `truncate.product`."""
    operands(x, y)
    z = party.kernels.cross_mul(_pair(x), _pair(y), x.ring)
    return (yield from settle(party, z, x.ring, x.frac + y.frac, frac, out))


def matmul(party: Party, x: Shared, y: Shared, frac: int, out: Ring) -> Step[Shared]:
    """x @ y, batched and broadcast as torch.matmul; messages per output element: `truncate.product`."""
    return (yield from settle(party, local_product(party, x, y), x.ring, x.frac + y.frac, frac, out))


def local_product(party: Party, x: Shared, y: Shared) -> Tensor:
    """This party's part of x @ y."""
    operands(x, y)
    product_shape(x.shape, y.shape)
    columns = y.shape[-1]
    if columns < _ROTATE_MIN:
        return party.kernels.cross_matmul(_pair(x), _pair(y), x.ring)
    edges = (0, *(columns * i // 3 // _TILE * _TILE for i in (1, 2)), columns)
    spans = [(party.role(turn), *span) for turn, span in enumerate(pairwise(edges))]
    return party.kernels.role_matmul(_pair(x), _pair(y), spans, x.ring)


def matmul_add(party: Party, x: Shared, matrix: Shared, y: Shared, factor: Shared, frac: int) -> Step[Shared]:
    """x @ matrix + y * factor: the local products are added before the one truncation, so the second costs no message.

    Per output element: `truncate.product`.
    """
    operands(y, factor)
    same_terms(x.frac + matrix.frac, y.frac + factor.frac, x.ring == y.ring)
    z = local_product(party, x, matrix)
    z = x.ring.settle(z.add_(party.kernels.cross_mul(_pair(y), _pair(factor), y.ring)))
    return (yield from settle(party, z, x.ring, x.frac + matrix.frac, frac, x.ring))


def same_terms(first: int, second: int, alike: bool) -> None:
    """Refuse products of different scales or rings as terms of one sum."""
    if first != second or not alike:
        raise ValueError(f"a sum of products with {first} and {second} fraction bits: they take one ring and one scale")


def convolve(kernels: Kernels, x: Tensor, w: Tensor, geometry: ConvShape, ring: Ring) -> Tensor:
    """The local convolution of one component."""
    return kernels.conv(x, w, geometry.stride, geometry.padding, geometry.dilation, geometry.groups, ring)


def conv(party: Party, x: Shared, w: Shared, geometry: ConvShape, frac: int) -> Step[Shared]:
    """Convolution; messages per output element: `truncate.product`."""
    operands(x, w)
    (x0, x1), (w0, w1), kernels = _pair(x), _pair(w), party.kernels
    left = convolve(kernels, x0, x.ring.reduce(w0 + w1), geometry, x.ring)
    z = x.ring.reduce(left.add_(convolve(kernels, x1, w0, geometry, x.ring)))
    return (yield from settle(party, z, x.ring, x.frac + w.frac, frac, x.ring))
