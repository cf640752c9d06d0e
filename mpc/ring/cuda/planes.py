"""Bit planes on a GPU: element e of n is bit e % 64 of word e / 64, as everywhere."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hush.mpc.ring.cuda.launch import launch

_WORD = tl.constexpr(64)
_WORDS = 16  # a program's words of each plane


@triton.jit
def _gather(x, planes, numel, words, count, shift, WORDS: tl.constexpr):
    word = tl.program_id(0).to(tl.int64) * WORDS + tl.arange(0, WORDS)
    lane = tl.arange(0, _WORD).to(tl.int64)
    at = word[:, None] * _WORD + lane[None, :]
    element = tl.load(x + at, mask=at < numel, other=0).to(tl.int64)
    to = planes + word  # moved on, not multiplied: planes * words may be beyond 2^31
    for plane in range(count):
        bit = (element >> (shift + plane)) & 1
        tl.store(to, tl.sum(bit << lane[None, :], axis=1), mask=word < words)
        to += words


@triton.jit
def _scatter(planes, x, numel, step, count, WORDS: tl.constexpr):
    word = tl.program_id(0).to(tl.int64) * WORDS + tl.arange(0, WORDS)
    lane = tl.arange(0, _WORD).to(tl.int64)
    at = word[:, None] * _WORD + lane[None, :]
    element = tl.zeros((WORDS, _WORD), dtype=tl.int64)
    own = planes + word
    for plane in range(count):
        bits = tl.load(own, mask=word * _WORD < numel, other=0)
        element += ((bits[:, None] >> lane[None, :]) & 1) << plane
        own += step
    tl.store(x + at, element.to(x.dtype.element_ty), mask=at < numel)


@triton.jit
def _spread(planes, x, numel, step, WORDS: tl.constexpr):
    word = tl.program_id(0).to(tl.int64) * WORDS + tl.arange(0, WORDS)
    plane = tl.program_id(1).to(tl.int64)
    lane = tl.arange(0, _WORD).to(tl.int64)
    at = word[:, None] * _WORD + lane[None, :]
    bits = tl.load(planes + plane * step + word, mask=word * _WORD < numel, other=0)
    bit = (bits[:, None] >> lane[None, :]) & 1
    tl.store(x + plane * numel + at, bit.to(x.dtype.element_ty), mask=at < numel)


def gather(x: Tensor, count: int, shift: int) -> Tensor:
    """int64 [count, words]: bits shift .. shift + count - 1 of elements."""
    flat = x.reshape(-1).contiguous()
    words = -(-flat.numel() // 64)
    out = torch.empty((count, words), dtype=torch.int64, device=x.device)
    if out.numel():
        launch(_gather, (triton.cdiv(words, _WORDS),), flat, out, flat.numel(), words, count, shift, _WORDS)
    return out


def scatter(planes: Tensor, numel: int, dtype: torch.dtype) -> Tensor:
    """[numel]: elements of their planes."""
    rows, out = _rows(planes), torch.empty(numel, dtype=dtype, device=planes.device)
    if numel:
        launch(_scatter, (triton.cdiv(numel, 64 * _WORDS),), rows, out, numel, rows.stride(0), rows.shape[0], _WORDS)
    return out


def spread(planes: Tensor, numel: int, dtype: torch.dtype) -> Tensor:
    """[planes, numel] of 0 and 1."""
    rows, out = _rows(planes), torch.empty((planes.shape[0], numel), dtype=dtype, device=planes.device)
    if out.numel():
        launch(_spread, (triton.cdiv(numel, 64 * _WORDS), rows.shape[0]), rows, out, numel, rows.stride(0), _WORDS)
    return out


def _rows(planes: Tensor) -> Tensor:
    return planes if planes.stride(-1) == 1 or planes.shape[1] < 2 else planes.contiguous()
