"""How large a value can get, from the op alone: bounds of |result| in terms of the operands', for `@rule(bound=...)`.

Each takes a node whose operands are typed, and gives a bound that holds for every input within theirs, or None.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, fx

from hush.mpc.compiler.ops import args_of, op_name
from hush.mpc.compiler.rules.table import RULES, Bound
from hush.mpc.compiler.types import META, Type


def proven_bound(node: fx.Node) -> float | None:
    """A bound that holds for every input within the operands' bounds; None where the op's rule declares none."""
    found = RULES.get(op_name(node.target)) if node.op == "call_function" else None
    return None if found is None or found.bound is None else found.bound(node)


def magnitude(value: Any) -> float | None:
    """The bound of an operand: a node's, or the size of a number."""
    if isinstance(value, fx.Node):
        typed: Type | None = value.meta.get(META)
        return None if typed is None else typed.bound
    if isinstance(value, Tensor):
        return float(value.double().abs().max())
    return abs(float(value)) if isinstance(value, bool | int | float) else None


def options(node: fx.Node, *defaults: float) -> list[float]:
    """The numbers behind the first argument, defaults where the call leaves them out."""
    given = [float(a) for a in args_of(node)[1:]]
    return [*given, *defaults[len(given) :]]


def at_most(limit: float) -> Bound:
    """No more than a number."""
    return lambda _: limit


one = at_most(1.0)
"""Truth values, probabilities, sines."""


def largest(*operands: int) -> Bound:
    """The largest of the operands at these places."""

    def bound(node: fx.Node) -> float | None:
        found = [magnitude(args_of(node)[i]) for i in operands if i < len(args_of(node))]
        return None if None in found else max(b for b in found if b is not None)

    return bound


same = largest(0)
"""The first operand's: rearrangements, means, and functions with |f(x)| <= |x|."""


def scaled(factor: float) -> Bound:
    """So many times the first operand's."""

    def bound(node: fx.Node) -> float | None:
        found = magnitude(args_of(node)[0])
        return None if found is None else found * factor

    return bound


def summed(node: fx.Node) -> float | None:
    """a + alpha * b."""
    a, b = magnitude(args_of(node)[0]), magnitude(args_of(node)[1])
    alpha: Any = node.kwargs.get("alpha", 1)
    factor = abs(float(alpha))
    return None if a is None or b is None else a + factor * b


def multiplied(node: fx.Node) -> float | None:
    """a * b."""
    a, b = magnitude(args_of(node)[0]), magnitude(args_of(node)[1])
    return None if a is None or b is None else a * b


def of_list(node: fx.Node) -> float | None:
    """The largest of a list of operands."""
    found = [magnitude(a) for a in args_of(node)[0]]
    return None if None in found else max((b for b in found if b is not None), default=0.0)


def along(node: fx.Node) -> float | None:
    """Sums along the dimensions of the second argument, along all without one."""
    bound, shape = magnitude(args_of(node)[0]), args_of(node)[0].meta[META].shape
    dim = args_of(node)[1] if len(args_of(node)) > 1 else None
    if bound is None or not shape:
        return bound
    dims: list[int] = [dim] if isinstance(dim, int) else list(dim or range(len(shape)))
    return float(bound * math.prod(shape[d] for d in dims))


def place(node: fx.Node) -> float | None:
    """An index into the dimension of the second argument, or into all."""
    shape = args_of(node)[0].meta[META].shape
    dim = args_of(node)[1] if len(args_of(node)) > 1 else None
    return float(math.prod(shape) if dim is None else shape[dim])


def clamped(node: fx.Node) -> float | None:
    """Limits in the place of the second and third argument, either of which may be missing."""
    limits = [float(a) for a in args_of(node)[1:3] if isinstance(a, int | float)]
    bound = magnitude(args_of(node)[0])
    if len(limits) == 2:
        return max(map(abs, limits))
    return None if bound is None else max([bound, *map(abs, limits)])


def padded(node: fx.Node) -> float | None:
    """What is filled in counts too."""
    bound, fill = magnitude(args_of(node)[0]), [a for a in args_of(node)[2:] if isinstance(a, int | float)]
    return None if bound is None else max([bound, *map(abs, fill)])
