"""Einstein sums: operands are joined one after the other, each time by one batched matrix product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_letters
from typing import Any

import torch
from torch import Tensor

from hush.mpc.compiler.rules.contractions import product
from hush.mpc.compiler.rules.table import Site, rule
from hush.mpc.secret import Shared
from hush.mpc.step import Step

Named = tuple[Shared | Tensor, str]  # a tensor, and a letter for each dimension


@rule("aten.einsum.default")
def _einsum(site: Site, equation: str, operands: Sequence[Shared | Tensor], **_: Any) -> Step[Shared]:
    """Dimensions that are in one operand alone and not in the result are summed first, which is local."""
    names, out = _letters(site, equation, [o.ndim for o in operands])
    held: list[Named] = list(zip(operands, names, strict=True))
    left = _summed(held[0], out + "".join(names[1:]))
    for index, right in enumerate(held[1:], 1):
        later = out + "".join(names[index + 1 :])
        left = yield from _joined(site, left, _summed(right, left[1] + later), later)
    value, letters = left
    assert isinstance(value, Shared)
    return value.local(lambda t: t.permute([letters.index(c) for c in out]))


def _letters(site: Site, equation: str, dimensions: Sequence[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, dots spelled out."""
    inputs, arrow, out = equation.replace(" ", "").partition("->")
    spare = [c for c in ascii_letters if c not in equation]
    given = list(zip(inputs.split(","), dimensions, strict=True))
    names, widest = [_spelled(*g, spare) for g in given], max(_dots(*g) for g in given)
    every = "".join(names)
    if not arrow:
        out = "..." * ("..." in inputs) + "".join(sorted(c for c in set(every) - set(spare) if every.count(c) == 1))
    result = out.replace("...", "".join(spare[:widest][::-1]))
    if any(len(set(n)) != len(n) for n in (*names, result)):
        raise site.unsupported(f"einsum {equation!r}: diagonals have no rule")
    return names, result


def _dots(name: str, dimensions: int) -> int:
    return dimensions - len(name.replace("...", "")) if "..." in name else 0


def _spelled(name: str, dimensions: int, spare: Sequence[str]) -> str:
    """Dots stand for the same letters in every operand, counted from the right."""
    return name.replace("...", "".join(spare[: _dots(name, dimensions)][::-1]))


def _summed(held: Named, needed: str) -> Named:
    value, letters = held
    extra = tuple(i for i, c in enumerate(letters) if c not in needed)
    return (value.sum(extra), "".join(c for c in letters if c in needed)) if extra else held


def _joined(site: Site, left: Named, right: Named, later: str) -> Step[Named]:
    """The product of two operands, summed over what nothing later needs."""
    (a, an), (b, bn) = left, right
    if any(a.shape[an.index(c)] != b.shape[bn.index(c)] for c in an if c in bn):
        raise site.unsupported("an einsum that broadcasts a dimension of 1 has no rule: expand it first")
    sizes = dict(zip(an + bn, (*a.shape, *b.shape), strict=True))
    batch = [c for c in an if c in bn and c in later]
    shared = [c for c in an if c in bn and c not in later]
    rows, columns = [c for c in an if c not in bn], [c for c in bn if c not in an]
    x = _grouped(a, an, [batch, rows, shared], sizes)
    y = _grouped(b, bn, [batch, shared, columns], sizes)
    z = (yield from product(site, x, y)) if isinstance(x, Shared) or isinstance(y, Shared) else x @ y
    order = batch + rows + columns
    return z.reshape(*(sizes[c] for c in order)), "".join(order)


def _grouped(value: Shared | Tensor, letters: str, groups: Sequence[Sequence[str]], sizes: dict[str, int]) -> Any:
    order = [letters.index(c) for group in groups for c in group]
    shape = [math.prod(sizes[c] for c in group) for group in groups]

    def turned(t: Tensor) -> Tensor:
        return t.permute(order).reshape(shape)

    return value.local(turned) if isinstance(value, Shared) else turned(torch.as_tensor(value))
