"""Comparisons with zero, on as few bits as the value's bound allows; bit-sliced."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor

from hush.mpc.errors import RangeError
from hush.mpc.fixed_point import encode
from hush.mpc.ring import Ring
from hush.mpc.schedule import LAN, Schedule
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.step import Round, Spec, Step, together
from hush.protocols.replicated import adder, rotation
from hush.protocols.replicated.boolean import Parts, all_planes, invert_parts, join_parts, xor_parts
from hush.protocols.replicated.party import Party


def sign_width(ring: Ring, frac: int, bound: float, drop: int) -> int:
    """Bits b on which the sign of |x| <= bound is decided after `drop` low bits are dropped.

    y = floor(x/2^drop), or one less if drop > 0, must lie in [-2^(b-1), 2^(b-1)), and b + drop <= k (RangeError).
    """
    most = _units(bound, frac, ring)
    if drop < 0:
        raise RangeError(f"cannot drop {drop} bits: 0 or more")
    highest = min(most, (1 << (ring.bits - 1)) - 1) >> drop
    lowest = -((most + (1 << drop) - 1) >> drop) - (drop > 0)
    width = 1 + max(1, highest.bit_length(), (-lowest - 1).bit_length())
    if width + drop > ring.bits:
        raise RangeError(
            f"the sign of values up to {bound:g} at {frac} fraction bits takes {width} bits and {drop} dropped ones, "
            f"more than the ring's {ring.bits}: lower the bound, drop fewer bits, or use a wider ring"
        )
    return width


def zero_width(ring: Ring, frac: int, bound: float) -> int:
    """Bits b with |x| < 2^b for every |x| <= bound: x = 0 iff x = 0 mod 2^b."""
    return max(1, _units(bound, frac, ring).bit_length())


def negative(party: Party, x: Shared, *, bound: float, drop: int = 0, schedule: Schedule = LAN) -> Step[SharedBits]:
    """[x < 0], one plane, for |x| <= bound.

    v = floor((x_0 + x_1 mod 2^k) / 2^s) mod 2^b is known to P0, w = floor(x_2 / 2^s) mod 2^b to P1 and P2, s = drop;
    v + w = floor(x / 2^s) or, if s > 0, one less. The sign is its top bit: v_top ^ w_top ^ the carry of the b-1 bits
    below. The sum is formed BEFORE the shift; b + s <= k keeps the wrap of the ring out of the b bits.

    1, 2. Deal v's digits and its top bit, look up which digits generate and pass a carry (`adder.deal_and_answer`).
    3 ... Combine the digits' answers (`adder.carry_tree`); XOR the tops, locally.

    Views: those of the two parts; every message is masked by a key its receiver lacks. Rounds 2 + ceil(log2 n) for n
    digits of c, about (b-1)/n, bits; bits 1 + sum(2^c - 1) + 2(2n - 1) + 3(2(n-1) - ceil(log2 n)) in all: 94 at b = 20
    with 6 digits, 335 at b = 64 with 21 (single bits, as published, cost 151 and 544, and two and one rounds more).
    Exact if drop = 0; otherwise 0 <= x < 2^drop units may come out negative, and nothing else is wrong.
    Leakage: with drop > 0, whether such an x comes out negative depends on the low bits of x_0 + x_1 (which P0 knows)
    and of x_2 (which P1 and P2 know): the functionality hands its rounding to the adversary, as truncation does. With
    drop = 0 nothing. Sources: the sum of two locally known numbers is ABY3's (Mohassel, Rindal, CCS 2018); a digit's
    lookup is a one-time truth table (Ishai et al., TCC 2013) dealt by P0, who knows one of its two inputs.
    """
    return (yield from below(party, x, (0.0,), bound=bound, drop=drop, schedule=schedule))[0]


def below(
    party: Party,
    x: Shared,
    thresholds: Sequence[float],
    *,
    bound: float,
    drop: int = 0,
    schedule: Schedule = LAN,
) -> Step[list[SharedBits]]:
    """[x < t], a plane each, for m public thresholds, |x - t| <= bound: `negative` of each x - t from one dealt code.

    Since t is public, P1 and P2 take it off w, and v, with its code, serves all thresholds: bits 1 + sum(2^c - 1) +
    m (2(2n - 1) + 3(2(n-1) - ceil(log2 n))) in all, in the rounds of one. Views, error, leakage: those of `negative`.
    """
    width = sign_width(x.ring, x.frac, bound, drop)
    cut = adder.layout(width - 1, x.numel, sums=len(thresholds), schedule=schedule)
    addends = [-int(encode(t, x.ring, x.frac)) for t in thresholds]
    sums, rows = yield from adder.dealt_sum(party, x, cut, drop, addends)
    carry = yield from adder.carry_out(party, rows, sums, cut)
    parts = [part.chunk(len(thresholds), 1) for part in xor_parts(sums, carry)]
    return [SharedBits(pair, x.shape) for pair in zip(*parts, strict=True)]


def exceeds(party: Party, own: Tensor, bits: int, ring: Ring, turn: int) -> Step[Parts]:
    """[v > c] for v known to role 0 and c known to roles 1 and 2, both of `bits` bits: parts of one plane.

    `own` [n] is v or c. v > c iff v + (2^bits - 1 - c) carries out of the bits. As `negative`, without a top bit; the
    role 0 is party `turn`, over the whole of `own`.
    """
    role = party.role(turn)
    planes = party.kernels.to_planes(own, bits, ring)
    cut = adder.layout(bits, own.numel(), tops=0)
    sums, rows = yield from adder.deal_and_answer(party, role, planes if role == 0 else ~planes, cut)
    return (yield from adder.carry_out(party, rows, sums, cut))


def is_zero(party: Party, x: Shared, *, bound: float) -> Step[SharedBits]:
    """[x == 0], one plane, exact, for |x| <= bound.

    x = 0 iff v = x_0 + x_1, which P0 knows, equals w = -x_2, which P1 and P2 know, on b bits. No adder is needed.

    1. P0 deals v's planes: v_0 from k_20, P0 -> P1: v ^ v_0. The bits v ^ w ^ 1 are then shared.
    2 ... Their AND, by a tree (`boolean.all_planes`).

    Views: P1 sees v ^ v_0 under a key it lacks; the rest is AND's. Rounds 1 + ceil(log2 b); bits b + 3(b-1) in all (a
    lookup of wider digits would cost the same at two bits and more beyond); exact; no leakage.
    """
    width = zero_width(x.ring, x.frac, bound)
    steps = [_dealt_difference(party, x, piece, width) for piece in rotation.slices(x.numel)]
    difference = join_parts(list((yield from together(*steps))), 1)
    parts = yield from all_planes(party, invert_parts(party, difference))
    return SharedBits(parts, x.shape)


def _dealt_difference(party: Party, x: Shared, piece: rotation.Slice, width: int) -> Step[Parts]:
    role, ring, kernels = party.role(piece.rotation), x.ring, party.kernels
    first, second = (part.reshape(-1)[piece.start : piece.stop] for part in x.parts)
    if role == 0:
        v = kernels.to_planes(ring.reduce(first + second), width, ring)
        mask = party.with_prev.planes(*v.shape)
        v ^= mask
        yield Round(to_next=(v,))
        return mask, v
    w = kernels.to_planes(ring.reduce(-(second if role == 1 else first)), width, ring)
    if role == 1:
        got = yield Round(from_prev=(Spec((w.shape[0], w.shape[1]), w.dtype),))
        return got.from_prev[0], w
    mask = party.with_next.planes(*w.shape)
    yield Round()
    return w, mask


def _units(bound: float, frac: int, ring: Ring) -> int:
    """The largest magnitude in ring units; a ring element never exceeds 2^(k-1)."""
    if not 0 <= bound < math.inf:
        raise RangeError(f"a bound of {bound} is not a finite non-negative number: declare the largest magnitude")
    return min(math.floor(Fraction(bound) * Fraction(2) ** frac), 1 << (ring.bits - 1))
