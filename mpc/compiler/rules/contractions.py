"""Linear layers, matrix products, convolutions and their public-weight forms."""

from __future__ import annotations

import torch
from torch import Tensor

from hush.mpc.compiler.rules.elementwise import times, total
from hush.mpc.compiler.rules.table import Site, Value, rule
from hush.mpc.functions.chunks import in_pieces
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together

_LIGHT = 2  # an output of a product takes less than half of the memory of what chunks are made for


@rule("hush.affine", exact=True)
def _affine(site: Site, x: Value, w: Shared | Tensor, bias: Value = None) -> Step[Shared]:
    """x @ w + b; the bias joins after the truncation, at its scale, and costs nothing."""
    y = yield from product(site, x, w)
    return y if bias is None else total(site, y, bias)


@rule("hush.affine_plus", exact=True)
def _affine_plus(
    site: Site, x: Shared, w: Shared | Tensor, bias: Value, y: Shared, factor: Shared | Tensor
) -> Step[Shared]:
    """x @ w + y * factor + b with one truncation, where the products have one scale."""
    p, columns = site.p, w.shape[-1]
    alike = x.frac == y.frac == p.frac and isinstance(w, Shared) == isinstance(factor, Shared) and w.ndim == 2

    def joined(rows: Shared, more: Shared) -> Step[Shared]:
        return p.matmul_add(rows, w, more, factor, frac=p.frac)

    if alike:
        left, right = x.reshape(-1, x.shape[-1]), y.reshape(-1, columns)
        z = yield from in_pieces(joined, left, right, whole=1, each=columns // _LIGHT)
        z = z.reshape(*y.shape)
    else:
        product_, scaled = yield from together(product(site, x, w), times(site, y, factor))
        z = p.add(product_, scaled)
    return z if bias is None else total(site, z, bias)


@rule("hush.matmul", "aten.mv.default", "aten.dot.default", exact=True)
def _matmul(site: Site, x: Value, y: Value, halvings: int = 0) -> Step[Shared]:
    return product(site, x, y, halvings)


def product(site: Site, x: Value, y: Value, halvings: int = 0) -> Step[Shared]:
    """(x @ y) * 2^-halvings for any mix of operands and any number of dimensions, one truncation."""
    left, right = _dimensions(x), _dimensions(y)
    if left == 1:
        x = _reshape(x, 1, -1)
    if right == 1:
        y = _reshape(y, -1, 1)
    z = yield from _two_dimensional(site, x, y, halvings)
    if left == 1:
        z = z.local(lambda t: t.squeeze(-2))
    return z.local(lambda t: t.squeeze(-1)) if right == 1 else z


def _two_dimensional(site: Site, x: Value, y: Value, halvings: int) -> Step[Shared]:
    if isinstance(x, Shared) and _dimensions(y) == 2:  # one large product instead of a batch
        lead, columns = x.shape[:-1], _shape(y)[-1]
        rows = x.reshape(-1, x.shape[-1])
        flat = yield from in_pieces(lambda r: _product(site, r, y, halvings), rows, whole=1, each=columns // _LIGHT)
        return flat.reshape(*lead, columns)
    return (yield from _product(site, x, y, halvings))


def _product(site: Site, x: Value, y: Value, halvings: int) -> Step[Shared]:
    p = site.p
    if isinstance(x, Shared) and isinstance(y, Shared):
        if x.frac == 0 or y.frac == 0:
            exact = yield from p.matmul(x, y, frac=x.frac + y.frac)
            return exact if exact.frac == (p.frac if site.real else 0) else p.rescale(exact, p.frac)
        frac = min(p.frac - halvings, x.frac + y.frac)
        z = yield from p.matmul(x, y, frac=frac)
        z = z.with_frac(frac + halvings)
        return z if z.frac == p.frac else p.rescale(z, p.frac)
    if isinstance(x, Shared):
        matrix = torch.as_tensor(y)
        if not matrix.is_floating_point():
            return p.matmul_int(x, matrix)
        if x.frac == 0:
            return (yield from p.matmul_public(x, matrix, frac=p.frac, scale=p.frac))
        if halvings:
            matrix = matrix * 2.0**-halvings
        return (yield from p.matmul_public(x, matrix, frac=p.frac))  # the weight itself, so that its encoding is kept
    assert isinstance(y, Shared)
    turned = yield from _product(site, y.transpose(-1, -2), torch.as_tensor(x).transpose(-1, -2), halvings)
    return turned.transpose(-1, -2)


def _dimensions(value: Value) -> int:
    return len(_shape(value))


def _shape(value: Value) -> torch.Size:
    assert isinstance(value, Shared | Tensor)
    return value.shape


def _reshape(value: Value, *shape: int) -> Shared | Tensor:
    assert isinstance(value, Shared | Tensor)
    return value.reshape(*shape)


@rule("aten.addcmul.default")
def _addcmul(site: Site, x: Value, a: Value, b: Value, *, value: float = 1) -> Step[Shared]:
    scaled = yield from times(site, a, b)
    return total(site, x, scaled if value == 1 else (yield from times(site, scaled, value)))
