"""What needs no message: sums, and products with public integers.

A public summand goes to component 0 alone: part 0 at party 0, part 1 at party 2. `zeroth` says which part that is; a
cost model, and party 1, have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hush.mpc.beside import filled, operand
from hush.mpc.fixed_point import encode
from hush.mpc.ring import Ring
from hush.mpc.ring.kernels import Kernels
from hush.mpc.secret import Shared

MAIN = torch.device("cpu")


def broadcast(*shapes: Sequence[int]) -> torch.Size:
    """The common shape of operands that broadcast."""
    return torch.Size(np.broadcast_shapes(*shapes))  # torch's own would import sympy, over a second, in mid-inference


def product_shape(x: torch.Size, y: torch.Size) -> torch.Size:
    """Shape of a batched matrix product."""
    if len(x) < 2 or len(y) < 2 or x[-1] != y[-2]:
        raise ValueError(f"no matrix product of shapes {tuple(x)} and {tuple(y)}")
    return torch.Size((*broadcast(x[:-2], y[:-2]), x[-2], y[-1]))


def same_kind(x: Shared, y: Shared, what: str) -> None:
    """Refuse operands of different rings or scales."""
    if x.ring != y.ring or x.frac != y.frac:
        raise ValueError(
            f"{what} of secrets in 2^{x.ring.bits} with {x.frac} fraction bits and in 2^{y.ring.bits} with {y.frac}: "
            "truncate or rescale one of them"
        )


def add(x: Shared, y: Shared) -> Shared:
    """x + y, broadcast."""
    same_kind(x, y, "sum")
    return replace(x, parts=tuple(x.ring.settle(a + b) for a, b in zip(x.parts, y.parts, strict=True)))


def sub(x: Shared, y: Shared) -> Shared:
    """x - y, broadcast."""
    same_kind(x, y, "difference")
    return replace(x, parts=tuple(x.ring.settle(a - b) for a, b in zip(x.parts, y.parts, strict=True)))


def neg(x: Shared) -> Shared:
    """-x."""
    return x.local(lambda t: x.ring.settle(-t))


def add_at_zero(x: Shared, element: Tensor | int, zeroth: int | None) -> Shared:
    """x + a public ring element, broadcast."""
    shape = x.shape
    if isinstance(element, Tensor):
        shape, element = broadcast(shape, element.shape), operand(element, x.device)
    parts = [p if shape == p.shape else p.expand(shape) for p in x.parts]
    if zeroth is not None:
        parts[zeroth] = x.ring.settle(parts[zeroth] + element)
    return replace(x, parts=tuple(parts))


def add_public(x: Shared, value: Tensor | float, zeroth: int | None) -> Shared:
    """x + a public real, encoded at x's scale."""
    return add_at_zero(x, encode(value, x.ring, x.frac), zeroth)


def constant(
    value: Tensor | float, frac: int, ring: Ring, zeroth: int | None, parts: int = 2, device: torch.device = MAIN
) -> Shared:
    """A public value as component 0, the others zero, on the device that computes."""
    element = filled(encode(value, ring, frac), device)
    zeros = torch.zeros((), dtype=ring.dtype, device=element.device).expand(element.shape)
    return Shared(tuple(element if i == zeroth else zeros for i in range(parts)), frac, ring)


def integers(factor: Tensor | int, ring: Ring) -> Tensor:
    """A public integer tensor as ring elements."""
    tensor = torch.as_tensor(factor)
    if tensor.is_floating_point() or tensor.is_complex():
        raise ValueError(f"an exact product needs public integers, not {tensor.dtype}: use mul_public for reals")
    return ring.reduce(tensor.to(torch.int64))


def scale(x: Shared, factor: Tensor | int) -> Shared:
    """x * public integers, broadcast, exact."""
    element = operand(integers(factor, x.ring), x.device)
    return x.local(lambda t: x.ring.settle(t * element))


def affine(
    kernels: Kernels,
    xs: Sequence[Shared],
    factors: Sequence[int],
    biases: Sequence[float],
    frac: int,
    zeroth: int | None,
) -> Shared:
    """sum_i factors[i] * xs[i] of ring elements, read at `frac`, plus public reals; one pass a part."""
    first, ring = xs[0], xs[0].ring
    if any(x.ring != ring or x.shape != first.shape for x in xs):
        raise ValueError("a sum of multiples takes secrets of one ring and shape: expand or truncate them first")
    constant = sum(int(encode(bias, ring, frac)) for bias in biases)
    flat = [[part.reshape(-1) for part in x.parts] for x in xs]
    parts = [
        kernels.blend([own[i] for own in flat], factors, constant if i == zeroth else 0, ring).reshape(first.shape)
        for i in range(len(first.parts))
    ]
    return Shared(tuple(parts), frac, ring)


def coarser(x: Shared, frac: int) -> None:
    """Refuse a truncation to a finer scale."""
    if frac > x.frac:
        raise ValueError(f"truncate goes to a coarser scale only: {x.frac} to {frac} fraction bits needs rescale")


def rescale(x: Shared, frac: int) -> Shared:
    """The same value at a finer scale."""
    if frac < x.frac:
        raise ValueError(f"rescale from {x.frac} to {frac} fraction bits would drop some: use truncate")
    if frac == x.frac:
        return x
    up = frac - x.frac
    return replace(x.local(lambda t: x.ring.settle(t << up)), frac=frac)
