"""Whether the rules cover a graph's calls, arguments and all: each is started, and stopped at its first primitive.

Rules refuse what they do not cover before they compute, so nothing is computed here, and no protocol is needed.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast

import torch
from torch import fx

from hush.mpc.compiler.capture import Draft
from hush.mpc.compiler.ops import is_op
from hush.mpc.compiler.rules import Rule, Site, rule_for
from hush.mpc.compiler.types import Kind, Visibility, type_of
from hush.mpc.points import Points
from hush.mpc.protocol import Protocol
from hush.mpc.ring import Ring
from hush.mpc.secret import Shared


class _BegunError(Exception):
    """A rule has reached its first primitive."""


class _Stop:
    """In the place of a protocol: known by its numbers, and no primitive of it returns."""

    def __init__(self, ring: Ring, frac: int) -> None:
        self.ring, self.frac = ring, frac

    def __getattr__(self, name: str) -> Any:
        raise _BegunError


def check_forms(draft: Draft, *, approx: str, weights: str, ring: Ring, frac: int) -> None:
    """UnsupportedOp for the first secret op of a typed graph that has no rule, or none for its arguments."""
    stop = _Stop(ring, frac)
    for node in draft.graph.nodes:
        if node.op != "call_function" or type_of(node).visibility is not Visibility.SECRET:
            continue
        rule = rule_for(node)
        if not is_op(node, "getitem"):  # its operand is a list, whose types are those of its entries
            site = Site(cast(Protocol, stop), node, approx)
            _begin(draft, rule, site, secret_weights=weights == "secret")


def _begin(draft: Draft, rule: Rule, site: Site, *, secret_weights: bool) -> None:
    def stand_in(operand: fx.Node) -> Any:
        return _stand_in(draft, rule, site.p, operand, secret_weights)

    args, kwargs = fx.map_arg((tuple(site.node.args), dict(site.node.kwargs)), stand_in)
    try:
        made = rule.body(site, *args, **kwargs)
        if isinstance(made, Generator):
            next(made, None)
    except _BegunError:
        return
    except ValueError as error:
        raise site.unsupported(str(error)) from error


def _stand_in(draft: Draft, rule: Rule, p: Protocol, operand: fx.Node, secret_weights: bool) -> Any:
    """An operand's shape and scale without its values; constants as they are, for they are public."""
    typed = type_of(operand)
    if typed.visibility is Visibility.PUBLIC:
        return draft.tensors[str(operand.target)]
    if typed.kind is Kind.PLACE:
        return torch.zeros(typed.shape, dtype=torch.int64)
    if typed.visibility is Visibility.WEIGHT and not secret_weights:
        return torch.zeros(()).expand(typed.shape)
    if typed.kind is Kind.POINT:
        return Points((torch.zeros((), dtype=torch.uint8, device="meta").expand(*typed.shape, 1),), int(typed.bound))
    rows = typed.kind is Kind.ONEHOT and rule.onehot
    shape = (*typed.shape, int(typed.bound)) if rows else typed.shape
    blank = torch.zeros((), dtype=p.ring.dtype, device="meta").expand(shape)
    return Shared((blank,), p.frac if typed.kind is Kind.REAL else 0, p.ring)
