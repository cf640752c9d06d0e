"""ChaCha20 on a GPU: the very stream that a CPU party draws from the same key (RFC 8439, counter from 0).

A lane makes a block of 64 bytes, so 32-bit additions, XORs and rotations only: no table, no carry between lanes.
"""

from __future__ import annotations

import struct

import torch
import triton
import triton.language as tl
from torch import Tensor

from hush.mpc.ring.cuda.launch import launch

_BLOCK_BYTES = 64
_LANES = 128
WORDS = "k0 k1 k2 k3 k4 k5 k6 k7 n0 n1 n2"  # of key and nonce


@triton.jit
def _rotate(x, LEFT: tl.constexpr):
    return (x << LEFT) | (x >> (32 - LEFT))


@triton.jit
def _quarter(a, b, c, d):
    a += b
    d = _rotate(d ^ a, 16)
    c += d
    b = _rotate(b ^ c, 12)
    a += b
    d = _rotate(d ^ a, 8)
    c += d
    b = _rotate(b ^ c, 7)
    return a, b, c, d


@triton.jit
def block(k0, k1, k2, k3, k4, k5, k6, k7, n0, n1, n2, counter):
    """The 16 words, uint32, of the blocks numbered `counter`, uint32 of any shape, from `words` of key and nonce."""
    zero = counter * 0
    s0, s1, s2, s3 = zero + 0x61707865, zero + 0x3320646E, zero + 0x79622D32, zero + 0x6B206574
    s4, s5, s6, s7 = zero + _word(k0), zero + _word(k1), zero + _word(k2), zero + _word(k3)
    s8, s9, s10, s11 = zero + _word(k4), zero + _word(k5), zero + _word(k6), zero + _word(k7)
    s13, s14, s15 = zero + _word(n0), zero + _word(n1), zero + _word(n2)
    x0, x1, x2, x3, x4, x5, x6, x7 = s0, s1, s2, s3, s4, s5, s6, s7
    x8, x9, x10, x11, x12, x13, x14, x15 = s8, s9, s10, s11, counter, s13, s14, s15
    for _ in range(10):
        x0, x4, x8, x12 = _quarter(x0, x4, x8, x12)
        x1, x5, x9, x13 = _quarter(x1, x5, x9, x13)
        x2, x6, x10, x14 = _quarter(x2, x6, x10, x14)
        x3, x7, x11, x15 = _quarter(x3, x7, x11, x15)
        x0, x5, x10, x15 = _quarter(x0, x5, x10, x15)
        x1, x6, x11, x12 = _quarter(x1, x6, x11, x12)
        x2, x7, x8, x13 = _quarter(x2, x7, x8, x13)
        x3, x4, x9, x14 = _quarter(x3, x4, x9, x14)
    return (
        x0 + s0, x1 + s1, x2 + s2, x3 + s3, x4 + s4, x5 + s5, x6 + s6, x7 + s7,
        x8 + s8, x9 + s9, x10 + s10, x11 + s11, x12 + counter, x13 + s13, x14 + s14, x15 + s15,
    )  # fmt: skip


@triton.jit
def _word(x):
    return x.to(tl.uint32, bitcast=True)


@triton.jit(do_not_specialize=WORDS.split())  # or every draw would be a kernel of its own
def _stream(k0, k1, k2, k3, k4, k5, k6, k7, n0, n1, n2, out, blocks, LANES: tl.constexpr):
    lane = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    made = block(k0, k1, k2, k3, k4, k5, k6, k7, n0, n1, n2, lane.to(tl.uint32))
    at, inside = out + lane * 16, lane < blocks
    for i in tl.static_range(16):
        tl.store(at + i, made[i].to(tl.int32, bitcast=True), mask=inside)


def words(key: bytes, nonce: bytes) -> tuple[int, ...]:
    """Eleven numbers of 32 bits, `WORDS`: a 32-byte key and a 12-byte nonce, as they go with a launch. So nothing is
    copied, and no key lies in the device's memory."""
    return struct.unpack("<11i", key + nonce)


def keystream(key: bytes, nonce: bytes, nbytes: int, device: torch.device) -> Tensor:
    """uint8 [nbytes] on a device: ChaCha20 of a 32-byte key and a 12-byte nonce, blocks counted from 0."""
    blocks = -(-nbytes // _BLOCK_BYTES)
    out = torch.empty(16 * blocks, dtype=torch.int32, device=device)
    if blocks:
        launch(_stream, (triton.cdiv(blocks, _LANES),), *words(key, nonce), out, blocks, _LANES)
    return out.view(torch.uint8)[:nbytes]
