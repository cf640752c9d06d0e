"""Multiply and truncate in two rounds: one unit in the last place, no failure at random (PROTOCOLS 2a).

Functionality, stated wherever this is used: draw t uniform in [0, 2^f); output fresh shares of floor((z + t) / 2^f),
that is floor(z/2^f) or one more; give t to the adversary. t is not hidden: P0 and P1 know it as 2^f - 1 - (c mod 2^f),
P2 as r mod 2^f. The simulation is perfect given t.

Ring 2^k in, 2^k' out, f bits dropped; h = k-1-f, e = k'-h. Valid for -2^(k-2) <= z < 2^(k-2). Keys: k_20 is shared by
P2 and P0, k_12 by P1 and P2. H in Z_2^k, the output's x0 in Z_2^k', r' and a in Z_2^e are drawn from k_20; G in Z_2^k
and b in Z_2^e from k_12; all fresh for each element and invocation. "P0" is role 0: roles rotate over slices
(`rotation`). PROTOCOLS 2a draws A where x0 = a 2^h - A is drawn here, and sends B where x2 = b 2^h - B is sent here,
with a = x0' and b = x2': the same views, less work.

Why it is right: c = z + r + 2^(k-2) mod 2^k, and z + 2^(k-2) < 2^(k-1), so c and r mod 2^(k-1) subtract to z + 2^(k-2)
but for a wrap that their two top bits show as c_msb xor r_msb; floor(c/2^f) - floor(r/2^f) is the quotient or one more.

The masked opening and the correction by the two top bits are those of Escudero, Ghosh, Keller, Rachuri, Scholl (CRYPTO
2020, probabilistic truncation), with one party knowing the mask as in Dalskov, Escudero, Keller (PoPETs 2020). Here
the mask is split over two keys, which fuses the truncation with the product and needs no preprocessing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hush.mpc.prg import Randomness
from hush.mpc.ring.torch_steps import Terms
from hush.mpc.ring.widths import Widths
from hush.mpc.step import Round, Step, together
from hush.protocols.replicated import rotation, wire
from hush.protocols.replicated.party import Party

Parts = tuple[Tensor, Tensor]
Piece = Callable[[tuple[int, ...], int, int], Tensor]
"""piece(which, start, stop): elements start..stop, flat, of the sum of the named parts of a shared input."""


def truncate_product(party: Party, z: Tensor, widths: Widths) -> Step[tuple[Tensor, Tensor]]:
    """Parts of floor(z/2^f) or one more, from local products z = z0 + z1 + z2 (party i knows z_i).

    1. P0 -> P1: z0 + H. P1 -> P0: z1 + G. P2, who knows r = H + G - z2 = r_msb 2^(k-1) + r_hi 2^f + r_low, -> P1:
       x2 = (a + b) 2^h - r_hi - x0 mod 2^k' and r'' = r_msb - r' mod 2^e. P0 and P1 now know c.
    2. P0 -> P1: p0 = (1 - 2 c_msb) r' - a. P1 -> P0: p1 = (1 - 2 c_msb) r'' - b (mod 2^e).
    3. Output x0, x2, and x1 = floor(c mod 2^(k-1) / 2^f) + (c_msb + p0 + p1) 2^h - 2^(k-2-f) mod 2^k'.

    Views: P0 sees z1 + G and p1, masked by k_12, which it lacks; P1 sees z0 + H, x2, r'', p0, masked by k_20, which it
    lacks; P2 sees nothing. Rounds 2; bits 2k + k' + 3e an element in all (249 at k = k' = 64, f = 18); error and
    leakage: the functionality above.
    """
    flat, roles = z.reshape(-1), (_product_0, _product_1, _product_2)
    first, second = (torch.empty(z.numel(), dtype=widths.out.dtype, device=z.device) for _ in range(2))
    steps = []
    for cut in rotation.slices(z.numel()):
        span = slice(cut.start, cut.stop)
        steps.append(roles[party.role(cut.rotation)](party, flat[span], (first[span], second[span]), widths))
    yield from together(*steps)
    return first.reshape(z.shape), second.reshape(z.shape)


def truncate_shared(
    party: Party, piece: Piece, numel: int, device: torch.device, widths: Widths
) -> Step[tuple[Parts, tuple[Tensor, ...]]]:
    """Flat parts of floor(x/2^f) or one more from an input that is shared (public weights); and, slice by slice, what
    the party knows of the masks: c (roles 0 and 1) or r (role 2).

    As `truncate_product`, with r = H - x2 and c = x0 + x1 + H + 2^(k-2), which P0 computes alone (x: the input).

    1. P0 -> P1: c and p0. P2 -> P1: the output's x2, and r''.
    2. P1 -> P0: p1.

    Views: P1 sees c, p0, x2, r'', masked by k_20; P0 sees p1, masked by b of k_12; P2 sees nothing. Rounds 2; bits
    k + k' + 3e an element in all (185 at k = k' = 64, f = 18). Role 0 evaluates the input's x0 + x1 only, role 2 its x2
    only, role 1 nothing: `piece` is asked for no more.
    """
    roles = (_shared_0, _shared_1, _shared_2)
    first, second = (torch.empty(numel, dtype=widths.out.dtype, device=device) for _ in range(2))
    steps = []
    for cut in rotation.slices(numel):
        into = (first[cut.start : cut.stop], second[cut.start : cut.stop])
        steps.append(roles[party.role(cut.rotation)](party, piece, cut, into, widths))
    return (first, second), (yield from together(*steps))


def _draw_20(stream: Randomness, numel: int, w: Widths) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """H, x0, r', a."""
    n = (numel,)
    return stream.elements(n, w.ring), stream.elements(n, w.out), stream.elements(n, w.top), stream.elements(n, w.top)


