"""The highest of each row by unary codes: six rounds, whatever the rows' length."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hush.mpc.ring import RING64, Ring
from hush.mpc.ring.widths import Widths
from hush.mpc.secret import Shared
from hush.mpc.step import Round, Spec, Step, together
from hush.protocols.replicated import products, rotation, wire
from hush.protocols.replicated.boolean import Parts
from hush.protocols.replicated.linear import add_public, neg, rescale
from hush.protocols.replicated.pairs import share_sum
from hush.protocols.replicated.party import Party
from hush.protocols.replicated.truncate import zero_part

COUNT = Ring(8)
LONGEST = (1 << COUNT.bits) - 1  # entries of a row: a count of them must not wrap to 0
DIGIT = 16  # values of half a count
_LIFT = 2  # bits by which the last sum is raised, for a truncation that widens it and takes them off again


class Cut(NamedTuple):
    """Entries start..stop, of rows first..last, where role 0 is played by party `rotation`."""

    rotation: int
    start: int
    stop: int
    first: int
    last: int

    @property
    def numel(self) -> int:
        """How many entries."""
        return self.stop - self.start

    @property
    def rows(self) -> int:
        """How many rows."""
        return self.last - self.first


def cuts(row: Tensor) -> tuple[Cut, ...]:
    """As `rotation.slices`, between rows; `row` [N] counts from 0 without gaps."""
    numel, rows = len(row), int(row[-1]) + 1
    if numel < 3 * rotation.ROTATE_MIN or rows < 3:
        return (Cut(0, 0, numel, 0, rows),)
    edges = [rows * third // 3 for third in range(4)]
    places = torch.searchsorted(row, torch.tensor(edges)).tolist()
    return tuple(Cut(i, places[i], places[i + 1], edges[i], edges[i + 1]) for i in range(3))


def digit_ring(bins: int) -> Ring:
    """Of the digits' codes: 2^_LIFT times a number of bins, and the two bits that a widening truncation leaves free."""
    return Ring(bins.bit_length() + _LIFT + 2)


def widening(bins: int) -> Widths:
    """The truncation behind the last product."""
    return Widths(digit_ring(bins), RING64, _LIFT)


def highest(party: Party, x: Shared, row: Tensor, shift: int, bins: int) -> Step[Shared]:
    """[R] in 2^64 (frac 0): of each row the largest c of its entries, c = floor(x / 2^shift) or one less.

    x [N] in 2^64 with 2^shift <= x < bins 2^shift, bins a power of two; `row` [N], sorted, says whose entry each is; at
    most `LONGEST` to a row. c = v + w mod bins, v = floor((x_0 + x_1) / 2^shift) known to P0, w = floor(x_2 / 2^shift)
    to P1 and P2.

    1. P0 deals v's unary code, bins numbers mod 2^8: u_1 from k_01, P0 -> P2: u_2 = e_v - u_1. P1 and P2 each turn
       their code of every entry by w, add up a row's codes, and from the top: t_1 + t_2 = how many entries have c >= i.
    2. `pairs.share_sum` of the bins - 1 counts of a row, mod 2^8.
    3. A count is v' + w' mod 2^8, and 0 where v' = -w'. P0 deals the unary codes of both hex digits of v' in 2^q, q =
       `digit_ring(bins)`: one half from k_01, P0 -> P2 the other. P1 and P2 pick the entries of -w' from theirs.
    4. `pairs.share_sum` of both.
    5, 6. Their products, raised by two bits and summed over a row: how many counts are 0. A truncation takes these
       bits, which are 0, off and widens (`truncate.product`). The result is the others' number.

    Views: P2 sees u_2, under a key it lacks (k_01), and the digits' likewise; P1 is dealt nothing; then the views of
    `share_sum` and of a product. Rounds 6; bits in all: 8 bins an entry, and (16 + 36 q) (bins - 1) and a product a
    row. Exact but for the unit that the shift may lose: which of the two c is, depends on the low bits of x_0 + x_1
    (which P0 knows) and of x_2 (which P1 and P2 know), as in `compare.negative`. Leakage: that.
    """
    if x.ring != RING64 or bins < 8 or bins & (bins - 1):
        raise ValueError(f"unary codes are for x in Z_2^64 and 8, 16... bins, not 2^{x.ring.bits} and {bins}")
    if len(row) and int(torch.bincount(row).max()) > LONGEST:
        raise ValueError(f"rows have at most {LONGEST} entries here")
    found = yield from together(*(_counts(party, x, row, cut, shift, bins) for cut in cuts(row)))
    counts = torch.cat([own[0] for own in found]), torch.cat([own[1] for own in found])
    ring, shape = digit_ring(bins), (-1, bins - 1)
    pieces = rotation.slices(counts[0].numel())
    digits = yield from together(*(_digits(party, counts, piece, ring) for piece in pieces))
    high, low = (
        Shared((torch.cat([d[k][0] for d in digits]), torch.cat([d[k][1] for d in digits])), 0, ring).reshape(*shape)
        for k in range(2)
    )
    across, down = rescale(high, _LIFT).local(lambda t: t[:, None, :]), low.local(lambda t: t[:, :, None])
    zeros = yield from products.matmul(party, across, down, 0, RING64)
    return add_public(neg(zeros.reshape(-1)), bins - 1, zero_part(party.index))


