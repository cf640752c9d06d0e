"""The steps of truncation and selection: every backend against the reference, the reference against integers."""

from __future__ import annotations

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from integers import element, elements, integers, seeds, strided

from hush.mpc.ring import RING64, Ring
from hush.mpc.ring.kernels import Kernels
from hush.mpc.ring.torch_backend import TorchKernels
from hush.mpc.ring.widths import Widths

REFERENCE = TorchKernels()
counts = st.one_of(st.sampled_from([0, 1, 63, 64, 65, 511, 512, 513, 1000]), st.integers(0, 700))
bits = st.one_of(st.sampled_from([4, 31, 32, 33, 34, 40, 63, 64]), st.integers(4, 64))


@st.composite
def trims(draw: st.DrawFn) -> Widths:
    """Widths that the two-round truncation serves."""
    ring = Ring(draw(bits))
    shift = draw(st.integers(0, ring.bits - 2))
    least = max(4, ring.bits - shift + 1)
    assume(least <= 64)
    return Widths(ring, Ring(draw(st.integers(least, 64))), shift)


@st.composite
def local_trims(draw: st.DrawFn) -> Widths:
    """Widths that a shift by each party serves."""
    ring = Ring(draw(bits))
    shift = draw(st.integers(0, ring.bits - 2))
    return Widths(ring, Ring(draw(st.integers(1, ring.bits - shift))), shift)


def _drawn(seed: int, n: int, *rings: Ring) -> list[torch.Tensor]:
    return [elements(seed + i, ring, n) for i, ring in enumerate(rings)]


def _room(n: int, w: Widths) -> torch.Tensor:
    return torch.empty(n, dtype=w.out.dtype)


@given(seed=seeds, w=trims(), n=counts, opened=st.booleans())
def test_answer_and_correct_equal_the_reference(kernels: Kernels, seed: int, w: Widths, n: int, opened: bool) -> None:
    mine, got, low, mask, other = _drawn(seed, n, w.ring, w.ring, w.top, w.top, w.top)
    mine = strided(mine.reshape(1, -1), seed % 3)[0]
    base, start = _room(n, w), _room(n, w)
    operands = (mine, got if opened else None, low, mask)
    assert torch.equal(kernels.answer(*operands, base, w), REFERENCE.answer(*operands, start, w))
    assert torch.equal(base, start)
    reply = REFERENCE._message(other, w.top)
    kernels.correct(base, reply, w)
    REFERENCE.correct(start, reply, w)
    assert torch.equal(base, start)


@given(seed=seeds, w=trims(), n=counts, two=st.booleans())
def test_split_equals_the_reference(kernels: Kernels, seed: int, w: Widths, n: int, two: bool) -> None:
    first, second, z, drawn, low, a, b = _drawn(seed, n, w.ring, w.ring, w.ring, w.out, w.top, w.top, w.top)
    x2, expected = _room(n, w), _room(n, w)
    operands = ((first, second) if two else (first,), z, drawn, low, (a, b))
    found = (*kernels.split(*operands, x2, w), x2)
    for got, due in zip(found, (*REFERENCE.split(*operands, expected, w), expected), strict=True):
        assert torch.equal(got, due)


@given(seed=seeds, w=trims(), n=st.integers(1, 40))
def test_the_parts_make_the_quotient(kernels: Kernels, seed: int, w: Widths, n: int) -> None:
    """The three roles' steps, put together, give floor(z / 2^f) or one more for every z in the valid range."""
    z = w.ring.reduce((elements(seed, RING64, n) & (2 * w.offset - 1)) - w.offset)
    z0, z1, big, mask, x0, low, a, b = _drawn(seed + 1, n, *[w.ring] * 4, w.out, w.top, w.top, w.top)
    z2 = w.ring.reduce(z - z0 - z1)
    x1, also, x2 = _room(n, w), _room(n, w), _room(n, w)
    rest, _ = kernels.split((big, mask), z2, x0, low, (a, b), x2, w)
    rest = rest if w.top.native else kernels.from_planes(rest, n, w.top)
    own = w.ring.reduce(z0 + big), w.ring.reduce(z1 + mask)
    p0 = kernels.answer(*own, low, a, x1, w)
    p1 = kernels.answer(own[1], own[0], rest, b, also, w)
    kernels.correct(x1, p1, w)
    kernels.correct(also, p0, w)
    assert torch.equal(x1, also)
    exact = [int(v) >> w.shift for v in w.ring.signed(z).tolist()]
    excess = [(int(v) - q) % 2**w.out.bits for v, q in zip((x0 + x1 + x2).tolist(), exact, strict=True)]
    assert set(excess) <= {0, 1}


@given(seed=seeds, w=local_trims(), n=counts, constant=st.integers(0, 2**62), masked=st.booleans())
def test_narrow_equals_the_reference(
    kernels: Kernels, seed: int, w: Widths, n: int, constant: int, masked: bool
) -> None:
    z, plus, minus = _drawn(seed, n, w.ring, w.ring, w.ring)
    operands = (z, (plus, minus) if masked else (), constant % 2 ** (w.ring.bits - 1), w)
    assert torch.equal(kernels.narrow(*operands), REFERENCE.narrow(*operands))


@given(seed=seeds, ring=bits, n=counts, two=st.booleans())
def test_choices_equal_the_reference(kernels: Kernels, seed: int, ring: int, n: int, two: bool) -> None:
    width, words = Ring(ring), -(-n // 64)
    b0, b1 = _drawn(seed, words, RING64, RING64)
    x0, x1, a, d, total = _drawn(seed, n, *[width] * 5)
    dealt = kernels.deal_choice((b0, b1), (x0, x1), (a, d), width)
    for found, expected in zip(dealt, REFERENCE.deal_choice((b0, b1), (x0, x1), (a, d), width), strict=True):
        assert torch.equal(found, expected)
    operands = (b0, (x0, x1) if two else (x0,), x1, (a, d))
    expected = REFERENCE.choose(*operands, total.clone(), width)
    assert torch.equal(kernels.choose(*operands, total.clone(), width), expected)


@given(seed=seeds, ring=bits, n=counts, count=st.integers(1, 4), constant=st.integers(-(2**63), 2**63 - 1))
def test_blend_equals_integers(kernels: Kernels, seed: int, ring: int, n: int, count: int, constant: int) -> None:
    width = Ring(ring)
    xs = _drawn(seed, n, *[width] * count)
    factors = elements(seed + 9, RING64, count).tolist()
    expected = sum(
        (integers(x) * f for x, f in zip(xs, factors, strict=True)), start=integers(torch.zeros(n)) + constant
    )
    assert torch.equal(kernels.blend(xs, factors, constant, width), element(expected, width))
