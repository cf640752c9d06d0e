"""Dropping low bits; and why CrypTen's own division of shares by a public integer serves as a measure only.

With two parties CrypTen divides each share by itself: no message, and right unless the shares wrap around 2^64, which
happens with probability |x| / 2^64. Then the result is off by 2^(64-f). Our functions let products reach 2^62 before
they truncate; at 2^50 one element in 16,384 would be garbage. So the wrap is computed, by one of CrypTen's products.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hush.mpc.ring import RING64
from hush.protocols.crypten.bits import signed_number, to_words
from hush.protocols.crypten.products import arithmetic, beaver, own

_ROOM = 62  # |x| < 2^62, as in every protocol


def nearly(share: Tensor, shift: int, rank: int) -> Tensor:
    """floor(x / 2^shift) or one more (exact where no set bit is dropped), for |x| < 2^62; 0 < shift <= 62.

    1. x' = x + 2^62, in [0, 2^63), so x' = u0 + u1 - 2^64 w with u0, u1 the shares as unsigned numbers, and w = 1 just
       where the top bit of either is set: were only one of them set and w = 0, x' would not be below 2^63.
    2. w = t0 + t1 - t0 t1 for the top bits: one product (`beaver`) of a number that party 0 knows by one that party 1
       knows. 3. floor(u0 / 2^f) + ceil(u1 / 2^f) - 2^(64-f) w - 2^(62-f), locally.

    CrypTen counts 1 round, and 16 bytes sent an element. Beyond its range the result is meaningless.
    """
    if not 0 < shift <= _ROOM:
        raise ValueError(f"truncation by {shift} bits: 1 to {_ROOM} can be dropped")
    biased = share + (1 << _ROOM) if rank == 0 else share
    top = (biased < 0).to(torch.int64)
    wraps = top - beaver("mul", own(top, rank, 0), own(top, rank, 1))
    quotient = RING64.shift_right(biased, shift)
    if rank == 0:
        quotient = quotient - (1 << (_ROOM - shift))
    else:
        quotient = quotient + ((biased & ((1 << shift) - 1)) != 0)
    return quotient - (wraps << (64 - shift))


def by_division(share: Tensor, shift: int) -> Tensor:
    """CrypTen's own: each share divided by 2^shift, which needs no messages. Within two of the floor, but off by
    2^(64-shift) with probability |x| / 2^64."""
    quotient: Tensor = arithmetic(share).div(1 << shift).share
    return quotient


def exactly(share: Tensor, shift: int) -> Tensor:
    """floor(x / 2^shift), for any x in [-2^63, 2^63): its bits from `shift` on as a number.

    `bits.to_words` and `bits.to_numbers` of 64 - shift bits an element.
    """
    return signed_number(to_words(share), shift, 64).reshape(share.shape)


def wrapped(share: Tensor, bits: int) -> Tensor:
    """x modulo 2^bits, in [-2^(bits-1), 2^(bits-1)). `bits.to_words` and `bits.to_numbers` of as many bits."""
    return signed_number(to_words(share), 0, bits).reshape(share.shape)
