"""Tables looked up at the cell of a secret: cells, trees of every prefix, the step and its cost."""

from __future__ import annotations

import pytest
import torch
from support.trio import Trio
from torch import Tensor

from hush.mpc.cells import Cells
from hush.mpc.errors import ShapeError
from hush.mpc.protocol import Protocol
from hush.mpc.ring import RING32, backends, torch_cells
from hush.mpc.secret import Shared
from hush.mpc.step import Step
from hush.protocols.fixed import Fixed
from hush.protocols.plain import Plain
from hush.protocols.replicated import pick, prefix, rotation

CELLS = [Cells(1, 0, 0), Cells(1, 0, 2), Cells(2, 0, 1), Cells(2, 1, 3), Cells(1, 2, 2), Cells(3, 4, 9)]
NATIVE = backends.get()
REFERENCE = backends.get("torch")


def _uniform(*shape: int) -> Tensor:
    return torch.randint(-(1 << 63), (1 << 63) - 1, shape)


def _seeds(count: int) -> tuple[Tensor, Tensor]:
    return _uniform(count, 2), _uniform(count, 2)


def _range(cells: Cells) -> tuple[int, int]:
    """The numbers that every cut of the cells covers."""
    low = 0 if cells.lowest == 0 else ((1 << cells.fine) + 1) << cells.lowest
    return low, 1 << (cells.fine + 1 + cells.highest)


# ---------------------------------------------------------------------- cells
@pytest.mark.parametrize("fine", [1, 2, 5])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 1), (1, 9), (3, 1000), (100, 101), (12345, 1 << 40)])
def test_cells_cover_a_range_as_finely_everywhere(low: int, high: int, fine: int) -> None:
    cells = Cells.covering(low, high, fine)
    x = torch.unique(torch.cat([torch.linspace(low, high, 997, dtype=torch.float64).long(), torch.tensor([low, high])]))
    place = cells.find(x)
    gap, reach = (x - cells.centres[place]).abs(), cells.reach[place]
    assert bool(((gap < reach) | (gap == reach) & (reach == 0)).all())
    assert bool((reach << fine <= x).all()), "no cell reaches further than 2^-fine of what it holds"
    assert len(cells.centres) == len(cells.reach) == cells.count


@pytest.mark.parametrize(("low", "high", "fine"), [(-1, 5, 2), (6, 5, 2), (0, 0, 2), (1, 5, 0)])
def test_a_range_that_is_none_is_refused(low: int, high: int, fine: int) -> None:
    with pytest.raises(ValueError, match="cells need"):
        Cells.covering(low, high, fine)


# ---------------------------------------------------------------------- trees
@pytest.mark.parametrize("cells", CELLS, ids=str)
def test_both_sides_add_up_to_the_cell_of_every_number_at_every_offset(cells: Cells) -> None:
    low, high = _range(cells)
    offsets = torch.arange(1 << cells.bits) if cells.bits < 8 else torch.arange(0, 1 << cells.bits, 61)
    x = torch.arange(low, high + 1) if high < 70 else torch.arange(low, high + 1, 37)
    x, w = (t.reshape(-1) for t in torch.meshgrid(x, offsets, indexing="ij"))
    seeds, a = _seeds(len(x)), w - x
    corrections = prefix.deal(a, seeds, cells)
    shares = [torch_cells.expand(corrections, seed, w, cells, side) for side, seed in enumerate(seeds)]
    whole = shares[0] + shares[1]
    assert bool(((whole == 1).sum(1) == 1).all())
    assert bool(((whole != 0).sum(1) == 1).all())
    place = whole.argmax(1)
    gap, reach = (x - cells.centres[place]).abs(), cells.reach[place]
    assert bool(((gap < reach) | (gap == reach) & (reach == 0)).all())


@pytest.mark.parametrize("cells", [*CELLS, Cells(8, 9, 16)], ids=str)
@pytest.mark.parametrize("side", [0, 1])
def test_kernels_agree_with_the_reference_bit_for_bit(cells: Cells, side: int) -> None:
    count = 37
    seeds, w, tables = _seeds(count), _uniform(count), _uniform(cells.count, 3)
    corrections = prefix.deal(_uniform(count), seeds, cells)
    made = [k.at_cells(corrections, seeds[side], w, cells, side, tables) for k in (NATIVE, REFERENCE)]
    assert torch.equal(*made)
    assert NATIVE.at_cells(corrections[:0], seeds[side][:0], w[:0], cells, side, tables).shape == (0, 3)


