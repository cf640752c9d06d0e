"""The table: a row per primitive and way to use it. Adding a primitive means adding a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hush.mpc.protocol import ConvShape, Protocol
from hush.mpc.ring import RING32, RING64
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together
from tests.conformance.harness import NARROW, ONE_ULP, Case, Places, Setting


@dataclass(frozen=True)
class Row:
    """`covers`: the primitive's name. `rings`: widths in which it makes sense."""

    covers: str
    make: Callable[[Setting], Case]
    rings: tuple[int, ...] = (64, 32)


ROWS: dict[str, Row] = {}


def row(
    covers: str, what: str = "", rings: tuple[int, ...] = (64, 32)
) -> Callable[[Callable[[Setting], Case]], Callable[[Setting], Case]]:
    """Enter a case into the table."""

    def enter(make: Callable[[Setting], Case]) -> Callable[[Setting], Case]:
        name = f"{covers} {what}".strip()
        assert name not in ROWS
        ROWS[name] = Row(covers, make, rings)
        return make

    return enter


def _beside(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts with another one, in both directions where there is room."""
    return (*([3] if len(shape) == 1 else []), *(1 if i % 2 else n for i, n in enumerate(shape)))


def _rows_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A batch of matrices [*, n, 3]."""
    return (*(shape or (1,)), 3) if len(shape) != 1 else (1, *shape, 3)


# ---------------------------------------------------------------------- local
@row("constant")
def _(s: Setting) -> Case:
    value = s.public(s.shape)
    return Case(lambda p: p.constant(value), [])


@row("constant", "at its own scale")
def _(s: Setting) -> Case:
    value = s.units(s.shape).double()
    return Case(lambda p: p.constant(value, frac=0, ring=RING64), [])


@row("add")
def _(s: Setting) -> Case:
    return Case(lambda p, x, y: p.add(x, y), [s.wild(), s.wild(_beside(s.shape))])


@row("sub")
def _(s: Setting) -> Case:
    return Case(lambda p, x, y: p.sub(x, y), [s.wild(), s.wild(_beside(s.shape))])


@row("sub", "of reals")
def _(s: Setting) -> Case:
    return Case(lambda p, x, y: p.sub(p.add(x, x), y), [s.real(), s.real(_beside(s.shape))])


@row("neg")
def _(s: Setting) -> Case:
    return Case(lambda p, x: p.neg(x), [s.wild()])


@row("add_public")
def _(s: Setting) -> Case:
    value = s.public(_beside(s.shape))
    return Case(lambda p, x: p.add_public(p.add_public(x, value), -1.5), [s.real()])


@row("scale")
def _(s: Setting) -> Case:
    factor = s.units(_beside(s.shape))
    return Case(lambda p, x: p.scale(p.scale(x, factor), -3), [s.wild()])


@row("rescale")
def _(s: Setting) -> Case:
    return Case(lambda p, x: p.rescale(x, s.frac + 3), [s.wild()])


@row("matmul_int")
def _(s: Setting) -> Case:
    matrix = s.units((3, 4))
    return Case(lambda p, x: p.matmul_int(x, matrix), [s.wild(_rows_of(s.shape))])


# ---------------------------------------------------------------------- products
@row("mul")
def _(s: Setting) -> Case:
    return Case(lambda p, x, y: p.mul(x, y), [s.real(), s.real(_beside(s.shape))], ONE_ULP)


@row("mul", "exact")
def _(s: Setting) -> Case:
    return Case(lambda p, x, y: p.mul(x, y, frac=2 * s.frac), [s.wild(), s.wild(_beside(s.shape))])


@row("mul", "of integers, to a finer scale")
def _(s: Setting) -> Case:
    return Case(lambda p, x, y: p.mul(x, y, frac=3), [s.real(frac=0), s.real(frac=0)])


@row("mul", "to a coarse scale")
def _(s: Setting) -> Case:
    return Case(lambda p, x, y: p.mul(x, y, frac=2), [s.real(), s.real()], ONE_ULP)


@row("mul", "into a narrow ring", (64,))
def _(s: Setting) -> Case:
    return Case(lambda p, x, y: p.mul(x, y, frac=9, ring=RING32), [s.real(), s.real(_beside(s.shape))], NARROW)


@row("mul", "into a wide ring", (32,))
def _(s: Setting) -> Case:
    return Case(lambda p, x, y: p.mul(x, y, ring=RING64), [s.real(), s.real(_beside(s.shape))], ONE_ULP)


@row("matmul")
def _(s: Setting) -> Case:
    return Case(lambda p, x, y: p.matmul(x, y), [s.real(_rows_of(s.shape)), s.real((3, 4))], ONE_ULP)


@row("matmul", "exact, of batches")
def _(s: Setting) -> Case:
    left = _rows_of(s.shape)
    right = (*left[:-2], 3, 2)
    return Case(lambda p, x, y: p.matmul(x, y, frac=2 * s.frac), [s.wild(left), s.wild(right)])


@row("matmul", "into a narrow ring", (64,))
def _(s: Setting) -> Case:
    arguments = [s.real(_rows_of(s.shape)), s.real((3, 4))]
    return Case(lambda p, x, y: p.matmul(x, y, frac=9, ring=RING32), arguments, NARROW)


@row("matmul", "with a product beside it")
def _(s: Setting) -> Case:
    rows = _rows_of(s.shape)
    arguments = [s.real(rows), s.real((3, 4)), s.real((*rows[:-1], 4)), s.real((4,))]
    return Case(lambda p, x, w, y, f: p.matmul_add(x, w, y, f), arguments, ONE_ULP)


@row("matmul_public", "with a product beside it")
def _(s: Setting) -> Case:
    rows, matrix, factor = _rows_of(s.shape), s.public((3, 4)), s.public((4,))
    return Case(lambda p, x, y: p.matmul_add(x, matrix, y, factor), [s.real(rows), s.real((*rows[:-1], 4))], ONE_ULP)


@row("matmul_public", "with a product beside it, exact")
def _(s: Setting) -> Case:
    rows, matrix, factor = _rows_of(s.shape), s.public((3, 4)), s.public((4,))
    arguments = [s.real(rows), s.real((*rows[:-1], 4))]
    return Case(lambda p, x, y: p.matmul_add(x, matrix, y, factor, frac=2 * s.frac), arguments)


@row("conv")
def _(s: Setting) -> Case:
    geometry = ConvShape((2, 1), (1, 0), (1, 2), groups=2)
    return Case(lambda p, x, w: p.conv(x, w, geometry), [s.real((2, 4, 5, 6)), s.real((6, 2, 2, 3))], ONE_ULP)


@row("conv", "exact, in one dimension")
def _(s: Setting) -> Case:
    geometry, numel = ConvShape((2,), (3,), (2,)), max(1, torch.Size(s.shape).numel())
    arguments = [s.wild((1, 2, numel)), s.wild((3, 2, 3))]
    return Case(lambda p, x, w: p.conv(x, w, geometry, frac=2 * s.frac), arguments)


@row("mul_public")
def _(s: Setting) -> Case:
    value = s.public(_beside(s.shape))
    return Case(lambda p, x: p.mul_public(x, value), [s.real()], ONE_ULP)


@row("mul_public", "by a number, at scales of its own")
def _(s: Setting) -> Case:
    return Case(lambda p, x: p.mul_public(x, -1.375, frac=s.frac - 2, scale=3), [s.real()], ONE_ULP)


@row("mul_public", "exact")
def _(s: Setting) -> Case:
    return Case(lambda p, x: p.mul_public(x, 0.75, frac=s.frac + 2, scale=2), [s.wild()])


@row("matmul_public")
def _(s: Setting) -> Case:
    matrix = s.public((3, 4))
    return Case(lambda p, x: p.matmul_public(x, matrix), [s.real(_rows_of(s.shape))], ONE_ULP)


@row("matmul_public", "of batches")
def _(s: Setting) -> Case:
    left = _rows_of(s.shape)
    matrix = s.public((*left[:-2], 3, 2))
    return Case(lambda p, x: p.matmul_public(x, matrix), [s.real(left)], ONE_ULP)


@row("conv_public")
def _(s: Setting) -> Case:
    geometry, kernel = ConvShape((1, 2), (0, 2), (1, 1), groups=2), s.public((6, 2, 2, 3))
    return Case(lambda p, x: p.conv_public(x, kernel, geometry), [s.real((2, 4, 5, 6))], ONE_ULP)


@row("combine")
def _(s: Setting) -> Case:
    factor, bias = s.public(_beside(s.shape)), s.public(s.shape)
    arguments = [s.real(), s.real(), s.real()]
    return Case(lambda p, x, y, z: p.combine([x, y, z], [0.5, factor, -1.25], bias), arguments, ONE_ULP)


@row("combine", "exact")
def _(s: Setting) -> Case:
    arguments = [s.wild(), s.wild(_beside(s.shape))]
    return Case(lambda p, x, y: p.combine([x, y], [0.5, -3.0], 2.0, frac=s.frac + 1, scale=1), arguments)


@row("truncate")
def _(s: Setting) -> Case:
    return Case(lambda p, x: p.truncate(x, 5), [s.real()], ONE_ULP)


@row("truncate", "of nothing")
def _(s: Setting) -> Case:
    return Case(lambda p, x: p.truncate(x, s.frac), [s.wild()])


@row("truncate", "exactly")
def _(s: Setting) -> Case:
    return Case(lambda p, x: p.truncate(x, 4, exact=True), [s.real()])


@row("truncate", "into a narrow ring", (64,))
def _(s: Setting) -> Case:
    return Case(lambda p, x: p.truncate(x, 9, ring=RING32), [s.real()], NARROW)


@row("truncate", "exactly, into a narrow ring", (64,))
def _(s: Setting) -> Case:
    return Case(lambda p, x: p.truncate(x, 9, ring=RING32, exact=True), [s.real()])


@row("truncate", "into a wide ring", (32,))
def _(s: Setting) -> Case:
    return Case(lambda p, x: p.truncate(x, 4, ring=RING64), [s.real()], ONE_ULP)


# ---------------------------------------------------------------------- lookups
@row("lookup", "in a secret table")
def _(s: Setting) -> Case:
    return Case(lambda p, places, table: p.lookup(places, table), [s.places(5), s.wild((5, 3))])


@row("lookup", "in a secret table of fewer rows, at a scale of its own")
def _(s: Setting) -> Case:
    whole = s.places(9)
    low = Places(whole.ids.clamp(max=6), 9)
    return Case(lambda p, places, table: p.lookup(places, table), [low, s.real((7, 2), frac=4)])


@row("lookup", "in a public table")
def _(s: Setting) -> Case:
    table = s.public((5, 3))
    return Case(lambda p, places: p.lookup(places, table), [s.places(5)])


@row("lookup", "of integers")
def _(s: Setting) -> Case:
    table = torch.arange(6).reshape(-1, 1)
    return Case(lambda p, places: p.lookup(places, table, frac=0), [s.places(6)])


# ---------------------------------------------------------------------- bits
@row("negative")
def _(s: Setting) -> Case:
    bound = 2.0 ** (s.top - s.frac)
    return Case(lambda p, x: p.negative(x, bound=bound), [s.real()])


@row("negative", "on the whole ring")
def _(s: Setting) -> Case:
    bound = 2.0 ** (s.ring.bits - 1 - s.frac)
    return Case(lambda p, x: p.negative(x, bound=bound), [s.wild()])


@row("negative", "without the low bits")
def _(s: Setting) -> Case:
    x, drop = s.real(), 4
    near = (x.value >= 0) & (x.value < 2.0 ** (drop - s.frac))
    bound = 2.0 ** (s.top - s.frac)
    return Case(lambda p, x: p.negative(x, bound=bound, drop=drop), [x], anywhere=near)


@row("is_zero")
def _(s: Setting) -> Case:
    bound = 2.0 ** (s.top - s.frac)
    return Case(lambda p, x: p.is_zero(x, bound=bound), [s.real()])


@row("to_bits")
def _(s: Setting) -> Case:
    return Case(lambda p, x: p.to_bits(x, planes=11), [s.real()])


@row("to_bits", "of the whole ring")
def _(s: Setting) -> Case:
    return Case(lambda p, x: p.to_bits(x, planes=s.ring.bits), [s.wild()])


@row("xor")
def _(s: Setting) -> Case:
    return Case(lambda p, a, b: p.xor(a, b), [s.bits(5), s.bits(5)])


@row("xor", "with a single plane")
def _(s: Setting) -> Case:
    return Case(lambda p, a, b: p.xor(a, b), [s.bits(5), s.bits(1)])


@row("invert")
def _(s: Setting) -> Case:
    return Case(lambda p, a: p.invert(a), [s.bits(3)])


@row("both")
def _(s: Setting) -> Case:
    return Case(lambda p, a, b: p.both(a, b), [s.bits(5), s.bits(5)])


@row("both", "with a single plane")
def _(s: Setting) -> Case:
    return Case(lambda p, a, b: p.both(b, a), [s.bits(5), s.bits(1)])


@row("from_bits")
def _(s: Setting) -> Case:
    return Case(lambda p, a: p.from_bits(a), [s.bits(3)])


@row("from_bits", "into a ring of its own")
def _(s: Setting) -> Case:
    return Case(lambda p, a: p.from_bits(a, ring=RING32), [s.bits(1)])


@row("select")
def _(s: Setting) -> Case:
    return Case(lambda p, b, x: p.select(b, x), [s.bits(1), s.wild()])


# ---------------------------------------------------------------------- order of elements
def _sorted(t: Tensor) -> Tensor:
    return torch.tensor(sorted(t.flatten(1).tolist() if t.ndim > 1 else t.tolist())).reshape(t.shape)


@row("shuffle")
def _(s: Setting) -> Case:
    return Case(lambda p, x: p.shuffle(x), [s.wild(s.shape or (4,))], canonical=_sorted)


@row("open")
def _(s: Setting) -> Case:
    return Case(lambda p, x: p.open(x), [s.wild()])


@row("open", "of reals")
def _(s: Setting) -> Case:
    return Case(lambda p, x: p.open(x), [s.real()])


@row("contribute")
def _(s: Setting) -> Case:
    value = s.public(s.shape)
    return Case(lambda p, x: _dealt(p, x, value), [s.real()])


def _dealt(p: Protocol, x: Shared, value: Tensor) -> Step[Shared]:
    """Two parties deal, and their sum joins a secret."""
    first, second = yield from together(
        p.contribute(lambda: value, tuple(value.shape), dealer=0),
        p.contribute(lambda: -value, tuple(value.shape), dealer=2),
    )
    return p.add(p.add(x, first), second)
