"""Ops that only move entries: each party applies them to its own parts."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hush.mpc.compiler.ops import op_name, op_target
from hush.mpc.compiler.passes.rewrite import CONVERSIONS
from hush.mpc.compiler.rules.bounds import of_list, padded, same
from hush.mpc.compiler.rules.table import Site, Value, rule
from hush.mpc.compiler.types import Kind, type_of
from hush.mpc.points import Points
from hush.mpc.secret import Shared, concat, stack

Index = Any


def _aten(*names: str) -> list[str]:
    return [f"aten.{n}" for n in names]


def _keep_last(site: Site, x: Shared | Points, move: Any) -> Any:
    """Apply a rearrangement; one-hot rows travel along as a last dimension."""
    if site.type.kind in (Kind.ONEHOT, Kind.POINT):
        return x.local(lambda t: torch.func.vmap(move, in_dims=-1, out_dims=-1)(t))
    return x.local(move)


_VIEWS = tuple(_aten("view.default", "reshape.default", "_unsafe_view.default"))
_MOVES = tuple(
    _aten(
        "transpose.int",
        "permute.default",
        "t.default",
        "unsqueeze.default",
        "squeeze.dim",
        "squeeze.default",
        "squeeze.dims",
        "expand.default",
        "select.int",
        "slice.Tensor",
        "flatten.using_ints",
        "roll.default",
        "flip.default",
        "repeat.default",
        "repeat_interleave.self_int",
        "movedim.int",
        "swapaxes.default",
    )
)
KEEPS_ROWS = _VIEWS + _MOVES
"""Ops under which a one-hot integer stays one."""


@rule(*_VIEWS, onehot=True, exact=True, bound=same)
def _view(site: Site, x: Shared | Points, shape: Sequence[int]) -> Any:
    # parts need not be laid out in memory as the plain tensor was
    return _keep_last(site, x, lambda t: t.reshape(list(shape)))


@rule(*_MOVES, onehot=True, exact=True, bound=same)
def _rearrange(site: Site, x: Shared | Points | Tensor, *args: Any, **kwargs: Any) -> Any:
    target: Callable[..., Tensor] = op_target(op_name(site.node.target))

    def move(t: Tensor) -> Tensor:
        return target(t, *args, **kwargs)

    return _keep_last(site, x, move) if isinstance(x, Shared | Points) else move(x)


@rule(*_aten("unfold.default", "diagonal.default", "tril.default", "triu.default", "pixel_shuffle.default"), bound=same)
def _rearrange_values(site: Site, x: Shared, *args: Any) -> Shared:
    target: Callable[..., Tensor] = op_target(op_name(site.node.target))
    return x.local(lambda t: target(t, *args))


@rule(*_aten("split.Tensor", "split_with_sizes.default", "chunk.default", "unbind.int"), bound=same)
def _split(site: Site, x: Shared, *args: Any) -> list[Shared]:
    target = op_target(op_name(site.node.target))
    pieces = [target(t, *args) for t in x.parts]
    return [replace(x, parts=tuple(parts)) for parts in zip(*pieces, strict=True)]


@rule("getitem", exact=True, bound=same)
def _getitem(site: Site, values: Sequence[Any], index: int) -> Any:
    return operator.getitem(values, index)


def alike(site: Site, values: Sequence[Value]) -> list[Shared]:
    """Operands of a concatenation at one scale, constants and public weights among them."""
    secrets = [v for v in values if isinstance(v, Shared)]
    finest = max(secrets, key=lambda s: s.frac)
    if site.real:
        finest = site.as_real(finest)
    return [site.secret(v, finest) for v in values]


@rule(*_aten("cat.default"), bound=of_list)
def _cat(site: Site, values: Sequence[Value], dim: int = 0) -> Shared:
    return concat(alike(site, values), dim)


@rule(*_aten("stack.default"), bound=of_list)
def _stack(site: Site, values: Sequence[Value], dim: int = 0) -> Shared:
    return stack(alike(site, values), dim)


@rule(*CONVERSIONS, exact=True, bound=same)
def _convert(site: Site, x: Shared, *_: Any, **__: Any) -> Any:
    """Between real, integer and bit: lifting is local; a truth value of an integer is a comparison with 0."""
    source = site.node.args[0]
    kind = type_of(source).kind  # type: ignore[arg-type]
    if site.type.kind is kind or (kind is Kind.BOOL and site.type.kind is Kind.INT):
        return x
    if site.type.kind is Kind.REAL:
        return x  # exact: a rule that needs fraction bits gets them
    if site.type.kind is Kind.BOOL:
        return _nonzero(site, x)
    if kind in (Kind.ONEHOT, Kind.ID):
        return x
    raise site.unsupported("rounding a secret real to an integer has no rule")


def _nonzero(site: Site, x: Shared) -> Any:
    zero = yield from site.p.is_zero(x, bound=site.bound(0))
    return (yield from site.p.from_bits(site.p.invert(zero)))[0]


@rule(*_aten("pad.default", "constant_pad_nd.default"), bound=padded)
def _pad(site: Site, x: Shared, pad: Sequence[int], *rest: Any) -> Shared:
    mode = rest[0] if rest and isinstance(rest[0], str) else "constant"
    fill = next((r for r in rest if isinstance(r, int | float)), 0)
    if mode == "constant":
        padded = x.local(lambda t: torch.nn.functional.pad(t, list(pad)))
        if not fill:
            return padded
        outside = torch.nn.functional.pad(torch.zeros(x.shape, device=x.device), list(pad), value=1.0)
        return site.p.add_public(padded, outside * fill)
    places = torch.arange(x.numel, dtype=torch.float64).reshape(x.shape)
    places = torch.nn.functional.pad(places, list(pad), mode=mode).long()
    return x.reshape(-1)[places]
