"""Cases of `test_cuda.py`: products by limbs and by residues in each of their ways and layouts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from integers import EXTREMES, elements, strided
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hush.mpc.errors import ShapeError
from hush.mpc.ring import Ring, backends
from hush.mpc.ring.cuda import backend, convolve, limbs, residues, tiles
from hush.mpc.ring.cuda.launch import launch
from hush.mpc.ring.cuda.tiles import Tile

REFERENCE = backends.get("torch")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RINGS = [Ring(64), Ring(32), Ring(45), Ring(1)]
TINY = Tile(16, 16, 32, 4)
LOW = 0x7F7F7F7F7F7F7F80  # -128 in every limb


def products(x: Tensor, y: Tensor, ring: Ring, tile: Tile | None = None) -> Iterator[tuple[str, Tensor]]:
    """x [items, M, K] @ y [items or 1, K, N] by each way."""
    x, y = x.to(DEVICE), y.to(DEVICE)
    for split_right in (limbs.split_right, limbs.split):
        left, right = limbs.split(x, ring.bits), split_right(y, ring.bits)
        yield "limbs", limbs.product(left, right, ring.dtype, tile)
        if tile is None and limbs.stacked_rows(left) <= 128:
            yield "stacked limbs", limbs.few(left, right, ring.dtype)
    left, right = residues.split(x, ring.bits), residues.split_right(y, ring.bits)
    yield "residues", residues.product(left, right, ring.dtype, tile)


def same(x: Tensor, y: Tensor, ring: Ring, tile: Tile | None = None) -> None:
    due = REFERENCE.matmul(x, y, ring)
    for name, made in products(x, y, ring, tile):
        assert made.dtype == ring.dtype, name
        assert torch.equal(ring.settle(made).cpu(), due), name


@pytest.mark.parametrize("rows", [1, 3, 16, 17])
def test_few_rows_and_some_more(rows: int) -> None:
    """By limbs below each other and one by one; of one column and of more than a tile has, of odd depths."""
    for ring in RINGS:
        for items, k, n in ((1, 37, 1), (2, 13, 35)):
            same(elements(1, ring, items, rows, k), elements(2, ring, 1, k, n), ring)
    same(elements(3, Ring(64), 1, rows, 260), elements(4, Ring(64), 1, 260, 70), Ring(64))


def test_tiles_of_a_parameter_in_bands() -> None:
    """More than eight rows of tiles, so two bands, the second of them lower, and more than one item."""
    ring = Ring(11)
    same(elements(1, ring, 2, 16 * 9 + 3, 33), elements(2, ring, 2, 33, 16 + 1), ring, TINY)


@triton.jit
def _order(out, down, across):
    row, column = tiles.tile_at(tl.program_id(0), down, across)
    tl.store(out + tl.program_id(0), row * across + column)


def test_every_tile_is_taken_once_eight_rows_at_a_time() -> None:
    for down, across in ((1, 1), (3, 5), (8, 2), (9, 4), (21, 3)):
        order = torch.empty(down * across, dtype=torch.int32, device=DEVICE)
        launch(_order, (down * across,), order, down, across)
        assert order.sort().values.tolist() == list(range(down * across))
        assert {number // across for number in order[:8].tolist()} == set(range(min(8, down)))


def test_tiles_by_default() -> None:
    large = limbs.LARGE
    found = {shape: tiles.fitting(*shape, large) for shape in ((1, 4096), (17, 4096), (128, 64), (20, 20), (900, 4))}
    assert list(found.values()) == [tiles.FEWEST, tiles.FEW, tiles.MIDDLE, tiles.SMALL, tiles.SMALL]
    assert tiles.fitting(65, 65, large) == large
    assert {rows: tile.rows for rows, tile in limbs.STACKED.items()} == {16: 16, 32: 32, 64: 64, 128: 128}


def test_large_tiles() -> None:
    """As large products take them."""
    ring = Ring(64)
    same(elements(1, ring, 1, 130, 70), elements(2, ring, 1, 70, 131), ring)


def test_more_items_than_a_second_dimension_of_a_grid_has() -> None:
    """65535 is the most there; the grid is the first alone, as its launch shows."""
    for module, split_right in ((limbs, limbs.split_right), (residues, residues.split_right)):
        with launched(module) as grids:
            left, right = module.split(torch.ones(70_000, 1, 1), 8), split_right(torch.ones(70_000, 1, 1), 8)
            module.product(left, right, torch.int32)
            module.product(left, right, torch.int32, TINY)
        assert all(len(grid) == 1 for grid in grids)
        assert max(grids)[0] >= 70_000
    g = convolve.Geometry.of(torch.Size((1, 70_000, 1)), torch.Size((70_000 * 8, 1, 1)), ((1,), (0,), (1,)), 70_000)
    with launched(convolve) as grids:
        convolve.product(torch.zeros(1, 70_000), torch.zeros(1, 560_000, 1), g, torch.int32)
    assert grids == [(70_000,)]


@contextmanager
def launched(module: Any) -> Iterator[list[tuple[int, ...]]]:
    """Grids that a module asks for instead of launches."""
    grids: list[tuple[int, ...]] = []
    before, module.launch = module.launch, lambda kernel, grid, *_, **__: grids.append(grid)
    try:
        yield grids
    finally:
        module.launch = before


def test_sums_of_the_largest_limbs_are_cut_before_they_wrap() -> None:
    """A depth at which int32 would wrap where the ring still sees it, by both kernels; uncut, it does."""
    ring, depth = Ring(64), 1 << 15
    x, y = torch.full((1, 1, depth), LOW), torch.full((1, depth, 1), LOW)
    left, right = limbs.split(x.to(DEVICE), 64), limbs.split_right(y.to(DEVICE), 64)
    due, deep = REFERENCE.matmul(x, y, ring), Tile(16, 16, 4096, 4) if DEVICE.type == "cpu" else TINY
    assert torch.equal(limbs.product(left, right, torch.int64, deep).cpu(), due)
    before, limbs._DEPTH = limbs._DEPTH, 1 << 20
    try:
        assert not torch.equal(limbs.product(left, right, torch.int64, deep).cpu(), due)
    finally:
        limbs._DEPTH = before


def test_stacked_limbs_are_cut_too() -> None:
    ring, before = Ring(64), limbs._DEPTH
    limbs._DEPTH = 100
    try:
        for k in (99, 100, 101, 330):
            x, y = torch.full((2, 3, k), LOW), elements(1, ring, 2, k, 2)
            left, right = limbs.split(x.to(DEVICE), 64), limbs.split_right(y.to(DEVICE), 64)
            assert torch.equal(limbs.few(left, right, torch.int64).cpu(), REFERENCE.matmul(x, y, ring))
    finally:
        limbs._DEPTH = before


def test_operands_of_any_layout() -> None:
    ring = Ring(64)
    for how in (0, 1, 2):
        x, y = strided(elements(1, ring, 2, 5, 9), how), strided(elements(2, ring, 2, 9, 7), how)
        same(x, y, ring)
        left, right = limbs.split(x.to(DEVICE), 64), limbs.split(y.to(DEVICE), 64)
        for tile in (None, TINY):
            views = strided(left, how), strided(right, how)
            assert torch.equal(limbs.product(*views, torch.int64, tile), limbs.product(left, right, torch.int64, tile))


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 0, 3, 4), (2, 3, 0, 4), (2, 3, 4, 0)])
def test_products_of_nothing(shape: tuple[int, ...]) -> None:
    items, m, k, n = shape
    for tile in (None, TINY):
        same(elements(1, Ring(64), items, m, k), elements(2, Ring(64), items, k, n), Ring(64), tile)


def test_a_tile_without_room_for_the_limbs_is_named() -> None:
    left, right = limbs.split(torch.ones(1, 3, 4, dtype=torch.int64), 64), torch.ones(8, 1, 4, 4, dtype=torch.int8)
    with pytest.raises(ShapeError, match="no room for 8 limbs of 3 rows"):
        limbs.few(left, right, torch.int64, TINY)


def test_limbs_of_second_operands_lie_by_columns() -> None:
    ring = Ring(45)
    x = elements(1, ring, 3, 6, 5)
    made = limbs.split_right(x.to(DEVICE), ring.bits)
    assert made.stride()[-2] == 1
    assert made.is_contiguous() == (x.numel() == 0)
    assert torch.equal(made.cpu(), limbs.split(x.to(DEVICE), ring.bits).cpu())


# ---------------------------------------------------------------------- what is copied on the way
class Copies(TorchDispatchMode):
    """Elements that torch's operations write."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.copy_, torch.ops.aten.clone, torch.ops.aten.add):
            self.written += made.numel()
        elif func.overloadpacket not in FREE:
            raise AssertionError(func)
        return made


