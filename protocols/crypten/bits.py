"""Between ring elements and bits: CrypTen's conversions, on words that hold one element, or one bit of 64 elements.

CrypTen keeps a bit string in a word of 64 bits per element. Ours are bit-sliced, so AND of planes carries 64 elements a
word; to CrypTen both are tensors of XOR-shared words.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hush.mpc.ring import RING64
from hush.mpc.ring.kernels import Kernels
from hush.protocols.crypten.library import library
from hush.protocols.crypten.products import arithmetic


def binary(words: Tensor) -> Any:
    """A CrypTen tensor of bit strings from this party's XOR share."""
    return library().Binary.from_shares(words.contiguous(), precision=0)


def to_words(share: Tensor) -> Tensor:
    """[n]: XOR-shared words of the elements' bits, flat (CrypTen's A2B).

    1. Each party shares its additive share by XOR, without a message. 2. They are added by a circuit of 64 bits: one
    AND and a tree of six levels. CrypTen counts 7 rounds, and 208 bytes sent an element.
    """
    flat = share.reshape(-1)
    if not flat.numel():
        return flat
    words: Tensor = library().to_binary(arithmetic(flat)).share
    return words


def equal_zero(share: Tensor, rank: int) -> Tensor:
    """[n]: XOR-shared words, 1 where x = 0, of flat elements. Party 0's share is compared with minus party 1's.

    CrypTen counts 6 rounds, and 96 bytes sent an element.
    """
    flat = share.reshape(-1)
    if not flat.numel():
        return flat
    lib = library()
    left = lib.Binary(flat, src=0)
    right = lib.Binary(-flat, src=1)
    words: Tensor = left.eq(right).share
    return words


def both(a: Tensor, b: Tensor) -> Tensor:
    """XOR shares of a & b, broadcast. CrypTen counts 1 round, and 16 bytes sent a word."""
    if not a.numel() or not b.numel():
        return a & b
    words: Tensor = (binary(a) & binary(b)).share
    return words


def to_numbers(bits: Tensor) -> Tensor:
    """Additive shares of bits from XOR-shared words that are 0 or 1 (CrypTen's B2A of single bits).

    1. Party 0 draws r, shared both ways. 2. bit ^ r is opened, as a word of 64 bits. 3. The bit is r or 1 - r, locally.
    CrypTen counts 1 round, and 8 bytes sent a bit.
    """
    if not bits.numel():
        return bits
    numbers: Tensor = library().beaver.B2A_single_bit(binary(bits)).share
    return numbers


def planes_to_numbers(kernels: Kernels, planes: Tensor, numel: int) -> Tensor:
    """[planes, numel]: additive shares of every bit of bit-sliced planes."""
    return to_numbers(kernels.spread(planes, numel, RING64))


def signed_number(words: Tensor, low: int, high: int) -> Tensor:
    """[n]: additive shares of the two's complement number in bits low .. high-1 of XOR-shared words.

    `to_numbers` of high - low bits an element.
    """
    places = range(low, high)
    numbers = to_numbers(torch.stack([(words >> place) & 1 for place in places]))
    units = [1 << (place - low) for place in places]
    units[-1] = -units[-1] if high - low < 64 else -(1 << 63)
    return (numbers * torch.tensor(units, dtype=torch.int64).reshape(-1, 1)).sum(0)
