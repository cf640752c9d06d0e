"""Handles: local functions act on every part alike, and no repr shows a value."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hush.mpc.prg import Stream, keystream
from hush.mpc.ring import RING32, RING64
from hush.mpc.ring.torch_backend import TorchKernels
from hush.mpc.secret import Shared, SharedBits, concat, join_planes, stack, words
from hush.protocols.replicated.party import Party

TELLTALE = 123456789


def _shared(shape: tuple[int, ...] = (2, 3), frac: int = 18) -> Shared:
    base = torch.arange(torch.Size(shape).numel()).reshape(shape) + TELLTALE
    return Shared((base, base * 2), frac, RING64)


def test_reprs_show_shape_and_no_value() -> None:
    party = Party(1, Stream(b"\x07" * 32), Stream(b"\x08" * 32), TorchKernels())
    bits = SharedBits((torch.full((2, 1), TELLTALE), torch.full((2, 1), TELLTALE)), torch.Size((5,)))
    for thing in (_shared(), bits, party, party.with_next, [_shared()], {"x": bits}):
        for text in (repr(thing), str(thing), f"{thing}"):
            assert str(TELLTALE) not in text
            assert "tensor" not in text.lower()
            assert "x07" not in text
    assert repr(_shared()) == "Shared(shape=(2, 3), frac=18, ring=2^64, parts=2)"
    assert repr(bits) == "SharedBits(shape=(5,), planes=2)"


def test_views_act_on_every_part() -> None:
    x = _shared()
    for view in (
        x.reshape(3, 2),
        x.transpose(0, 1),
        x[1],
        x[..., None],
        x.expand(4, 2, 3),
        x.sum(1),
        x.sum((0, 1), True),
    ):
        assert torch.equal(view.parts[1], view.parts[0] * 2)
        assert (view.frac, view.ring) == (18, RING64)
    assert x.sum(1).parts[0].tolist() == x.parts[0].sum(1).tolist()
    joined, stacked = concat([x, x], 1), stack([x, x], 1)
    assert (joined.shape, stacked.shape) == ((2, 6), (2, 2, 3))
    assert (x.numel, x.ndim) == (6, 2)


def test_sums_wrap_in_the_ring() -> None:
    top = torch.full((2,), 2**31 - 1, dtype=torch.int32)
    total = Shared((top, top), 0, RING32).sum(0)
    assert total.parts[0].dtype == torch.int32
    assert int(total.parts[0]) == -2


def test_with_frac_reads_the_same_elements_at_another_scale() -> None:
    x = _shared()
    assert x.with_frac(17).parts is x.parts
    assert x.with_frac(17).frac == 17


@given(st.integers(0, 1000))
def test_words_hold_every_bit(numel: int) -> None:
    assert 64 * (words(numel) - 1) < numel <= 64 * words(numel)


def test_planes_slice_join_and_reshape() -> None:
    part = torch.arange(12).reshape(4, 3)
    bits = SharedBits((part, part + 100), torch.Size((10, 15)))
    assert bits.plane(2).parts[1].tolist() == [[106, 107, 108]]
    assert (bits[1:3].planes, bits.numel) == (2, 150)
    again = join_planes([bits[:1], bits[1:]])
    assert torch.equal(again.parts[0], part)
    assert bits.reshape(5, -1).shape == (5, 30)
    with pytest.raises(RuntimeError):
        bits.reshape(7, -1)


def test_keystream_is_rfc_8439() -> None:
    """Section 2.4.2's key and nonce; its keystream begins at block 1, ours at block 0."""
    stream = keystream(bytes(range(32)), bytes.fromhex("000000000000004a00000000"), 64 + 114)
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    due = bytes.fromhex(
        "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0bf91b65c5524733ab8f593dabcd62b3571639d624e65152ab"
        "8f530c359f0861d807ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab77937365af90bbf74a35be6b40b8eedf2785e42"
        "874d"
    )
    assert bytes(s ^ t for s, t in zip(stream[64:].tolist(), text, strict=True)) == due
    assert keystream(bytes(32), bytes(12), 0).numel() == 0


def test_stream_positions_count_draws_and_invocations() -> None:
    a, b = Stream(b"k" * 32), Stream(b"k" * 32)
    first = a.elements((3, 2), RING64)
    assert torch.equal(first, b.elements((3, 2), RING64))
    assert not torch.equal(first, a.elements((3, 2), RING64))
    assert a.position == (0, 2)
    a.next_invocation()
    assert a.position == (1, 0)
    assert not torch.equal(first, a.elements((3, 2), RING64))
    assert not torch.equal(first, Stream(b"k" * 32, domain=1).elements((3, 2), RING64))
    assert a.planes(3, 2).shape == (3, 2)
    with pytest.raises(ValueError, match="32 bytes"):
        Stream(b"short")