def test_corrections_of_other_cells_are_refused() -> None:
    seeds = _seeds(2)
    corrections = prefix.deal(_uniform(2), seeds, CELLS[0])
    with pytest.raises((ShapeError, ValueError)):
        NATIVE.at_cells(corrections, seeds[0], _uniform(2), CELLS[1], 0, _uniform(CELLS[1].count, 1))


@pytest.mark.parametrize("secret", [0, -1, 0x155])
@pytest.mark.parametrize("side", [0, 1])
def test_beside_one_sides_seed_corrections_look_the_same_for_every_secret(secret: int, side: int) -> None:
    """That side's seed is the same in all 4,096 deals, the other's is fresh: every bit of the rest is even."""
    cells, count = Cells(2, 1, 5), 4096
    seeds = list(_seeds(count))
    seeds[side] = seeds[side][:1].expand(count, 2).contiguous()
    dealt = prefix.deal(torch.full((count,), secret), (seeds[0], seeds[1]), cells)
    assert dealt.shape == (count, prefix.correction_bytes(cells))
    levels = dealt[:, : 17 * cells.depth].reshape(count, cells.depth, 17)
    bits = (torch.cat([dealt, levels[..., :0].flatten(1)], 1)[..., None] >> torch.arange(8, dtype=torch.uint8)) & 1
    mean = bits.double().mean(0).reshape(-1)
    known = torch.zeros(dealt.shape[1], 8, dtype=torch.bool)  # a seed's lowest bit is none, and marks have two bits
    known[: 17 * cells.depth : 17, 0] = True
    known[16 : 17 * cells.depth : 17, 2:] = True
    free = ~known.reshape(-1)
    assert float((mean[free] - 0.5).abs().max()) < 6 * 0.5 / count**0.5
    assert float(mean[~free].max()) == 0.0
    assert len({bytes(row) for row in dealt.numpy()}) == count


# ---------------------------------------------------------------------- the step
def _picked(p: Protocol, x: Shared, cells: Cells, tables: Tensor) -> Step[Shared]:
    return p.pick(x, cells, tables)


@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (3 * rotation.ROTATE_MIN + 5,)])
def test_entries_at_the_cells_of_a_tensor_as_predicted(shape: tuple[int, ...]) -> None:
    trio, cells = Trio(), Cells.covering(5, 500, 2)
    x = torch.randint(5, 501, shape)
    tables = torch.stack([cells.centres, _uniform(cells.count), cells.reach])
    secret = trio.share_elements(x)
    found = trio.elements(trio.run(_picked, secret, cells, tables))
    assert found.shape == (3, *shape)
    assert bool(((x - found[0]).abs() <= found[2]).all())
    assert trio.traffic == trio.predict(_picked, secret, cells, tables)
    assert trio.cost.rounds == (2 if x.numel() else 0)
    place = {int(c): i for i, c in enumerate(cells.centres)}
    for centre, entry in zip(found[0].reshape(-1)[:50].tolist(), found[1].reshape(-1)[:50].tolist(), strict=True):
        candidates = (cells.centres == centre).nonzero().reshape(-1)
        assert centre in place
        assert entry in tables[1][candidates].tolist()


def test_out_of_range_is_zero_and_sizes_tell_nothing() -> None:
    trio, cells = Trio(), Cells.covering(64, 500, 2)
    tables = torch.ones(1, cells.count, dtype=torch.int64)
    traffic = []
    for x in (torch.tensor([1000, 700, 1]), torch.tensor([64, 300, 500])):
        found = trio.elements(trio.run(_picked, trio.share_elements(x), cells, tables))
        assert found.tolist() == [[int(64 <= v <= 500) for v in x.tolist()]]
        traffic.append(trio.traffic)
    assert traffic[0] == traffic[1]


@pytest.mark.parametrize("protocol", [Fixed, Plain])
def test_protocols_of_one_process_find_the_nearest_cell_from_above(protocol: type[Fixed | Plain]) -> None:
    p, cells = protocol(), Cells.covering(1, 100, 2)
    x = torch.tensor([1.0, 7.0, 8.0, 9.0, 17.0, 100.0])
    step = p.pick(p.enter(x, frac=0), cells, torch.stack([cells.centres]))
    with pytest.raises(StopIteration) as done:
        next(step)
    assert done.value.value.parts[0].tolist() == [[1, 7, 8, 9, 18, 112]]


def test_another_ring_is_refused() -> None:
    trio = Trio()
    with pytest.raises(ValueError, match="Z_2\\^64"):
        next(pick.pick(trio.parties[0], trio.share(torch.ones(2), ring=RING32)[0], CELLS[0], torch.ones(1, 6)))
