"""Cases of `test_cuda.py`: the backend `cuda` beside the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hush.mpc.errors import ShapeError
from hush.mpc.prg import Stream
from hush.mpc.ring import Ring, backends
from hush.mpc.ring.cuda import chacha, limbs
from hush.mpc.ring.cuda.backend import CudaKernels
from hush.mpc.ring.cuda.launch import interpreted
from hush.mpc.ring.widths import Widths

REFERENCE = backends.get("torch")
GPU = backends.get("cuda")
RINGS = [Ring(64), Ring(32), Ring(40), Ring(11)]
WIDTHS = [
    Widths(Ring(64), Ring(64), 18),
    Widths(Ring(32), Ring(32), 15),
    Widths(Ring(40), Ring(40), 18),
    Widths(Ring(32), Ring(64), 7),
    Widths(Ring(34), Ring(64), 12),
]
LARGE = 1 if interpreted() else 16  # how much larger sizes are on a GPU


def uniform(ring: Ring, *shape: int) -> Tensor:
    return ring.reduce(torch.randint(-(1 << 63), (1 << 63) - 1, shape))


def same(name: str, *arguments: Any) -> None:
    """The kernel of a name makes what the reference makes; tensors it writes to are compared too."""
    there = [_there(a) for a in arguments]
    made, due = getattr(GPU, name)(*there), getattr(REFERENCE, name)(*arguments)
    for a, b in zip(_flat([made, *there]), _flat([due, *arguments]), strict=True):
        assert a.device == GPU.device
        assert a.dtype == b.dtype
        assert torch.equal(a.cpu(), b)


def _there(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone().to(GPU.device)
    return tuple(map(_there, value)) if isinstance(value, tuple) else value


def _flat(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    return [t for v in values for t in _flat(v)] if isinstance(values, list | tuple) else []


def test_matmul() -> None:
    for ring in RINGS:
        for m, n, k in ((1, 1, 1), (5, 7, 3), (33, 40, 70), (64, 130, 65 * LARGE)):
            same("matmul", uniform(ring, m, k), uniform(ring, k, n), ring)


def test_depths_that_are_padded() -> None:
    """Beyond 32, to a multiple of 16: of one operand, of two below each other, of batches, of columns by roles."""
    for ring in (Ring(64), Ring(45)):
        for k in (32, 33, 47, 48):
            x, y = (uniform(ring, 2, 3, k), uniform(ring, 2, 3, k)), (uniform(ring, 5, k), uniform(ring, 5, k))
            same("matmul", x[0], uniform(ring, 1, k, 4), ring)
            same("cross_matmul", x, (uniform(ring, 2, k, 4), uniform(ring, 2, k, 4)), ring)
            same("role_matmul", x, (y[0].T, y[1].T), [(0, 0, 2), (1, 2, 4), (2, 4, 5)], ring)


def test_matmul_of_the_largest_digits() -> None:
    """-128 in every limb of both: the largest int32 sums, with a depth that is cut."""
    ring = Ring(64)
    x = torch.full((2, 300), 0x7F7F7F7F7F7F7F80)
    same("matmul", x, x.T.contiguous(), ring)
    deep = limbs._DEPTH
    limbs._DEPTH = 8 * 100
    try:
        same("matmul", uniform(ring, 3, 300), uniform(ring, 300, 4), ring)
        same("matmul", uniform(ring, 17, 300), uniform(ring, 300, 4), ring)
    finally:
        limbs._DEPTH = deep


def test_digits_make_their_number() -> None:
    for ring in RINGS:
        x = torch.cat(
            [uniform(ring, 1000), ring.reduce(torch.tensor([0, -1, 1 << 62, -(1 << 63), (1 << 63) - 1, 128]))]
        )
        digits = limbs.split(x.to(GPU.device), ring.bits).cpu().long()
        assert len(digits) == -(-ring.bits // 8)
        whole = sum(d << (8 * i) for i, d in enumerate(digits))
        assert torch.equal(ring.reduce(whole), x)


def test_batched_transposed_and_broadcast_products() -> None:
    ring = Ring(64)
    same("matmul", uniform(ring, 2, 3, 5, 9), uniform(ring, 3, 9, 4), ring)
    same("matmul", uniform(ring, 5, 9), uniform(ring, 2, 9, 4), ring)
    same("matmul", uniform(ring, 2, 1, 5, 9), uniform(ring, 1, 3, 9, 4), ring)
    same("matmul", uniform(ring, 9, 5).T, uniform(ring, 4, 9).T, ring)
    same("matmul", uniform(ring, 0, 9), uniform(ring, 9, 4), ring)
    same("matmul", uniform(ring, 3, 0), uniform(ring, 0, 4), ring)
    with pytest.raises(ShapeError, match="does not fit"):
        GPU.matmul(uniform(ring, 2, 3), uniform(ring, 4, 2), ring)


def test_replicated_products() -> None:
    for ring in RINGS[:3]:
        x, y = (uniform(ring, 2, 5, 9), uniform(ring, 2, 5, 9)), (uniform(ring, 9, 100), uniform(ring, 9, 100))
        same("cross_matmul", x, (uniform(ring, 1, 9, 7), uniform(ring, 1, 9, 7)), ring)
        same("role_matmul", x, y, [(0, 0, 32), (1, 32, 64), (2, 64, 100)], ring)
        same("cross_mul", x, (uniform(ring, 1, 1, 9), uniform(ring, 1, 1, 9)), ring)


def test_convolutions() -> None:
    ring = Ring(64)
    image, kernel = (uniform(ring, 2, 4, 8, 8), uniform(ring, 2, 4, 8, 8)), (uniform(ring, 6, 2, 3, 3),) * 2
    same("conv", image[0], kernel[0], (2, 1), (1, 0), (1, 2), 2, ring)
    same("cross_conv", image, kernel, (1, 1), (1, 1), (1, 1), 2, ring)


def test_planes() -> None:
    for ring in RINGS:
        for n in (1, 63, 64, 65, 1000 * LARGE):
            x = uniform(ring, n)
            planes = REFERENCE.to_planes(x, ring.bits, ring)
            same("to_planes", x, ring.bits, ring)
            same("to_planes", x, ring.bits, ring, 3)
            same("from_planes", planes, n, ring)
            same("from_planes", planes[: ring.bits // 2], n, ring)
            same("spread", planes[::3], n, ring)


def test_steps_of_truncation() -> None:
    n = 1500 * LARGE
    for w in WIDTHS:
        mine, low, mask, base = uniform(w.ring, n), uniform(w.top, n), uniform(w.top, n), uniform(w.out, n)
        for got in (None, uniform(w.ring, n)):
            same("answer", mine, got, low, mask, base.clone(), w)
        message = REFERENCE.answer(mine, None, low, mask, base.clone(), w)
        same("correct", base.clone(), message, w)
        draws = uniform(w.out, n), low, (mask, uniform(w.top, n)), base.clone(), w
        same("split", (mine,), uniform(w.ring, n), *draws)
        same("split", (mine, uniform(w.ring, n)), uniform(w.ring, n), *draws)


def test_truncation_takes_strided_operands() -> None:
    w, n = WIDTHS[0], 300
    mine = uniform(w.ring, n, 2).to(GPU.device)[:, 0]
    low, mask, base = (uniform(ring, n).to(GPU.device) for ring in (w.top, w.top, w.out))
    first, second = base.clone(), base.clone()
    made = GPU.answer(mine, None, low, mask, first, w)
    assert torch.equal(made, GPU.answer(mine.contiguous(), None, low, mask, second, w))
    assert torch.equal(first, second)


def test_narrow_truncation_and_selection() -> None:
    n = 1500
    for w in (Widths(Ring(64), Ring(32), 32), Widths(Ring(64), Ring(64), 0), Widths(Ring(64), Ring(40), 22)):
        z, zero = uniform(w.ring, n), (uniform(w.ring, n), uniform(w.ring, n))
        same("narrow", z, (), (1 << 63) + 5, w)
        same("narrow", z, zero, 7, w)
    for ring in RINGS[:3]:
        xs = [uniform(ring, n) for _ in range(4)]
        bits = (REFERENCE.to_planes(uniform(Ring(64), n), 1, Ring(64))[0], REFERENCE.to_planes(xs[0], 1, ring)[0])
        same("blend", (xs[0], xs[1]), [3, 5], 11, ring)
        same("deal_choice", bits, (xs[0], xs[1]), (xs[2], xs[3]), ring)
        same("choose", bits[0], (xs[0], xs[1]), xs[2], (xs[3], xs[0]), xs[1], ring)


def test_the_stream_is_the_very_one_that_a_cpu_draws() -> None:
    key, nonce = bytes(range(32)), bytes.fromhex("000000000000004a00000000")
    for size in (0, 1, 63, 64, 65, 20_000 * LARGE):
        same("keystream", key, nonce, size)
    gpu, cpu = Stream(bytes(32), 5), Stream(bytes(32), 5)
    gpu.made_by(GPU.keystream)
    for ring in RINGS:
        assert torch.equal(gpu.elements((3, 5), ring).cpu(), cpu.elements((3, 5), ring))
    assert torch.equal(gpu.planes(2, 9).cpu(), cpu.planes(2, 9))
    assert gpu.position == cpu.position


def test_the_published_vectors_of_chacha20() -> None:
    """RFC 8439, 2.3.2 and A.1: the block of counter 1, and the stream of zeros."""
    block = chacha.keystream(bytes(range(32)), bytes.fromhex("000000090000004a00000000"), 128, GPU.device)[64:]
    assert bytes(block.cpu().numpy()).hex() == (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )
    first = chacha.keystream(bytes(32), bytes(12), 128, GPU.device)
    assert bytes(first.cpu().numpy()).hex() == (
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
    )


def test_kept_limbs_are_those_of_the_matrix_as_it_is() -> None:
    ring, kept = Ring(64), CudaKernels(GPU.device, kept=1 << 20)
    x, y = (uniform(ring, 9, 9), uniform(ring, 9, 9)), (uniform(ring, 9, 4), uniform(ring, 9, 4))
    x, y = _there(x), _there(y)
    first = kept.cross_matmul(x, y, ring)
    assert torch.equal(kept.cross_matmul(x, y, ring), first)
    assert kept._limbs_of._bytes == 8 * 2 * 9 * 4
    y[1].add_(1)  # another matrix now
    due = REFERENCE.cross_matmul(tuple(v.cpu() for v in x), tuple(v.cpu() for v in y), ring)
    assert torch.equal(kept.cross_matmul(x, y, ring).cpu(), due)
    del y
    assert kept._limbs_of._bytes == 0
    small = CudaKernels(GPU.device, kept=8 * 2 * 9 * 4)
    pairs = [_there((uniform(ring, 9, 4), uniform(ring, 9, 4))) for _ in range(3)]
    for pair in pairs:
        small.cross_matmul(x, pair, ring)
    assert small._limbs_of._bytes == 8 * 2 * 9 * 4