_ATEN = torch.ops.aten
FREE = {_ATEN.transpose, _ATEN.slice, _ATEN.empty, _ATEN.new_empty, _ATEN.unsqueeze, _ATEN.view, _ATEN.expand}
FREE |= {_ATEN.permute, _ATEN.zero_, _ATEN._unsafe_view, _ATEN._reshape_alias, _ATEN.detach, _ATEN.alias}


@pytest.mark.parametrize("module", [limbs, residues])
@pytest.mark.parametrize(
    ("terms", "columns", "passes"),
    [
        (((1,),), slice(None), 0),
        (((1,),), slice(2, 7), 0),
        (((1, 1),), slice(None), 1),
        (((1, 1),), slice(2, 7), 1),
        (((1, 1), (1, 0)), slice(None), 2),
        (((0, 1), (1, 1)), slice(2, 7), 2),
    ],
)
def test_weights_that_are_transposed_views_are_not_copied(module: Any, terms: Any, columns: slice, passes: int) -> None:
    """w [out, in] as w.T: nothing is, some columns of it neither; sums are written once, by columns at once."""
    ring = Ring(64)
    w = [elements(seed, ring, 10, 6).to(DEVICE) for seed in range(len(terms[0]))]
    with launched(module), Copies() as copies:
        turned = backend._by_columns([v.T[..., columns] for v in w], terms)
        right = module.split_right(turned.transpose(-1, -2), 64)
    assert copies.written == passes * w[0][columns].numel()
    assert right.stride()[-2] == 1
    due = [sum(v.T[:, columns] * f for v, f in zip(w, row, strict=True)) for row in terms]
    assert torch.equal(turned.T, torch.cat(due))


def test_digits_of_extremes() -> None:
    for ring in RINGS:
        x = ring.reduce(torch.tensor(EXTREMES)).reshape(1, 3, 3)
        same(x, x.transpose(1, 2), ring)
