"""Names of call targets, and the composite ops that passes put in the place of ATen subgraphs.

A program file names its ops; only names with a rule are ever looked up, so a file cannot call anything else.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

Target = Callable[..., Any]


def affine(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """x @ w + b, w [in, out]: a linear layer with its weight transposed by the provider."""
    y = x @ w
    return y if b is None else y + b


def affine_plus(x: Tensor, w: Tensor, b: Tensor | None, y: Tensor, factor: Tensor) -> Tensor:
    """x @ w + y * factor + b: a linear layer that a norm's result joins, its own weight not applied yet."""
    return affine(x, w, b) + y * factor


def matmul(x: Tensor, y: Tensor, halvings: int = 0) -> Tensor:
    """(x @ y) * 2^-halvings: the scale costs nothing where the product is truncated anyway."""
    return torch.matmul(x, y) * 2.0**-halvings


def softmax(x: Tensor, dim: int, keep: Tensor | None = None) -> Tensor:
    """Softmax over the entries where the public mask `keep` is true; the others get 0. A row without any: uniform."""
    if keep is None:
        return torch.softmax(x, dim)
    masked = torch.where(keep, x, torch.full_like(x, torch.finfo(x.dtype).min))
    return torch.softmax(masked, dim)


def scores(q: Tensor, k: Tensor, halvings: int = 0) -> Tensor:
    """`matmul`, put off: `attend` asks for it, a part at a time."""
    return matmul(q, k, halvings)


def shifted(scores: Tensor, addend: Tensor) -> Tensor:
    """scores + addend, put off like the scores."""
    return scores + addend


def attend(scores: Tensor, values: Tensor, keep: Tensor | None = None) -> Tensor:
    """softmax(scores) @ values, over the last dimension of the scores."""
    return torch.matmul(softmax(scores, -1, keep), values)


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """x * rsqrt(mean(x^2) + eps) * weight over the last dimension."""
    y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return y if weight is None else y * weight


def unit(x: Tensor, dim: int, eps: float) -> Tensor:
    """x / max(|x|_2, eps) along `dim`."""
    return torch.nn.functional.normalize(x, dim=dim, eps=eps)


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


def number(ids: Tensor) -> Tensor:
    """The integers themselves, of an argument that travels as keys of places: a lookup in the table of all numbers."""
    return ids.clone()


def combine(xs: Sequence[Tensor], factors: Sequence[Tensor | float]) -> Tensor:
    """sum_i factors[i] * xs[i] for public factors: one truncation for the sum."""
    terms = [x * f for x, f in zip(xs, factors, strict=True)]
    return sum(terms[1:], terms[0])


COMPOSITE: dict[str, Target] = {
    "hush.affine": affine,
    "hush.affine_plus": affine_plus,
    "hush.matmul": matmul,
    "hush.softmax": softmax,
    "hush.scores": scores,
    "hush.shifted": shifted,
    "hush.attend": attend,
    "hush.rms_norm": rms_norm,
    "hush.unit": unit,
    "hush.quick_gelu": quick_gelu,
    "hush.combine": combine,
    "hush.number": number,
    "getitem": operator.getitem,
}
_NAMES: dict[Target, str] = {target: name for name, target in COMPOSITE.items()}


def op_name(target: Any) -> str:
    """ "aten.linear.default", "hush.affine", "getitem"..."""
    return _NAMES.get(target) or str(target)


def op_target(name: str) -> Target:
    """The callable of an op's name. ValueError for anything but ATen overloads and our composites."""
    if name in COMPOSITE:
        return COMPOSITE[name]
    parts = name.split(".")
    if len(parts) != 3 or parts[0] != "aten" or not all(p.replace("_", "a").isalnum() for p in parts):
        raise ValueError(f"{name!r} is no op")
    packet = getattr(torch.ops.aten, parts[1], None)
    overload = getattr(packet, parts[2], None)
    if not isinstance(overload, torch._ops.OpOverload):
        raise ValueError(f"{name!r} is no op")
    return overload


def args_of(node: Any) -> tuple[Any, ...]:
    """A node's arguments, for reading."""
    args: tuple[Any, ...] = node.args
    return args


def is_op(node: Any, *names: str) -> bool:
    """Whether a node calls one of the named ops."""
    return isinstance(node, fx.Node) and node.op == "call_function" and op_name(node.target) in names
