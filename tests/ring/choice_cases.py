"""Cases of `test_cuda.py`: steps of selections of the backend `cuda` beside the reference."""

from __future__ import annotations

import pytest
import torch
from cuda_cases import GPU, LARGE, REFERENCE, same, uniform
from integers import element, elements, integers, strided
from torch import Tensor

from hush.mpc.errors import ShapeError
from hush.mpc.ring import RING64, Ring

RINGS = [Ring(64), Ring(32), Ring(45), Ring(33), Ring(31), Ring(11), Ring(1)]
COUNTS = [0, 1, 63, 64, 65, 127, 1021, 1500 * LARGE]
FACTORS = [1, -1, 3, 0, 1 << 31, -(1 << 63), (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) + 5]


def drawn(ring: Ring, n: int, count: int) -> list[Tensor]:
    """Extreme and uniform elements, in layouts by turns."""
    return [strided(elements(seed, ring, n), seed % 2 * 2) for seed in range(count)]


def words(n: int, seed: int) -> Tensor:
    """Bits of n elements; those past the last are set, and are nobody's."""
    return elements(seed, RING64, -(-n // 64))


def test_deal_choice() -> None:
    for ring in RINGS:
        for n in COUNTS:
            x0, x1, a, d = drawn(ring, n, 4)
            same("deal_choice", (words(n, 7), words(n, 8)), (x0, x1), (a, d), ring)


def test_choose() -> None:
    for ring in RINGS:
        for n in COUNTS:
            x0, x1, other, a, d, total = drawn(ring, n, 6)
            for known in ((x0,), (x0, x1)):
                same("choose", words(n, 9), known, other, (a, d), total, ring)


def test_bits_of_one_word_of_a_plane() -> None:
    """Planes are rows of a tensor, and a word's top bit is its sign."""
    planes = torch.tensor([[-1, -(1 << 63)], [0, 1], [1 << 62, -1]])
    ring = Ring(64)
    for first, second in ((0, 1), (1, 2), (2, 0)):
        x0, x1, a, d = drawn(ring, 128, 4)
        same("deal_choice", (planes[first], planes.T.contiguous().T[second]), (x0, x1), (a, d), ring)
        same("choose", planes.T.contiguous().T[first], (x0,), x1, (a, d), a, ring)


def test_a_selection_of_three_roles_selects() -> None:
    """What role 0 deals and what roles 1 and 2 make of it sum to the selected elements."""
    n = 200
    for ring in (Ring(64), Ring(45)):
        x, b, draws = drawn(ring, n, 3), [words(n, seed) for seed in (3, 4, 5)], [uniform(ring, n) for _ in range(2)]
        x0, x1, x2, b0, b1, b2, a, d = (v.to(GPU.device) for v in (*x, *b, *draws))
        dealt = GPU.deal_choice((b0, b1), (x0, x1), (a, d), ring)
        none = torch.zeros(n, dtype=ring.dtype, device=GPU.device)
        first = GPU.choose(b2, (x1, x2), x2, dealt, none, ring)
        second = GPU.choose(b2, (x0,), x2, (a, d), none, ring)
        chosen = REFERENCE.spread((b[0] ^ b[1] ^ b[2]).unsqueeze(0), n, ring)[0]
        due = element(integers(chosen) * sum(integers(v) for v in x), ring)
        assert torch.equal(ring.reduce(first + second).cpu(), due)


def test_blend() -> None:
    for ring in RINGS:
        for n in COUNTS:
            xs = drawn(ring, n, 4)
            for count in range(1, 5):
                start = (n + ring.bits + count) % len(FACTORS)
                taken = (FACTORS * 2)[start : start + count]
                same("blend", tuple(xs[:count]), taken, FACTORS[-start] - 1, ring)


def test_blend_equals_integers() -> None:
    for ring in RINGS:
        xs = drawn(ring, 100, 4)
        due = sum((integers(x) * f for x, f in zip(xs, FACTORS[4:], strict=False)), start=integers(xs[0]) * 0 - 7)
        made = GPU.blend([x.to(GPU.device) for x in xs], FACTORS[4:8], -7, ring)
        assert torch.equal(made.cpu(), element(due, ring))


def test_blend_of_a_number_that_is_one_for_all() -> None:
    """Public constants are expanded: one number in memory for all elements."""
    ring = Ring(64)
    same("blend", (torch.tensor(5).expand(70), uniform(ring, 70)), [3, -2], 1, ring)
    with pytest.raises(ShapeError, match="5 operands"):
        GPU.blend([uniform(ring, 3).to(GPU.device)] * 5, [1] * 5, 0, ring)


def test_operands_stay_as_they_are() -> None:
    ring, n = Ring(45), 100
    own = [v.to(GPU.device) for v in drawn(ring, n, 6)]
    bits = [words(n, 1).to(GPU.device), words(n, 2).to(GPU.device)]
    before = [v.clone() for v in (*own, *bits)]
    GPU.blend(own[:4], [1, 2, 3, 4], 5, ring)
    GPU.deal_choice((bits[0], bits[1]), (own[0], own[1]), (own[2], own[3]), ring)
    GPU.choose(bits[0], (own[0],), own[1], (own[2], own[3]), own[4], ring)
    assert all(torch.equal(a, b) for a, b in zip((*own, *bits), before, strict=True))
