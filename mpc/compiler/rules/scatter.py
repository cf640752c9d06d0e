"""Writing into a tensor at public places, which is local, and at secret ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from hush.mpc.beside import beside
from hush.mpc.compiler.ops import args_of, is_op
from hush.mpc.compiler.rules.bounds import largest, magnitude
from hush.mpc.compiler.rules.elementwise import total
from hush.mpc.compiler.rules.layout import alike
from hush.mpc.compiler.rules.table import Site, Value, rule
from hush.mpc.compiler.types import META
from hush.mpc.functions import order
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together

Write = Callable[[Tensor, Tensor], Tensor]


def _written(site: Site, x: Value, source: Value, write: Write) -> Shared:
    """write(x, source) on each part: places are public, and each entry of the result is one entry of either."""
    into, value = alike(site, [x, source])
    ring = into.ring
    parts = (ring.reduce(write(a, b)) for a, b in zip(into.parts, value.parts, strict=True))
    return replace(into, parts=tuple(parts))


@rule("aten.slice_scatter.default", bound=largest(0, 1))
def _slice(
    site: Site, x: Value, source: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Shared:
    return _written(site, x, source, lambda a, b: torch.slice_scatter(a, b, dim, start, end, step))


@rule("aten.select_scatter.default", bound=largest(0, 1))
def _select(site: Site, x: Value, source: Value, dim: int, index: int) -> Shared:
    return _written(site, x, source, lambda a, b: torch.select_scatter(a, b, dim, index))


def _accumulated(node: fx.Node) -> float | None:
    """Every value might land in one place."""
    x, values = magnitude(args_of(node)[0]), magnitude(args_of(node)[2])
    many = args_of(node)[3] if len(args_of(node)) > 3 else False
    if x is None or values is None or many:
        return None
    return max(x, values)


@rule("aten.index_put.default", bound=_accumulated)
def _index_put(site: Site, x: Value, indices: Sequence[Any], values: Value, accumulate: bool = False) -> Shared:
    if any(isinstance(i, Shared) for i in indices):
        raise site.unsupported("writing at secret places has a rule as scatter, not as x[index] = y")

    def write(a: Tensor, b: Tensor) -> Tensor:
        places = [None if i is None else beside(i, a.device) for i in indices]
        made: Tensor = torch.ops.aten.index_put.default(a, places, b, accumulate)  # torch's own name takes no None
        return made

    return _written(site, x, values, write)


def _added(node: fx.Node) -> float | None:
    """x and as many of the others as there are."""
    x, source = magnitude(args_of(node)[0]), magnitude(args_of(node)[3])
    index = args_of(node)[2]
    count = index.meta["shape"][args_of(node)[1]] if index.meta.get("shape") else 1
    return None if x is None or source is None else float(x + count * source)


@rule("aten.index_add.default")
def _index_add(site: Site, x: Value, dim: int, index: Value, source: Value, *, alpha: float = 1) -> Shared:
    if isinstance(index, Shared) or alpha != 1:
        raise site.unsupported("index_add at secret places or with alpha has no rule; scatter_add has")
    assert isinstance(index, Tensor)
    return _written(site, x, source, lambda a, b: a.index_add(dim, beside(index, a.device), b))


@rule("aten.scatter_add.default", bound=_added)
def _scatter_add(site: Site, x: Value, dim: int, index: Value, source: Value) -> Any:
    if not isinstance(index, Shared):
        return _at(site, x, dim, index, source, lambda a, i, b: a.scatter_add(dim, i, b))
    return _add_secret(site, x, dim, index, source)


@rule("aten.scatter.src", bound=largest(0, 3))
def _scatter(site: Site, x: Value, dim: int, index: Value, source: Value) -> Any:
    if not isinstance(index, Shared):
        return _at(site, x, dim, index, source, lambda a, i, b: a.scatter(dim, i, b))
    return _put_secret(site, x, dim, index, source)


@rule("aten.scatter.value", bound=largest(0, 3))
def _scatter_value(site: Site, x: Value, dim: int, index: Value, value: float) -> Any:
    if not isinstance(index, Shared):
        assert isinstance(index, Tensor)
        filled = torch.full(tuple(index.shape), value, device=x.device if isinstance(x, Shared) else index.device)
        return _at(site, x, dim, index, filled, lambda a, i, b: a.scatter(dim, i, b))
    return _put_secret(site, x, dim, index, value)


def _at(site: Site, x: Value, dim: int, index: Value, source: Value, write: Callable[..., Tensor]) -> Shared:
    assert isinstance(index, Tensor)
    return _written(site, x, source, lambda a, b: write(a, beside(index, a.device), b))


def _add_secret(site: Site, x: Value, dim: int, index: Shared, source: Value) -> Step[Shared]:
    """x[.., j, ..] + sum_i [index[.., i, ..] == j] source[.., i, ..]."""
    hot = yield from _hot(site, x, dim, index)
    landed = yield from _landed(site, hot, dim, index, source)
    return total(site, x, landed)


def _put_secret(site: Site, x: Value, dim: int, index: Shared, source: Value) -> Step[Shared]:
    """The same in the place of x, where anything lands. Places must differ, as those of a top k do."""
    hot = yield from _hot(site, x, dim, index)
    covered = hot.sum(-2).local(lambda t: t.movedim(-1, dim))
    landed = yield from _landed(site, hot, dim, index, source)
    if isinstance(x, Shared):
        below = yield from site.p.mul(covered, x, frac=x.frac)
    else:
        assert x is not None
        below = site.secret(torch.as_tensor(x).expand(covered.shape), landed)
        below = yield from site.p.mul(covered, below, frac=below.frac)
    kept = site.p.sub(site.secret(x, landed).expand(*covered.shape), site.secret(below, landed))
    return site.p.add(kept, landed)


def _hot(site: Site, x: Value, dim: int, index: Shared) -> Step[Shared]:
    """[.., i, j]: whether place i, moved to the end, is j."""
    own = torch.as_tensor(x.parts[0] if isinstance(x, Shared) else x)
    same = (a == b for d, (a, b) in enumerate(zip(own.shape, index.shape, strict=True)) if d != dim % own.ndim)
    if not all(same):
        raise site.unsupported("scattering a part of the rows at secret places has no rule")
    return order.one_hot(site.p, index.local(lambda t: t.movedim(dim, -1)), own.shape[dim])


def _landed(site: Site, hot: Shared, dim: int, index: Shared, source: Value) -> Step[Shared]:
    if isinstance(source, bool | int | float):
        source = torch.full((1,) * index.ndim, source, dtype=torch.float64 if site.real else torch.int64)
    like = site.p.constant(torch.zeros(()), frac=site.p.frac if site.real else 0)
    secret = site.secret(source, like).expand(*index.shape)
    rows = secret.local(lambda t: t.movedim(dim, -1).unsqueeze(-2))
    found = yield from site.p.matmul(rows, hot, frac=secret.frac)
    return found[..., 0, :].local(lambda t: t.movedim(-1, dim))


@rule("aten.masked_scatter.default", bound=largest(0, 2))
def _masked_scatter(site: Site, x: Value, mask: Value, source: Value) -> Any:
    """The n-th entry of the source at the n-th place of the mask: image features among a text's embeddings."""
    if isinstance(mask, Shared):
        return _scatter_rows(site, x, mask, source)
    assert isinstance(mask, Tensor)
    into: Any = x
    places = mask.expand(into.shape).reshape(-1).nonzero().reshape(-1)

    def write(a: Tensor, b: Tensor) -> Tensor:
        own = beside(places, a.device)
        return a.reshape(-1).index_put((own,), b.reshape(-1)[: len(own)]).reshape(a.shape)

    return _written(site, x, source, write)