def _counts(party: Party, x: Shared, row: Tensor, cut: Cut, shift: int, bins: int) -> Step[Parts]:
    """Parts [rows * (bins - 1)] mod 2^8 of how many entries of each row reach bin 1, 2..."""
    role, size = party.role(cut.rotation), (cut.numel, bins)
    first, second = (part[cut.start : cut.stop].cpu() for part in x.parts)
    term = None
    if role == 0:
        v = RING64.shift_right(first + second, shift) & (bins - 1)
        code = -_bytes(party.with_next.elements((cut.numel * bins // 8,), RING64), size)
        code.view(-1)[torch.arange(cut.numel) * bins + v] += 1
        yield Round(to_prev=(code,))
    elif role == 1:
        code = _bytes(party.with_prev.elements((cut.numel * bins // 8,), RING64), size)
        yield Round()
    else:
        got = yield Round(from_next=(Spec(size, torch.uint8),))
        code = got.from_next[0]
    if role:
        w = RING64.shift_right(second if role == 1 else first, shift) & (bins - 1)
        turned = party.kernels.turned_sums(code, w, row[cut.start : cut.stop] - cut.first, cut.rows)
        term = COUNT.reduce(turned.flip(1).cumsum(1).flip(1)[:, 1:].reshape(-1)).to(party.kernels.device)
    return (yield from share_sum(party, role, term, cut.rows * (bins - 1), COUNT))


def _digits(party: Party, counts: Parts, piece: rotation.Slice, ring: Ring) -> Step[tuple[Parts, Parts]]:
    """Parts [n] in a ring of whether each hex digit of v' is that of -w', high digits and low ones."""
    role, numel, kernels = party.role(piece.rotation), piece.numel, party.kernels
    first, second = (part[piece.start : piece.stop] for part in counts)
    size, term = numel * 2 * DIGIT, None
    if role == 0:
        dealt = ring.reduce(-party.with_next.elements((size,), ring))
        place = torch.arange(numel, device=dealt.device) * (2 * DIGIT)
        v = COUNT.reduce(first + second)
        for offset, digit in ((0, v >> 4), (DIGIT, v & (DIGIT - 1))):
            dealt[place + offset + digit] += 1
        yield Round(to_prev=(wire.pack(kernels, ring.settle(dealt), ring),))
    elif role == 1:
        dealt = party.with_prev.elements((size,), ring)
        yield Round()
    else:
        got = yield Round(from_next=(wire.spec(size, ring),))
        dealt = wire.unpack(kernels, got.from_next[0], size, ring)
    if role:
        w = COUNT.reduce(-(second if role == 1 else first)).long()
        codes = dealt.view(numel, 2, DIGIT)
        wanted = torch.stack([w >> 4, w & (DIGIT - 1)], 1)[..., None]
        term = codes.gather(2, wanted)[..., 0].T.reshape(-1)
    parts = yield from share_sum(party, role, term, 2 * numel, ring)
    high, low = zip(*(part.chunk(2) for part in parts), strict=True)
    return high, low


def _bytes(words: Tensor, size: tuple[int, int]) -> Tensor:
    return words.cpu().view(torch.uint8).reshape(size)
