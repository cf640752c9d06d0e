"""CrypTen's counters beside what the docstrings say, and truncations at the edges of their ranges."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hush.protocols.crypten.library import installed
from tests.crypten.counting import CASES, NUMEL, numbers
from tests.crypten.pair import run_pair

if not installed():
    pytest.skip("CrypTen lives in an environment of its own: docs/crypten.md", allow_module_level=True)

MUL, CUT, A2B, B2A = 16, 16, 208, 8  # bytes sent an element (an opened bit takes a word of 64)
COUNTS = {
    "mul exact": (MUL * NUMEL, 1),
    "mul": ((MUL + CUT) * NUMEL, 2),
    "mul of a row": (8 * (5 * NUMEL + NUMEL), 1),
    "matmul": (8 * (12 + 20) + CUT * 15, 2),
    "mul_public": (CUT * NUMEL, 1),
    "truncate": (CUT * NUMEL, 1),
    "truncate exactly": ((A2B + 50 * B2A) * NUMEL, 8),
    "negative": (A2B * NUMEL, 7),
    "below": (2 * A2B * NUMEL, 7),
    "is_zero": (96 * NUMEL, 6),
    "to_bits": (A2B * NUMEL, 7),
    "both": (16 * 5 * 3, 1),
    "from_bits": (3 * B2A * NUMEL, 1),
    "select": ((B2A + MUL) * NUMEL, 2),
    "select_sum": (2 * (B2A + MUL) * NUMEL, 2),
    "open": (8 * NUMEL, 1),
    "contribute": (0, 0),
    "shuffle": (2 * 8 * (NUMEL * NUMEL + 2 * NUMEL), 2),
}
EDGES = [("nearly", 61, 18), ("nearly", 61, 1), ("nearly", 61, 62), ("exactly", 62, 18), ("exactly", 62, 1)]
OWN = ("division", 60, 18)
WRAPS = (32, 40)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[object, Tensor]:
    """Everything by one pair of processes."""
    work: dict[object, tuple[str, list[object]]] = {name: ("tests.crypten.counting:counted", [name]) for name in CASES}
    work |= {edge: ("tests.crypten.counting:quotients", list(edge)) for edge in (*EDGES, OWN)}
    work |= {bits: ("tests.crypten.counting:wrapped", [bits]) for bits in WRAPS}
    return dict(zip(work, run_pair(tmp_path_factory.mktemp("pair"), list(work.values())), strict=True))


def test_crypten_counts_what_is_said(found: dict[object, Tensor]) -> None:
    assert {name: tuple(found[name].tolist()) for name in CASES} == COUNTS


@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_truncations_never_leave_the_floor_by_more_than_one(
    edge: tuple[str, int, int], found: dict[object, Tensor]
) -> None:
    how, power, shift = edge
    off = found[edge] - (numbers(power) >> shift)
    assert int(off.min()) == 0
    assert int(off.max()) == (1 if how == "nearly" else 0)


def test_crypten_s_own_division_wraps(found: dict[object, Tensor]) -> None:
    """Which is why it is not used: of numbers up to 2^60, about 1 in 32 comes out off by 2^46."""
    _, power, shift = OWN
    off = (found[OWN] - (numbers(power) >> shift)).abs()
    wrong = off > 2
    assert int((off[wrong] - (1 << (64 - shift))).abs().max()) <= 2
    assert 0.005 < float(wrong.double().mean()) < 0.1


@pytest.mark.parametrize("bits", WRAPS)
def test_wrap_gives_the_narrow_ring_s_number(bits: int, found: dict[object, Tensor]) -> None:
    low = numbers(62) & ((1 << bits) - 1)
    assert torch.equal(found[bits], torch.where(low >> (bits - 1) == 1, low - (1 << bits), low))
