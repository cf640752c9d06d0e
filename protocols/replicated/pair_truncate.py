"""Truncation of a sum whose summands two parties hold, before it is a replicated sharing.

Functionality and range: those of `fused`, floor((z + t) / 2^f) for t uniform in [0, 2^f), which the adversary is given.
What roles 1 and 2 hold after a selection is such a sum. To make it a sharing first (`pairs.share_sum`, 2k bits) and
truncate that (`fused.truncate_shared`, k + k' + 3e) would send 2k bits more, in as many rounds. Where role 0 can deal
its mask before the sum is there, `Mask` saves a round more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hush.mpc.prg import Randomness
from hush.mpc.ring.widths import Widths, flip
from hush.mpc.step import Round, Step
from hush.protocols.replicated import wire
from hush.protocols.replicated.boolean import Parts
from hush.protocols.replicated.pairs import share_sum
from hush.protocols.replicated.party import Party


def truncate_pair(party: Party, role: int, term: Tensor | None, numel: int, w: Widths) -> Step[Parts]:
    """Flat parts of floor(z/2^f) or one more, z = t1 + t2, which roles 1 and 2 hold as `term` (role 0: None).

    Ring 2^k in, 2^k' out, h = k-1-f, e = k'-h; -2^(k-2) <= z < 2^(k-2). H in Z_2^k is drawn from k_20, y_1 in Z_2^k'
    and g_0 in Z_2^e from k_01. H = H_msb 2^(k-1) + H_hi 2^f + H_low.

    1. P2 -> P1: t2 + H. P1 now knows c = z + H + 2^(k-2).
    2. P1 -> P2: y_2 = floor(c mod 2^(k-1) / 2^f) + c_msb 2^h - 2^(k-2-f) - y_1, and g_1 = c_msb - g_0 (mod 2^e).
    3. C = (1 - 2 c_msb) H_msb is -2 H_msb g_0, which P0 knows, and H_msb - 2 H_msb g_1, which P2 knows: `share_sum`,
       where P1 is the role without a term. The output is y_0 = -H_hi, y_1 and y_2, plus 2^h times the parts of C.

    Why it is right: as in `fused`, with r = H.
    Views: P1 sees t2 + H, and lacks k_20; P2 sees y_2 and g_1, under two draws of k_01, which it lacks, and in step 3
    P0's term under a third; P0 sees P2's term under a draw of k_12. Rounds 3; bits k + k' + 3e an element in all (216
    from 2^32 to 2^64 with f = 7). Leakage: t, which P1 knows as 2^f - 1 - (c mod 2^f), P0 and P2 as H_low.
    """
    shape = (numel,)
    if role == 0:
        h = party.with_prev.elements(shape, w.ring)
        y1, g0 = party.with_next.elements(shape, w.out), party.with_next.elements(shape, w.top)
        yield Round()
        yield Round()
        wrapped = (g0 << 1).bitwise_and_(_spread(h, w)).neg_()
        first, second = yield from share_sum(party, 2, wrapped, numel, w.top)
        return _plus(-w.middle(h), first, w), _plus(y1, second, w)
    if role == 1:
        assert term is not None
        y1, g0 = party.with_prev.elements(shape, w.out), party.with_prev.elements(shape, w.top)
        got = yield Round(from_next=(wire.spec(numel, w.ring),))
        c = w.ring.settle(torch.add(term, wire.unpack(party.kernels, got.from_next[0], numel, w.ring)).add_(w.offset))
        sign = w.sign(c)
        y2 = w.out.settle(w.middle(c).sub_(w.raise_top(sign)).sub_(w.offset >> w.shift).sub_(y1))
        g1 = w.top.settle(-sign.to(w.top.dtype) - g0)
        yield Round(to_next=(wire.pack(party.kernels, y2, w.out), wire.pack(party.kernels, g1, w.top)))
        first, second = yield from share_sum(party, 0, None, numel, w.top)
        return _plus(y1, first, w), _plus(y2, second, w)
    assert term is not None
    h = party.with_next.elements(shape, w.ring)
    yield Round(to_prev=(wire.pack(party.kernels, w.ring.settle(term + h), w.ring),))
    got = yield Round(from_prev=(wire.spec(numel, w.out), wire.spec(numel, w.top)))
    y2 = wire.unpack(party.kernels, got.from_prev[0], numel, w.out)
    g1 = wire.unpack(party.kernels, got.from_prev[1], numel, w.top)
    wrapped = (1 - (g1 << 1)).bitwise_and_(_spread(h, w))
    first, second = yield from share_sum(party, 1, wrapped, numel, w.top)
    return _plus(y2, first, w), _plus(-w.middle(h), second, w)


@dataclass(frozen=True, slots=True)
class Mask:
    """What a role holds of a mask H in Z_2^k that role 0 has dealt before there is a sum to be masked: its summand of H
    (roles 1 and 2), and of -H_hi in Z_2^k' and H_msb in Z_2^e.

    H = H_1 + H_2 with H_1 drawn from k_01 and H_2 from k_20; the summands of -H_hi and H_msb of role 1 are drawn from
    k_01, P0 -> P2: role 2's. Bits k' + e an element; the message travels with another of role 0's.
    """

    own: Tensor
    middle: Tensor
    top: Tensor

    @classmethod
    def deal(cls, party: Party, numel: int, w: Widths) -> tuple[Tensor, Tensor]:
        """Role 0's message to role 2."""
        first, middle, top = _draw(party.with_next, numel, w)
        whole = w.ring.settle(first + party.with_prev.elements((numel,), w.ring))
        rest = w.out.settle(-w.middle(whole) - middle), w.top.settle(-_spread(whole, w) - top)
        return wire.pack(party.kernels, rest[0], w.out), wire.pack(party.kernels, rest[1], w.top)

    @classmethod
    def drawn(cls, party: Party, numel: int, w: Widths) -> Mask:
        """Role 1's."""
        return cls(*_draw(party.with_prev, numel, w))

    @classmethod
    def receive(cls, party: Party, numel: int, w: Widths) -> Step[Mask]:
        """Role 2's, in the round in which role 0 sends it."""
        own = party.with_next.elements((numel,), w.ring)
        got = yield Round(from_next=(wire.spec(numel, w.out), wire.spec(numel, w.top)))
        pairs = zip(got.from_next, (w.out, w.top), strict=True)
        middle, top = (wire.unpack(party.kernels, message, numel, ring) for message, ring in pairs)
        return cls(own, middle, top)


