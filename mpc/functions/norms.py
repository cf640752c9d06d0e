"""Normalisation layers: layer, RMS, group, instance, batch norm, and vectors of unit length.

A row costs one square root; an entry costs one truncated product, and one more for a weight. Sums of squares are dot
products, so an entry sends nothing for them. Weights may be secret or public, or absent.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hush.mpc.functions.lines import evaluate_dot
from hush.mpc.functions.rsqrt import rsqrt, rsqrt_lines, scaled_rsqrt
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared
from hush.mpc.step import Step

Weight = Shared | Tensor | None
_SUM_LIMIT = 60.5
"""log2 of the largest sum of squares, in units: half a bit of room for the rounding of its entries."""


def layer_norm(
    p: Protocol,
    x: Shared,
    *,
    bound: float,
    weight: Weight = None,
    bias: Weight = None,
    eps: float = 1e-5,
    dims: int = 1,
    approx: str = "default",
) -> Step[Shared]:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last `dims` dimensions, at x.frac; |x| <= bound.

    Error (default): relative 2^-19 of the normalised value and one unit (2 with a weight); where the standard deviation
    is few units of x, x's own rounding is what remains. eps below one unit of the summed squares (2^-36/n at f=18 for
    bound^2 n < 2^24, coarser above) counts as that unit.
    Outside: undefined where |x| exceeds the bound.
    Rounds: mean (truncation), dot product, `scaled_rsqrt`, one truncated product, one more for a weight.
    """
    shape, flat = x.shape, _rows(x, dims)
    centred = p.sub(flat, (yield from mean(p, flat, bound=bound)))
    n = flat.shape[-1]
    # sum (x - mean)^2 <= sum x^2: the bound of the values holds for the deviations' sum, not for each of them
    scaled = yield from _unit_rows(p, centred, peak=2 * bound, total=n * bound**2, eps=n * eps, factor=n, approx=approx)
    return (yield from affine(p, scaled.reshape(*shape), weight, bias))


def rms_norm(
    p: Protocol,
    x: Shared,
    *,
    bound: float,
    weight: Weight = None,
    eps: float = 1e-6,
    dims: int = 1,
    approx: str = "default",
) -> Step[Shared]:
    """x / sqrt(mean(x^2) + eps) * weight over the last `dims` dimensions; error, domain and rounds as `layer_norm`."""
    shape, flat = x.shape, _rows(x, dims)
    n = flat.shape[-1]
    scaled = yield from _unit_rows(p, flat, peak=bound, total=n * bound**2, eps=n * eps, factor=n, approx=approx)
    return (yield from affine(p, scaled.reshape(*shape), weight, None))


def unit_length(p: Protocol, x: Shared, dim: int = -1, *, bound: float, eps: float = 1e-12) -> Step[Shared]:
    """x / max(|x|_2, eps) along `dim` (torch's normalize), |entries| <= bound; a zero vector stays 0.

    Error: relative 2^-19 and one unit. Vectors shorter than a few units of x are as coarse as their entries.
    """
    last = x.local(lambda t: t.movedim(dim, -1))
    flat = _rows(last, 1)
    total = flat.shape[-1] * bound**2
    scaled = yield from _unit_rows(p, flat, peak=bound, total=total, eps=eps**2, factor=1.0)
    return scaled.reshape(*last.shape).local(lambda t: t.movedim(-1, dim))


def group_norm(
    p: Protocol,
    x: Shared,
    groups: int,
    *,
    bound: float,
    weight: Weight = None,
    bias: Weight = None,
    eps: float = 1e-5,
    approx: str = "default",
) -> Step[Shared]:
    """torch's group_norm of x [N, C, *space] with per-channel weights [C]; as `layer_norm`, a row being one group."""
    batch, channels = x.shape[:2]
    if channels % groups:
        raise ValueError(f"{channels} channels do not fall into {groups} groups")
    rows = x.reshape(batch, groups, -1)
    scaled = (yield from layer_norm(p, rows, bound=bound, eps=eps, approx=approx)).reshape(*x.shape)
    return (yield from affine(p, scaled, per_channel(weight, x.ndim), per_channel(bias, x.ndim)))


def instance_norm(
    p: Protocol,
    x: Shared,
    *,
    bound: float,
    weight: Weight = None,
    bias: Weight = None,
    eps: float = 1e-5,
    approx: str = "default",
) -> Step[Shared]:
    """`group_norm` with one channel a group: x [N, C, *space] normalised over space."""
    return (yield from group_norm(p, x, x.shape[1], bound=bound, weight=weight, bias=bias, eps=eps, approx=approx))


def batch_norm(
    p: Protocol,
    x: Shared,
    running_mean: Shared | Tensor,
    running_var: Shared | Tensor,
    *,
    variance_bound: float,
    weight: Weight = None,
    bias: Weight = None,
    eps: float = 1e-5,
) -> Step[Shared]:
    """(x - running_mean) / sqrt(running_var + eps) * weight + bias, x [N, C, *space], statistics [C] secret or public.

    One truncated product an entry for the statistics, one for the weight. Secret statistics, with 0 <= running_var <=
    variance_bound, cost one `rsqrt` a channel before. Error: one unit a product, and the factor's unit times |x|.
    """
    centred = affine_bias(p, x, _negated(p, per_channel(running_mean, x.ndim)))
    factor: Weight
    if isinstance(running_var, Shared):
        fine = max(
            running_var.frac, 60 - x.frac - math.ceil(math.log2(variance_bound + 1))
        )  # so that eps is not rounded
        shifted = p.add_public(p.rescale(running_var, fine), max(eps, 2.0**-fine))
        floor = max(eps / 2, 2.0**-fine)
        factor = yield from rsqrt(p, shifted, bound=variance_bound + 2 * eps, floor=floor, frac=x.frac + 4)
    else:
        factor = 1 / (running_var.to(torch.float64) + eps).sqrt()
    scaled = yield from affine(p, centred, per_channel(factor, x.ndim), None)
    return (yield from affine(p, scaled, per_channel(weight, x.ndim), per_channel(bias, x.ndim)))