def _product_0(party: Party, z: Tensor, into: Parts, w: Widths) -> Step[None]:
    n, kernels = z.numel(), party.kernels
    big, x0, low, a = _draw_20(party.with_prev, n, w)
    mine = w.ring.settle(z + big)
    got = yield Round(to_next=(wire.pack(kernels, mine, w.ring),), from_next=(wire.spec(n, w.ring),))
    p0 = kernels.answer(mine, wire.unpack(kernels, got.from_next[0], n, w.ring), low, a, into[1], w)
    got = yield Round(to_next=(p0,), from_next=(wire.spec(n, w.top),))
    kernels.correct(into[1], got.from_next[0], w)
    into[0].copy_(x0)


def _product_1(party: Party, z: Tensor, into: Parts, w: Widths) -> Step[None]:
    n, kernels = z.numel(), party.kernels
    mine = w.ring.settle(z + party.with_next.elements((n,), w.ring))
    b = party.with_next.elements((n,), w.top)
    got = yield Round(
        to_prev=(wire.pack(kernels, mine, w.ring),),
        from_prev=(wire.spec(n, w.ring),),
        from_next=(wire.spec(n, w.out), wire.spec(n, w.top)),
    )
    low = _from_2(party, got.from_next, into, w)
    p1 = kernels.answer(mine, wire.unpack(kernels, got.from_prev[0], n, w.ring), low, b, into[0], w)
    got = yield Round(to_prev=(p1,), from_prev=(wire.spec(n, w.top),))
    kernels.correct(into[0], got.from_prev[0], w)


def _product_2(party: Party, z: Tensor, into: Parts, w: Widths) -> Step[None]:
    drawn = _draw_20(party.with_next, z.numel(), w)
    mask = party.with_prev.elements((z.numel(),), w.ring)
    b = party.with_prev.elements((z.numel(),), w.top)
    yield from _split_2(party, (drawn[0], mask), z, drawn, b, into, w)


def _split_2(
    party: Party,
    mask: Terms,
    z: Tensor,
    drawn: tuple[Tensor, Tensor, Tensor, Tensor],
    b: Tensor,
    into: Parts,
    w: Widths,
) -> Step[Tensor]:
    """P2's part, the same for both kinds of input: share the high bits of r = sum(mask) - z with P1. Returns r."""
    _, x0, low, a = drawn
    rest, r = party.kernels.split(mask, z, x0, low, (a, b), into[0], w)
    into[1].copy_(x0)
    yield Round(to_prev=(wire.pack(party.kernels, into[0], w.out), rest))
    yield Round()
    return r


def _from_2(party: Party, messages: tuple[Tensor, ...], into: Parts, w: Widths) -> Tensor:
    """What P1 gets from P2: x2, its second output part, and r'', which is returned."""
    numel, kernels = into[1].shape[0], party.kernels
    into[1].copy_(wire.unpack(kernels, messages[0], numel, w.out))
    return wire.unpack(kernels, messages[1], numel, w.top)


def _shared_0(party: Party, piece: Piece, cut: rotation.Slice, into: Parts, w: Widths) -> Step[Tensor]:
    n, kernels = cut.numel, party.kernels
    big, x0, low, a = _draw_20(party.with_prev, n, w)
    c = w.ring.settle(torch.add(piece((0, 1), cut.start, cut.stop), big).add_(w.offset))
    p0 = kernels.answer(c, None, low, a, into[1], w)
    yield Round(to_next=(wire.pack(kernels, c, w.ring), p0))
    got = yield Round(from_next=(wire.spec(n, w.top),))
    kernels.correct(into[1], got.from_next[0], w)
    into[0].copy_(x0)
    return c


def _shared_1(party: Party, piece: Piece, cut: rotation.Slice, into: Parts, w: Widths) -> Step[Tensor]:
    n, kernels = cut.numel, party.kernels
    b = party.with_next.elements((n,), w.top)
    awaited = (wire.spec(n, w.ring), wire.spec(n, w.top))
    got = yield Round(from_prev=awaited, from_next=(wire.spec(n, w.out), wire.spec(n, w.top)))
    c = wire.unpack(kernels, got.from_prev[0], n, w.ring)
    p1 = kernels.answer(c, None, _from_2(party, got.from_next, into, w), b, into[0], w)
    yield Round(to_prev=(p1,))
    kernels.correct(into[0], got.from_prev[1], w)
    return c


def _shared_2(party: Party, piece: Piece, cut: rotation.Slice, into: Parts, w: Widths) -> Step[Tensor]:
    drawn = _draw_20(party.with_next, cut.numel, w)
    b = party.with_prev.elements((cut.numel,), w.top)
    return (yield from _split_2(party, (drawn[0],), piece((0,), cut.start, cut.stop), drawn, b, into, w))
