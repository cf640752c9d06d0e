"""Products with public reals: linear in the components, so only the truncation exchanges anything.

Each party evaluates only what its role in the truncation needs (`fused.Piece`): role 0 the product of x0 + x1, role 2
that of x2, role 1 none, on its slice. The cost depends on shapes and scales, never on the public values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hush.mpc.beside import beside
from hush.mpc.fixed_point import encode
from hush.mpc.protocol import ConvShape
from hush.mpc.ring import Ring
from hush.mpc.ring.widths import Widths
from hush.mpc.secret import Shared
from hush.mpc.step import Step
from hush.protocols.replicated import truncate
from hush.protocols.replicated.linear import add_at_zero, broadcast, product_shape, rescale
from hush.protocols.replicated.party import Party
from hush.protocols.replicated.products import convolve, widths

_Terms = tuple[list[Tensor], Tensor]


def combine(
    party: Party, xs: Sequence[Shared], factors: Sequence[Tensor | float], bias: Tensor | float, frac: int, scale: int
) -> Step[Shared]:
    """sum_i factors[i] * xs[i] + bias with one truncation: factors at `scale` bits, the bias at the product's scale.

    Messages: `fused.truncate_shared`; none if frac = xs.frac + scale.
    """
    x = same(xs, factors)
    ring = x.ring
    cut, device = widths(ring, x.frac + scale, frac, ring), x.parts[0].device
    elements = [encode(factor, ring, scale) for factor in factors]
    constant = encode(bias, ring, x.frac + scale)
    shape = broadcast(*(v.shape for v in xs), *(e.shape for e in elements), constant.shape)
    flats = [tuple(p.expand(shape).reshape(-1) for p in v.parts) for v in xs]
    spread, added = [_factor(e, shape, device) for e in elements], _factor(constant, shape, device)

    def piece(which: tuple[int, ...], start: int, stop: int) -> Tensor:
        own = slice(start, stop)
        terms = [_total([v[i][own] for i in which]) * _of(factor, own) for v, factor in zip(flats, spread, strict=True)]
        total = sum(terms[1:], terms[0])
        return ring.reduce(total + _of(added, own) if which == (0, 1) else total)

    if cut.local:
        whole = tuple(piece((i,), 0, shape.numel()).reshape(shape) for i in range(2))
        exact = add_at_zero(Shared(whole, x.frac + scale, ring), constant, truncate.zero_part(party.index))
        return rescale(exact, frac)
    return (yield from truncate.linear(party, piece, shape, device, cut, frac))


def same(xs: Sequence[Shared], factors: Sequence[Tensor | float]) -> Shared:
    """The first of the secrets of a `combine`, which must all be of its ring and scale."""
    x = xs[0]
    if any(v.ring != x.ring or v.frac != x.frac for v in xs) or len(xs) != len(factors):
        raise ValueError("combine: as many factors as secrets, and the secrets of one ring and scale")
    return x


def _factor(value: Tensor, shape: torch.Size, device: torch.device) -> Tensor | int:
    """A value over all elements, flat; a single one in main memory as a number, for kernels to take as it is."""
    if value.numel() == 1 and value.device.type == "cpu":
        return int(value)
    return _spread(beside(value, device), shape)


def _of(factor: Tensor | int, cut: slice) -> Tensor | int:
    return factor if isinstance(factor, int) else factor[cut]


def _spread(value: Tensor, shape: torch.Size) -> Tensor:
    """A value over all elements, flat; a single number takes no memory."""
    return value.reshape(1).expand(shape.numel()) if value.numel() == 1 else value.expand(shape).reshape(-1)


def _total(terms: Sequence[Tensor]) -> Tensor:
    return terms[0] if len(terms) == 1 else terms[0] + terms[1]


def matmul_public(
    party: Party, x: Shared, weight: Tensor, frac: int, scale: int, plus: tuple[Shared, Tensor] | None = None
) -> Step[Shared]:
    """x @ a public matrix, encoded with `scale` bits; messages per output element: `fused.truncate_shared`.

    With one matrix for all rows a party multiplies what its slices need only: two thirds of one product each. Of a
    matrix with more columns than there are rows that is columns, as reading the matrix then takes the time.
    `plus`: a secret of the result's shape and x's scale, and public factors of it, encoded likewise: their product is
    added before the truncation.
    """
    kernels, ring = party.kernels, x.ring
    cut, shape = widths(ring, x.frac + scale, frac, ring), product_shape(x.shape, weight.shape)
    if not cut.local and weight.ndim == 2 and 0 < shape[:-1].numel() < shape[-1]:
        return (yield from _by_columns(party, x, weight, shape, cut, frac, plus))
    more = None if plus is None else _terms(x, shape, *plus)
    if cut.local:
        parts = [kernels.matmul(part, weight, ring) for part in x.parts]
        if more is not None:
            parts = [ring.reduce(p + (own * more[1]).reshape(shape)) for p, own in zip(parts, more[0], strict=True)]
        return rescale(Shared(tuple(parts), x.frac + scale, ring), frac)
    shared_rows = weight.ndim == 2 and shape.numel() > 0
    columns = shape[-1] if shared_rows else shape.numel()

    def piece(which: tuple[int, ...], start: int, stop: int) -> Tensor:
        parts = [x.parts[i] for i in which]
        first = start // columns if shared_rows else 0
        if shared_rows:
            parts = [p.reshape(shape.numel() // columns, p.shape[-1])[first : -(-stop // columns)] for p in parts]
        product = kernels.matmul(ring.reduce(_total(parts)), weight, ring).reshape(-1)
        product = product[start - first * columns : stop - first * columns]
        return product if more is None else _with_terms(ring, product, more, which, start, stop)

    return (yield from truncate.linear(party, piece, shape, x.parts[0].device, cut, frac))


def _by_columns(
    party: Party,
    x: Shared,
    weight: Tensor,
    shape: torch.Size,
    cut: Widths,
    frac: int,
    plus: tuple[Shared, Tensor] | None,
) -> Step[Shared]:
    """`matmul_public` whose flat order is that of the transposed result: a slice is a run of columns."""
    ring, (rows, columns) = x.ring, (shape[:-1].numel(), shape[-1])
    flats = [part.reshape(rows, x.shape[-1]) for part in x.parts]
    more = None
    if plus is not None:
        y, factor = plus
        _joins(x, shape, y)
        turned = y.local(lambda t: t.reshape(rows, columns).t())
        factor = factor.expand(shape).reshape(rows, columns).t() if factor.numel() > 1 else factor
        more = _terms(x, torch.Size((columns, rows)), turned, factor)

    def piece(which: tuple[int, ...], start: int, stop: int) -> Tensor:
        first, last = start // rows, -(-stop // rows)
        own = ring.reduce(_total([flats[i] for i in which]))
        product = party.kernels.matmul(own, weight[:, first:last], ring).t().reshape(-1)
        product = product[start - first * rows : stop - first * rows]
        return product if more is None else _with_terms(ring, product, more, which, start, stop)

    z = yield from truncate.linear(party, piece, torch.Size((columns, rows)), x.parts[0].device, cut, frac)
    return z.local(lambda t: t.t().contiguous().reshape(shape))


def _with_terms(ring: Ring, product: Tensor, more: _Terms, which: Sequence[int], start: int, stop: int) -> Tensor:
    """Elements start..stop of a product and of the terms that join it."""
    own = _total([more[0][i][start:stop] for i in which]) * more[1][start:stop]
    return ring.settle(product.add(own))


def _terms(x: Shared, shape: torch.Size, y: Shared, factor: Tensor) -> _Terms:
    """(parts of y, factors), flat, of what joins a product of x of a shape."""
    _joins(x, shape, y)
    return [part.reshape(-1) for part in y.parts], _spread(factor, shape)


def _joins(x: Shared, shape: torch.Size, y: Shared) -> None:
    """Refuse what cannot join a product of x of a shape."""
    if y.shape != shape or y.ring != x.ring or y.frac != x.frac:
        raise ValueError(
            f"{tuple(y.shape)} at {y.frac} fraction bits does not join a product {tuple(shape)} of {x.frac}"
        )


def conv_public(party: Party, x: Shared, kernel: Tensor, geometry: ConvShape, frac: int, scale: int) -> Step[Shared]:
    """Convolution with a public kernel, encoded with `scale` bits; messages an output: `fused.truncate_shared`."""
    whole = x.local(lambda t: convolve(party.kernels, t, kernel, geometry, x.ring)).with_frac(x.frac + scale)
    settled = yield from truncate.shared(party, whole, min(frac, whole.frac), x.ring)
    return rescale(settled, frac)