def mean(p: Protocol, x: Shared, dim: int = -1, *, bound: float) -> Step[Shared]:
    """mean(x) along `dim`, kept as a dimension of 1, |x| <= bound: one truncation, error one unit and bound * 2^-28."""
    count = x.shape[dim]
    scale = min(40, 60 - x.frac - max(0, math.ceil(math.log2(bound))))
    return (yield from p.mul_public(x.sum(dim, keepdim=True), 1.0 / count, frac=x.frac, scale=scale))


def affine(p: Protocol, x: Shared, weight: Weight, bias: Weight) -> Step[Shared]:
    """x * weight + bias, broadcast, at x.frac; one truncated product if there is a weight."""
    if isinstance(weight, Shared):
        x = yield from p.mul(x, weight, frac=x.frac)
    elif weight is not None:
        x = yield from p.mul_public(x, weight, frac=x.frac)
    return affine_bias(p, x, bias)


def affine_bias(p: Protocol, x: Shared, bias: Weight) -> Shared:
    """x + bias, broadcast. Local."""
    if bias is None:
        return x
    return p.add(x, p.rescale(bias, x.frac)) if isinstance(bias, Shared) else p.add_public(x, bias)


def per_channel(value: Weight, ndim: int) -> Weight:
    """[C] in the shape that broadcasts against [N, C, *space]."""
    return None if value is None else value.reshape(-1, *[1] * (ndim - 2))


def _negated(p: Protocol, value: Weight) -> Weight:
    return p.neg(value) if isinstance(value, Shared) else None if value is None else -value


def _rows(x: Shared, dims: int) -> Shared:
    """[*lead, n] with the last `dims` dimensions as one."""
    return x.reshape(*x.shape[: x.ndim - dims], math.prod(x.shape[x.ndim - dims :]))


def _unit_rows(
    p: Protocol, x: Shared, *, peak: float, total: float, eps: float, factor: float, approx: str = "default"
) -> Step[Shared]:
    """x * sqrt(factor) / sqrt(sum(x^2) + eps) over the last dimension, at x.frac; |x| <= peak, sum(x^2) <= total."""
    root, headroom = math.sqrt(factor), x.frac + math.log2(factor) / 2
    rows, exact = x.shape[:-1].numel(), 2 * x.frac
    if approx != "puma" and max(2 * math.log2(peak), math.log2(total)) <= _SUM_LIMIT - exact:
        floor = max(eps, 2.0**-exact)
        found = rsqrt_lines(p, rows, exact, total * 1.01 + 2 * floor, floor, root, headroom)
        if found is not None:
            dot = yield from evaluate_dot(p, *_as_products(x), floor, found)
            return (yield from p.mul(x, dot.reshape(*x.shape[:-1], 1), frac=x.frac))
    squares = yield from sum_of_squares(p, x, peak=peak, total=total)
    floor = max(eps, 2.0**-squares.frac)
    inverse = yield from scaled_rsqrt(
        p,
        p.add_public(squares, floor),
        bound=total * 1.01 + 2 * floor,
        floor=floor,
        factor=root,
        headroom=headroom,
        approx=approx,
    )
    return (yield from p.mul(x, inverse, frac=x.frac))


def _as_products(x: Shared) -> tuple[Shared, Shared]:
    """x as rows [..., 1, n] and columns [..., n, 1], whose products are its squares' sums."""
    return x.local(lambda t: t[..., None, :]), x.local(lambda t: t[..., :, None])


def sum_of_squares(p: Protocol, x: Shared, *, peak: float, total: float) -> Step[Shared]:
    """[..., 1]: sum(x^2) over the last dimension as dot products, at the finest scale that keeps it below 2^60.5.

    |x| <= peak, sum(x^2) <= total. Where the row's own sum fits at 2 x.frac, it is exact: one untruncated product a
    row. Else the row is cut into the fewest equal pieces whose sums fit, each truncated; where a single square does
    not fit, x is truncated first.
    """
    n = x.shape[-1]
    room = _SUM_LIMIT - 2 * x.frac
    if 2 * math.log2(peak) > room:
        x = yield from p.truncate(x, math.floor((_SUM_LIMIT - 2 * math.log2(peak)) / 2))
        room = _SUM_LIMIT - 2 * x.frac
    size = next(s for s in range(n, 0, -1) if n % s == 0 and math.log2(min(s * peak**2, total)) <= room)
    frac = min(2 * x.frac, math.floor(_SUM_LIMIT - math.log2(total)))
    pieces = x.reshape(*x.shape[:-1], n // size, size)
    sums = yield from p.matmul(*_as_products(pieces), frac=frac)
    return sums.reshape(*x.shape[:-1], n // size).sum(-1, keepdim=True)
