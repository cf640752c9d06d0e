"""Cases of `test_cuda.py`: limbs of weights are made once, for as long as the weights are there."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from integers import elements
from torch import Tensor

from hush.mpc.ring import Ring, backends
from hush.mpc.ring.cuda import limbs
from hush.mpc.ring.cuda.backend import CudaKernels
from hush.mpc.ring.cuda.kept import Kept

REFERENCE = backends.get("torch")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RING = Ring(64)
SPANS = [(0, 0, 1), (1, 1, 3), (2, 3, 4)]


@pytest.fixture
def splits(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes of second operands whose limbs were made."""
    made: list[torch.Size] = []
    split_right = limbs.split

    def counted(x: Tensor, bits: int) -> Tensor:
        made.append(x.shape)
        return split_right(x, bits)

    monkeypatch.setattr(limbs, "split", counted)  # that of left operands is bound already
    return made


def drawn(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    return elements(seed, RING, *shape).to(DEVICE), elements(seed + 1, RING, *shape).to(DEVICE)


def linear(kernels: CudaKernels, x: tuple[Tensor, Tensor], w: tuple[Tensor, Tensor], columns: slice) -> None:
    """A linear layer, as programs write it: of a view made for this run; it equals the reference."""
    for name, more in (("cross_matmul", ()), ("role_matmul", (SPANS,))):
        if name == "role_matmul" and columns != slice(None):
            continue
        made = getattr(kernels, name)(x, tuple(v.transpose(0, 1)[:, columns] for v in w), *more, RING)
        host = [tuple(v.cpu() for v in pair) for pair in (x, [v.transpose(0, 1)[:, columns] for v in w])]
        assert torch.equal(made.cpu(), getattr(REFERENCE, name)(*host, *more, RING))


@pytest.mark.parametrize("no_grad", [False, True])
@pytest.mark.parametrize("columns", [slice(None), slice(1, 3)])
def test_fresh_views_of_a_weight_find_its_limbs(splits: list[torch.Size], columns: slice, no_grad: bool) -> None:
    kernels, x, w = CudaKernels(DEVICE, kept=1 << 20), drawn(1, 9, 9), drawn(3, 4, 9)
    with torch.set_grad_enabled(not no_grad):
        linear(kernels, x, w, columns)
        assert splits
        splits.clear()
        linear(kernels, x, w, columns)
        assert not splits
        w[0].add_(1)  # another weight now
        linear(kernels, x, w, columns)
        assert splits


def test_few_rows_take_limbs_that_are_there_and_make_none(splits: list[torch.Size]) -> None:
    kernels, w = CudaKernels(DEVICE, kept=1 << 20), drawn(3, 4, 9)
    linear(kernels, drawn(1, 8, 9), w, slice(None))
    assert not splits
    assert not kernels._limbs_of._found
    linear(kernels, drawn(1, 9, 9), w, slice(None))
    assert splits
    before = dict(kernels._limbs_of._found)
    asked = [entry.asked for entry in before.values()]
    splits.clear()
    linear(kernels, drawn(1, 8, 9), w, slice(None))
    assert not splits
    assert all(entry.asked > was for entry, was in zip(before.values(), asked, strict=True))


def test_limbs_of_a_weight_that_changed_or_died_are_gone() -> None:
    kernels, x, w = CudaKernels(DEVICE, kept=1 << 20), drawn(1, 9, 9), drawn(3, 4, 9)
    linear(kernels, x, w, slice(1, 3))
    assert kernels._limbs_of._bytes == 8 * 18 * 2
    w[1].mul_(3)
    linear(kernels, x, w, slice(1, 3))
    assert kernels._limbs_of._bytes == 8 * 18 * 2
    linear(kernels, x, w, slice(0, 3))
    assert kernels._limbs_of._bytes == 8 * 18 * 5
    del w
    gc.collect()
    assert kernels._limbs_of._bytes == 0
    assert not kernels._limbs_of._found


def test_views_that_differ_are_not_one() -> None:
    """By offset, sizes and strides, of one tensor."""
    kept, w = Kept(1 << 20), torch.arange(36)
    views: list[Callable[[], Tensor]] = [
        lambda: w,
        lambda: w.view(6, 6),
        lambda: w.view(6, 6).T,
        lambda: w[:18].view(3, 6),
        lambda: w[18:].view(3, 6),
        lambda: w.as_strided((3, 6), (12, 2)),
    ]
    for _ in range(2):
        for i, view in enumerate(views):
            assert torch.equal(kept((view(),), (), lambda view=view: view().clone()), views[i]())
    assert len(kept._found) == len(views)


@pytest.mark.parametrize("view", [False, True])
def test_a_temporary_does_not_stay(view: bool) -> None:
    """An activation on the right: nobody holds it after its product."""
    kernels, x = CudaKernels(DEVICE, kept=1 << 20), drawn(1, 9, 9)
    temporary = [v.transpose(0, 1) if view else v.T.contiguous() for v in drawn(3, 4, 9)]
    assert all((v._base is not None) == view for v in temporary)
    kernels.cross_matmul(x, (temporary[0], temporary[1]), RING)
    assert kernels._limbs_of._bytes
    del temporary
    assert kernels._limbs_of._bytes == 0
    assert not kernels._limbs_of._found


def test_what_counts_no_changes_is_not_kept(splits: list[torch.Size]) -> None:
    kernels, x = CudaKernels(DEVICE, kept=1 << 20), drawn(1, 9, 9)
    normal = drawn(3, 4, 9)
    with torch.inference_mode():
        w = drawn(3, 4, 9)
        linear(kernels, x, w, slice(None))
        assert not kernels._limbs_of._found
        w[0].add_(1)
        linear(kernels, x, w, slice(None))
        linear(kernels, x, normal, slice(None))  # a view of a tensor that counts, counts too
        splits.clear()
        linear(kernels, x, normal, slice(None))
        assert not splits


def test_what_comes_once_takes_no_room_of_what_comes_again() -> None:
    """Nor do weights that come in turn chase each other out; those of a session that is idle go."""
    kept = Kept(100)
    weights = [torch.full((40,), i, dtype=torch.int8) for i in range(4)]
    made: list[int] = []

    def use(*which: int) -> list[int]:
        made.clear()
        for i in which:
            kept((weights[i],), ("use",), lambda i=i: made.append(i) or weights[i].clone())  # type: ignore[func-returns-value]
        assert kept._bytes <= 100
        return list(made)

    assert use(0, 1, 2) == [0, 1, 2]
    assert use(0, 1, 2) == [2]
    assert use(0, 1, 2, 3) == [2, 3]
    assert use(2) == [2]  # 0 and 1 were not used since it last came: the first of them goes
    assert use(2) == []
    assert use(1) == []
    assert use(0) == [0]
    kept.limit(40)
    assert use(1) == []
    kept.limit(0)
    assert kept._bytes == 0
    weights.clear()
    assert not kept._found