def _draw(stream: Randomness, numel: int, w: Widths) -> tuple[Tensor, Tensor, Tensor]:
    shape = (numel,)
    return stream.elements(shape, w.ring), stream.elements(shape, w.out), stream.elements(shape, w.top)


def truncate_masked(
    party: Party, role: int, term: Tensor | None, mask: Mask | None, numel: int, w: Widths
) -> Step[Parts]:
    """`truncate_pair` where a `Mask` has been dealt (role 0: None): same functionality and range.

    1. P1 -> P2: t1 + H_1. P2 -> P1: t2 + H_2. Both now know c = z + H + 2^(k-2).
    2. z' = floor(c mod 2^(k-1) / 2^f) + c_msb 2^h - 2^(k-2-f) - H_hi + 2^h (1 - 2 c_msb) H_msb: P1 and P2 know the
       public part and summands of what is linear in H_hi and H_msb, hence of z': `pairs.share_sum`.

    Views: P1 sees t2 + H_2, and lacks k_20; P2 sees t1 + H_1 and the dealt summands, under three draws of k_01, which
    it lacks; P0 nothing; then `share_sum`'s. Rounds 2; bits 2k + 2k' an element, and k' + e for the mask. Leakage: t,
    which P1 and P2 know as 2^f - 1 - (c mod 2^f), and P0 as H_low.
    """
    if role == 0:
        yield Round()
        return (yield from share_sum(party, role, None, numel, w.out))
    assert term is not None
    assert mask is not None
    mine, kernels, spec = w.ring.settle(term + mask.own), party.kernels, (wire.spec(numel, w.ring),)
    message = (wire.pack(kernels, mine, w.ring),)
    if role == 1:
        got = (yield Round(to_next=message, from_next=spec)).from_next[0]
    else:
        got = (yield Round(to_prev=message, from_prev=spec)).from_prev[0]
    c = w.ring.settle(mine + wire.unpack(kernels, got, numel, w.ring) + w.offset)
    sign = w.sign(c)
    own = mask.middle + w.raise_top(flip(mask.top, sign))
    if role == 1:
        own = own + w.middle(c) - w.raise_top(sign) - (w.offset >> w.shift)
    return (yield from share_sum(party, role, w.out.settle(own), numel, w.out))


def _spread(mask: Tensor, w: Widths) -> Tensor:
    """0 or -1: the mask's top bit, in the storage of the output's top."""
    return w.sign(mask).to(w.top.dtype)


def _plus(y: Tensor, top: Tensor, w: Widths) -> Tensor:
    """y + 2^h top in the output's ring."""
    return w.out.settle(w.raise_top(top).add_(y))
