"""Looking things up at secret or public places: embedding, gather, indexing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from hush.mpc.beside import at, beside
from hush.mpc.compiler.ops import args_of
from hush.mpc.compiler.rules.bounds import magnitude, same
from hush.mpc.compiler.rules.contractions import product
from hush.mpc.compiler.rules.table import Site, Value, rule
from hush.mpc.compiler.types import Kind, Visibility, type_of
from hush.mpc.functions import embedding, order
from hush.mpc.points import Points
from hush.mpc.secret import Shared
from hush.mpc.step import Step


def _of_table(node: fx.Node) -> float | None:
    """A public table's largest entry; a secret one's must not be in the program."""
    table = args_of(node)[0]
    public = isinstance(table, fx.Node) and type_of(table).visibility is Visibility.PUBLIC
    return magnitude(table) if public else None


@rule("aten.embedding.default", onehot=True, bound=_of_table)
def _embedding(site: Site, table: Shared | Tensor, ids: Any, *_: Any) -> Any:
    """Rows of a table: at public places local; of keys or one-hot rows one round; else by equality with every id."""
    if isinstance(ids, Points):
        return site.p.lookup(ids, table[: ids.classes], frac=site.p.frac)
    if not isinstance(ids, Shared):
        return _rows(table, ids)
    if type_of(site.node.args[1]).kind is Kind.ONEHOT:  # type: ignore[arg-type]
        return embedding.embedding_of_one_hot(site.p, ids, table[: ids.shape[-1]], frac=site.p.frac)
    return embedding.embedding_of_ids(site.p, ids, table, frac=site.p.frac)


@rule("hush.number", onehot=True, bound=same)
def _number(site: Site, ids: Points) -> Step[Shared]:
    """The row of a public table that holds its own place: one round."""
    found = yield from site.p.lookup(ids, torch.arange(ids.classes).reshape(-1, 1), frac=0)
    return found[..., 0]


def _rows(table: Shared | Tensor, ids: Tensor) -> Shared | Tensor:
    if isinstance(table, Shared):
        return table[ids]
    return table[beside(ids, table.device)]


@rule("aten.gather.default", bound=same)
def _gather(site: Site, x: Value, dim: int, index: Value, **_: Any) -> Any:
    if not isinstance(index, Shared):
        assert isinstance(x, Shared)
        assert isinstance(index, Tensor)
        places = beside(index, x.device)
        return x.local(lambda t: t.gather(dim, places))
    return _gather_secret(site, x, dim, index)


def _gather_secret(site: Site, x: Value, dim: int, index: Shared) -> Step[Shared]:
    """out[.., i, ..] = sum_j [index[.., i, ..] == j] x[.., j, ..]."""
    assert isinstance(x, Shared | Tensor)
    own = x.local(lambda t: t.movedim(dim, -1)) if isinstance(x, Shared) else x.movedim(dim, -1)
    places = index.local(lambda t: t.movedim(dim, -1))
    lead = places.shape[:-1]
    cut = tuple(slice(0, n) for n in lead)
    own = own[cut]
    hot = yield from order.one_hot(site.p, places, own.shape[-1])
    column = own.reshape(*own.shape, 1)
    found = yield from product(site, hot, column)
    return found[..., 0].local(lambda t: t.movedim(-1, dim))


@rule("aten.index.Tensor", onehot=True, bound=same)
def _index(site: Site, x: Value, indices: Sequence[Value]) -> Any:
    if isinstance(x, Shared) and type_of(site.node.args[0]).kind is Kind.ONEHOT:  # type: ignore[arg-type]
        x = site.integer(x)
    secret = [i for i, index in enumerate(indices) if isinstance(index, Shared)]
    if not secret:
        assert isinstance(x, Shared | Tensor)
        return x[at(tuple(place for i in indices for place in _plain(i)), x.device)]
    if len(secret) > 1:
        raise site.unsupported("more than one secret index has no rule")
    if type_of(site.node.args[1][secret[0]]).kind is Kind.BOOL:  # type: ignore[index,arg-type]
        raise site.unsupported(
            "x[mask] has as many rows as a secret mask keeps, and shapes are public: use torch.where"
        )
    return _index_secret(site, x, list(indices), secret[0])


def _plain(index: Value) -> tuple[Any, ...]:
    """A boolean public index as the places where it is true: shapes must not depend on the device."""
    if isinstance(index, Tensor) and index.dtype == torch.bool:
        return index.nonzero(as_tuple=True) if index.ndim else (index,)
    return (slice(None) if index is None else index,)


def _index_secret(site: Site, x: Value, indices: list[Value], place: int) -> Step[Shared]:
    """x[i, ids] with public i: the rows along the secret dimension, picked by a one-hot product."""
    assert isinstance(x, Shared | Tensor)
    ids = indices[place]
    assert isinstance(ids, Shared)
    if any(i is None for i in indices[:place]):
        raise site.unsupported("a secret index behind a full slice has no rule: move that dimension to the front")
    operand: Any = site.node.args[1]
    rows = ids
    if type_of(operand[place]).kind is not Kind.ONEHOT:
        rows = yield from order.one_hot(site.p, ids, x.shape[place])
    others = [i for i in indices if isinstance(i, Tensor)]
    if not others:
        flat = x.reshape(x.shape[0], -1)
        found = yield from product(site, rows, flat)
        return found.reshape(*rows.shape[:-1], *x.shape[1:])
    shape = torch.Size(np.broadcast_shapes(rows.shape[:-1], *(o.shape for o in others)))
    picked = _pick(x, indices, place, shape)
    rows = rows.expand(*shape, rows.shape[-1]).reshape(*shape, 1, rows.shape[-1])
    tail = picked.shape[len(shape) + 1 :]
    found = yield from product(site, rows, picked.reshape(*picked.shape[: len(shape) + 1], -1))
    return found.reshape(*shape, *tail)


def _pick(x: Shared | Tensor, indices: list[Value], place: int, shape: torch.Size) -> Shared | Tensor:
    """[*shape, n, ...]: entries at the public indices, the secret dimension of n kept behind them."""

    def pick(t: Tensor) -> Tensor:
        moved = t.movedim(place, len(indices) - 1)
        public = [beside(i, t.device).expand(shape) for i in indices if isinstance(i, Tensor)]
        return moved[tuple(public)]

    return x.local(pick) if isinstance(x, Shared) else pick(x)


@rule("aten.index_select.default", bound=same)
def _index_select(site: Site, x: Value, dim: int, index: Value) -> Any:
    """Entries along one dimension; of a table at secret places, equality with every place."""
    assert isinstance(x, Shared | Tensor)
    if isinstance(index, Shared):
        return _select_secret(site, x, dim, index)
    assert isinstance(x, Shared)
    assert isinstance(index, Tensor)
    places = beside(index, x.device)
    return x.local(lambda t: t.index_select(dim, places))


def _select_secret(site: Site, x: Shared | Tensor, dim: int, index: Shared) -> Step[Shared]:
    first = x.local(lambda t: t.movedim(dim, 0)) if isinstance(x, Shared) else x.movedim(dim, 0)
    rows = first.reshape(first.shape[0], -1)
    found = yield from embedding.embedding_of_ids(site.p, index.reshape(-1), rows, frac=site.p.frac)
    return found.reshape(-1, *first.shape[1:]).local(lambda t: t.movedim(0, dim))
