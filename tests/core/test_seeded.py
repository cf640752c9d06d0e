"""Tensors that are keystreams, known by their key: equal to what they stand for, and never in memory before that."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hush.mpc.errors import ShapeError
from hush.mpc.prg import Stream, nonce
from hush.mpc.ring import RING64, Ring, backends
from hush.mpc.ring.seeded import Seeded
from hush.protocols.replicated.sharing import SEED_DOMAIN, Dealt, deal, expand

KEY = bytes(range(32))
RINGS = [RING64, Ring(45), Ring(32), Ring(20)]


def pair(ring: Ring, *shape: int) -> tuple[Seeded, Tensor]:
    """A seeded tensor, and the tensor that it stands for."""
    return Seeded.of(KEY, nonce(0, 0, SEED_DOMAIN), ring, shape), Stream(KEY, SEED_DOMAIN).elements(shape, ring)


@pytest.mark.parametrize("ring", RINGS, ids=str)
@pytest.mark.parametrize("shape", [(), (7,), (6, 16), (2, 3, 5), (0, 4)])
def test_it_is_the_keystream_of_its_key(ring: Ring, shape: tuple[int, ...]) -> None:
    seeded, due = pair(ring, *shape)
    assert seeded.shape == due.shape
    assert torch.equal(seeded.expanded(), due)
    assert torch.equal(seeded + 0, due)
    assert type(seeded.clone()) is Tensor


VIEWS: list[Callable[[Tensor], Tensor]] = [
    lambda t: t.T,
    lambda t: t.transpose(0, 1)[:, 2:5],
    lambda t: t[1],
    lambda t: t[..., 3],
    lambda t: t[2:5, 1::3],
    lambda t: t.unsqueeze(0).expand(4, 6, 16),
    lambda t: t.reshape(8, 12),
    lambda t: t.permute(1, 0).unsqueeze(1).squeeze(1),
    lambda t: t.detach().view(96)[5:],
]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("ring", RINGS, ids=str)
def test_views_are_seeded_and_lie_as_the_tensors_would(view: Callable[[Tensor], Tensor], ring: Ring) -> None:
    seeded, due = (view(t) for t in pair(ring, 6, 16))
    assert isinstance(seeded, Seeded)
    assert (seeded.stride(), seeded.storage_offset()) == (due.stride(), due.storage_offset())
    assert torch.equal(seeded + 0, due)


def test_operations_expand_it_and_leave_it_as_it_is() -> None:
    seeded, due = pair(RING64, 6, 16)
    other = torch.arange(96).reshape(6, 16)
    assert torch.equal(torch.cat([seeded, other], -1), torch.cat([due, other], -1))
    assert torch.equal(other.add_(seeded), torch.arange(96).reshape(6, 16) + due)
    assert torch.equal(seeded.T.contiguous(), due.T)
    assert torch.equal(torch.add(seeded, seeded, alpha=2), 3 * due)
    drawn: list[int] = []

    def counted(key: bytes, drawn_nonce: bytes, nbytes: int) -> Tensor:
        drawn.append(nbytes)
        return backends.get().keystream(key, drawn_nonce, nbytes)

    moved = seeded.on(torch.device("cpu"), counted)
    moved.T[:, 1:].unsqueeze(0)
    assert not drawn
    assert torch.equal(moved.T + 0, due.T)
    assert drawn == [8 * 96]


def test_it_is_not_written_to_copied_or_shown() -> None:
    seeded, _ = pair(RING64, 4, 4)
    with pytest.raises(TypeError, match="would write to a seeded tensor: clone it first"):
        seeded.add_(1)
    with pytest.raises(TypeError, match="would write"):
        seeded.T[0].zero_()
    with pytest.raises(TypeError, match="would write"):
        torch.add(torch.zeros(4, 4, dtype=torch.int64), 1, out=seeded)
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(seeded)
    with pytest.raises(TypeError, match="never copied"):
        copy.deepcopy(seeded)
    for text in (repr(seeded), str(seeded)):
        assert text == "Seeded(shape=(4, 4), ring=2^64, device=cpu)"


@pytest.mark.parametrize("ring", RINGS, ids=str)
def test_a_dealt_tensor_may_keep_its_seeds(ring: Ring) -> None:
    dealt = deal(torch.arange(24).to(ring.dtype).reshape(4, 6), 3, ring)
    for package, seeds in zip(dealt, ((True, True), (True, False), (False, True)), strict=True):
        kept, whole = expand(package, seeded=True), expand(package)
        assert tuple(isinstance(p, Seeded) for p in kept.parts) == seeds
        assert all(torch.equal(a + 0, b) for a, b in zip(kept.parts, whole.parts, strict=True))
        assert (kept.frac, kept.ring, kept.shape) == (whole.frac, whole.ring, whole.shape)
    with pytest.raises(ShapeError, match="a seed has 32 bytes, not 3"):
        expand(Dealt((b"abc", b"abc"), (1,), 0, ring), seeded=True)
