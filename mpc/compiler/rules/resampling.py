"""Images made larger or smaller: a public matrix along each dimension of space."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from hush.mpc.beside import beside
from hush.mpc.compiler.ops import op_name, op_target
from hush.mpc.compiler.rules.bounds import same
from hush.mpc.compiler.rules.table import Site, rule
from hush.mpc.secret import Shared
from hush.mpc.step import Step

_WEIGHTS = 24  # fraction bits of the matrices


@rule(
    *(f"aten.upsample_nearest{d}d.vec" for d in (1, 2, 3)),
    *(f"aten._upsample_nearest_exact{d}d.vec" for d in (1, 2, 3)),
    bound=same,
)
def _nearest(site: Site, x: Shared, size: Sequence[int] | None, scales: Sequence[float] | None) -> Shared:
    """Entries that are repeated, or left out: local."""
    for dim in range(2, x.ndim):
        places = beside(_matrix(site, x.shape, dim, size, scales, ()).argmax(0), x.device)
        x = x.local(lambda t, dim=dim, places=places: t.index_select(dim, places))  # type: ignore[misc]
    return x


@rule("aten.upsample_linear1d.vec", "aten.upsample_bilinear2d.vec", "aten.upsample_trilinear3d.vec", bound=same)
def _linear(
    site: Site, x: Shared, size: Sequence[int] | None, aligned: bool, scales: Sequence[float] | None
) -> Step[Shared]:
    return _weighed(site, x, size, scales, (aligned,))


@rule("aten._upsample_bilinear2d_aa.vec", "aten._upsample_bicubic2d_aa.vec", "aten.upsample_bicubic2d.vec")
def _cubic(
    site: Site, x: Shared, size: Sequence[int] | None, aligned: bool, scales: Sequence[float] | None
) -> Step[Shared]:
    return _weighed(site, x, size, scales, (aligned,))


@rule(*(f"aten.adaptive_avg_pool{d}d.default" for d in (1, 2, 3)), bound=same)
def _adaptive(site: Site, x: Shared, size: Sequence[int]) -> Step[Shared]:
    """Windows of several sizes, each a row of a matrix."""
    alone = x.ndim == len(size) + 1
    y = yield from _weighed(site, x[None] if alone else x, size, None, None)
    return y[0] if alone else y


def _weighed(site: Site, x: Shared, size: Any, scales: Any, options: tuple[Any, ...] | None) -> Step[Shared]:
    for dim in range(2, x.ndim):
        matrix = _matrix(site, x.shape, dim, size, scales, options)
        if not torch.equal(matrix, torch.eye(len(matrix))):
            rows = x.local(lambda t, dim=dim: t.movedim(dim, -1))  # type: ignore[misc]
            y = yield from site.p.matmul_public(rows, matrix, frac=x.frac, scale=_WEIGHTS)
            x = y.local(lambda t, dim=dim: t.movedim(-1, dim))  # type: ignore[misc]
    return x


def _matrix(site: Site, shape: Sequence[int], dim: int, size: Any, scales: Any, options: Any) -> Tensor:
    """[in, out]: what the op does along one dimension. One tensor for all runs, so that its encoding is one too."""
    space, place = len(shape) - 2, dim - 2
    own_size = None if size is None else tuple(size[place] if i == place else 1 for i in range(space))
    own_scales = None if scales is None else tuple(scales[place] if i == place else 1.0 for i in range(space))
    rest = () if options is None else (*options, own_scales)
    return _made(op_name(site.node.target), shape[dim], space, place, (own_size, *rest))


@lru_cache(maxsize=256)
def _made(op: str, extent: int, space: int, place: int, arguments: tuple[Any, ...]) -> Tensor:
    """By running the op on a unit matrix; the other dimensions have one entry."""
    unit = torch.eye(extent).reshape(1, extent, *(extent if i == place else 1 for i in range(space)))
    made: Tensor = op_target(op)(unit, *arguments)
    return made.reshape(extent, -1)
