"""Extremes with their places, the k largest, sorting, one-hot vectors."""

from __future__ import annotations

from torch import fx
from torch.nn.functional import pad

from hush.mpc.compiler.ops import args_of
from hush.mpc.compiler.rules.bounds import magnitude, one
from hush.mpc.compiler.rules.table import Site, rule
from hush.mpc.compiler.types import META, Kind, type_of
from hush.mpc.functions import order
from hush.mpc.secret import Shared
from hush.mpc.step import Step

MOST = 256
"""Entries that are put in order: all pairs of them meet."""


def _entries(node: fx.Node) -> float | None:
    """Values are entries, places below their number."""
    x = args_of(node)[0]
    bound, shape = magnitude(x), x.meta[META].shape
    return None if bound is None else max(bound, float(max(shape, default=1)))


@rule("aten.max.dim", bound=_entries)
def _max(site: Site, x: Shared, dim: int, keepdim: bool = False) -> Step[list[Shared]]:
    return (yield from _extreme(site, x, dim, keepdim, 1))


@rule("aten.min.dim", bound=_entries)
def _min(site: Site, x: Shared, dim: int, keepdim: bool = False) -> Step[list[Shared]]:
    return (yield from _extreme(site, x, dim, keepdim, -1))


def _extreme(site: Site, x: Shared, dim: int, keepdim: bool, sign: int) -> Step[list[Shared]]:
    p = site.p
    value, place = yield from order.first_largest(p, p.scale(x, sign), dim, bound=site.bound(0))
    found = [p.scale(value, sign), place]
    return [f.local(lambda t: t.unsqueeze(dim)) for f in found] if keepdim else found


@rule("aten.topk.default", bound=_entries)
def _topk(
    site: Site, x: Shared, k: int, dim: int = -1, largest: bool = True, _sorted: bool = True
) -> Step[list[Shared]]:
    return (yield from _ordered(site, x, k, dim, 1 if largest else -1))


@rule("aten.sort.default", bound=_entries)
def _sort(site: Site, x: Shared, dim: int = -1, descending: bool = False) -> Step[list[Shared]]:
    return (yield from _ordered(site, x, x.shape[dim], dim, 1 if descending else -1))


@rule("aten.sort.stable", bound=_entries)
def _sort_stable(
    site: Site, x: Shared, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> Step[list[Shared]]:
    return (yield from _ordered(site, x, x.shape[dim], dim, 1 if descending else -1))


def _ordered(site: Site, x: Shared, k: int, dim: int, sign: int) -> Step[list[Shared]]:
    if x.shape[dim] > MOST:
        raise site.unsupported(f"the order of more than {MOST} entries has no rule")
    rows = site.p.scale(x, sign).local(lambda t: t.movedim(dim, -1))
    values, places = yield from order.top(site.p, rows, k, bound=site.bound(0))
    return [f.local(lambda t: t.movedim(-1, dim)) for f in (site.p.scale(values, sign), places)]


@rule("aten.one_hot.default", onehot=True, bound=one)
def _one_hot(site: Site, ids: Shared, classes: int = -1) -> Shared | Step[Shared]:
    """Of an argument that travels as rows, the rows."""
    source = site.node.args[0]
    rows = type_of(source).kind is Kind.ONEHOT  # type: ignore[arg-type]
    if not rows:
        return order.one_hot(site.p, ids, classes)

    return ids.local(lambda t: pad(t, (0, classes - t.shape[-1])))  # which cuts where that is negative