def _scatter_rows(site: Site, x: Value, mask: Shared, source: Value) -> Step[Shared]:
    """A secret mask that is the same along the last dimensions: rows of the source, picked by one-hot products."""
    p, width = site.p, _width(site)
    into, given = alike(site, [x, source])
    rows = given.reshape(-1, width)
    marks = mask.expand(*into.shape).reshape(-1, width)[:, :1]
    count = marks.local(lambda t: mask.ring.reduce(t.cumsum(0, dtype=t.dtype)))
    own = into.reshape(-1, width)
    place, under = yield from together(p.mul(marks, count, frac=0), p.mul(marks, own, frac=own.frac))
    hot = yield from order.one_hot(p, p.add_public(place[:, 0], -1), rows.shape[0])
    picked = yield from p.matmul(hot, rows, frac=rows.frac)
    return p.add(p.sub(own, under), picked).reshape(*into.shape)


def _width(site: Site) -> int:
    """Entries of the last dimension, if the mask was expanded along it; 1 otherwise."""
    mask: Any = site.node.args[1]
    shape = site.type.shape
    narrow = args_of(mask)[0].meta[META].shape if is_op(mask, "aten.expand.default") else mask.meta[META].shape
    return shape[-1] if len(narrow) < 1 or narrow[-1] == 1 else 1
