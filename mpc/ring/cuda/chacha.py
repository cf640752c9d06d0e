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
def _word(state, i: tl.constexpr, LANES: tl.constexpr):
    return tl.zeros((LANES,), dtype=tl.uint32) + tl.load(state + i).to(tl.uint32, bitcast=True)


@triton.jit
def _stream(state, out, blocks, LANES: tl.constexpr):
    lane = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    s0, s1, s2, s3 = _word(state, 0, LANES), _word(state, 1, LANES), _word(state, 2, LANES), _word(state, 3, LANES)
    s4, s5, s6, s7 = _word(state, 4, LANES), _word(state, 5, LANES), _word(state, 6, LANES), _word(state, 7, LANES)
    s8, s9, s10, s11 = _word(state, 8, LANES), _word(state, 9, LANES), _word(state, 10, LANES), _word(state, 11, LANES)
    s12 = lane.to(tl.uint32)
    s13, s14, s15 = _word(state, 13, LANES), _word(state, 14, LANES), _word(state, 15, LANES)
    x0, x1, x2, x3, x4, x5, x6, x7 = s0, s1, s2, s3, s4, s5, s6, s7
    x8, x9, x10, x11, x12, x13, x14, x15 = s8, s9, s10, s11, s12, s13, s14, s15
    for _ in range(10):
        x0, x4, x8, x12 = _quarter(x0, x4, x8, x12)
        x1, x5, x9, x13 = _quarter(x1, x5, x9, x13)
        x2, x6, x10, x14 = _quarter(x2, x6, x10, x14)
        x3, x7, x11, x15 = _quarter(x3, x7, x11, x15)
        x0, x5, x10, x15 = _quarter(x0, x5, x10, x15)
        x1, x6, x11, x12 = _quarter(x1, x6, x11, x12)
        x2, x7, x8, x13 = _quarter(x2, x7, x8, x13)
        x3, x4, x9, x14 = _quarter(x3, x4, x9, x14)
    at, inside = out + lane * 16, lane < blocks
    tl.store(at + 0, (x0 + s0).to(tl.int32, bitcast=True), mask=inside)
    tl.store(at + 1, (x1 + s1).to(tl.int32, bitcast=True), mask=inside)
    tl.store(at + 2, (x2 + s2).to(tl.int32, bitcast=True), mask=inside)
    tl.store(at + 3, (x3 + s3).to(tl.int32, bitcast=True), mask=inside)
    tl.store(at + 4, (x4 + s4).to(tl.int32, bitcast=True), mask=inside)
    tl.store(at + 5, (x5 + s5).to(tl.int32, bitcast=True), mask=inside)
    tl.store(at + 6, (x6 + s6).to(tl.int32, bitcast=True), mask=inside)
    tl.store(at + 7, (x7 + s7).to(tl.int32, bitcast=True), mask=inside)
    tl.store(at + 8, (x8 + s8).to(tl.int32, bitcast=True), mask=inside)
    tl.store(at + 9, (x9 + s9).to(tl.int32, bitcast=True), mask=inside)
    tl.store(at + 10, (x10 + s10).to(tl.int32, bitcast=True), mask=inside)
    tl.store(at + 11, (x11 + s11).to(tl.int32, bitcast=True), mask=inside)
    tl.store(at + 12, (x12 + s12).to(tl.int32, bitcast=True), mask=inside)
    tl.store(at + 13, (x13 + s13).to(tl.int32, bitcast=True), mask=inside)
    tl.store(at + 14, (x14 + s14).to(tl.int32, bitcast=True), mask=inside)
    tl.store(at + 15, (x15 + s15).to(tl.int32, bitcast=True), mask=inside)


def keystream(key: bytes, nonce: bytes, nbytes: int, device: torch.device) -> Tensor:
    """uint8 [nbytes] on a device: ChaCha20 of a 32-byte key and a 12-byte nonce, blocks counted from 0."""
    blocks = -(-nbytes // _BLOCK_BYTES)
    out = torch.empty(16 * blocks, dtype=torch.int32, device=device)
    if blocks:
        words = struct.unpack("<16i", b"expand 32-byte k" + key + bytes(4) + nonce)
        state = torch.tensor(words, dtype=torch.int32).to(device, non_blocking=True)
        launch(_stream, (triton.cdiv(blocks, _LANES),), state, out, blocks, _LANES)
    return out.view(torch.uint8)[:nbytes]
