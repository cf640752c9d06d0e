"""Between arithmetic and boolean shares: A2B, B2A of single bits, and bit times value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hush.mpc.errors import ShapeError
from hush.mpc.ring import Ring
from hush.mpc.ring.widths import Widths, flip
from hush.mpc.schedule import LAN, Schedule
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.step import Round, Step, together
from hush.protocols.replicated import adder, rotation, wire
from hush.protocols.replicated.boolean import Parts, join_parts
from hush.protocols.replicated.linear import same_kind
from hush.protocols.replicated.pair_truncate import Mask, truncate_masked, truncate_pair
from hush.protocols.replicated.pairs import share_sum
from hush.protocols.replicated.party import Party
from hush.protocols.replicated.truncate import narrow_shared


def to_bits(party: Party, x: Shared, *, planes: int, schedule: Schedule = LAN) -> Step[SharedBits]:
    """The low `planes` bits of x's ring element (A2B), exact mod 2^planes.

    1, 2. As `compare.negative`, asking for the carry into every position of a digit (`adder.deal_and_answer`).
    3 ... Carries into the digits by a prefix network, then into their inner positions (`adder.all_bits`).

    Views: those of the parts. Rounds 3 + ceil(log2 n) for n digits (2 + ceil(log2 n) if they are single bits); for 64
    planes 16 digits and 7 rounds (731 bits an element in all) to 21 digits and 8 rounds (666), where single bits would
    cost 1,155 and 8 rounds. Exact; no leakage.
    """
    if not 1 <= planes <= x.ring.bits:
        raise ShapeError(f"{planes} planes of a {x.ring.bits}-bit ring element: ask for 1 to {x.ring.bits}")
    cut = adder.layout(planes - 1, x.numel, every=True, schedule=schedule)
    sums, rows = yield from adder.dealt_sum(party, x, cut, 0)
    parts = yield from adder.all_bits(party, rows, sums, cut)
    return SharedBits(parts, x.shape)


def from_bits(party: Party, a: SharedBits, ring: Ring) -> Step[Shared]:
    """Each bit as an integer 0 or 1 of `ring`, shape [planes, *shape], frac 0 (B2A).

    The bit is a ^ c with a = b_0 ^ b_1, which P0 knows, and c = b_2, which P1 and P2 know: a ^ c = c + (1 - 2c) a.

    1. P0 deals a in the ring: a_0 from k_20, P0 -> P1: a_1 = a - a_0.
    2. P1 has t1 = c + (1 - 2c) a_1, P2 t2 = (1 - 2c) a_0: exchanged under masks (`pairs.share_sum`).

    Views: P1 sees a_1 and P2's masked term, under two draws of k_20; P2 sees P1's, under k_01; P0 nothing. Rounds 2;
    bits 3k a bit in all; exact; no leakage.
    """
    steps = []
    for piece in rotation.slices(a.numel):
        span = slice(piece.start // rotation.WORD, -(-piece.stop // rotation.WORD))
        planes = (a.parts[0][:, span], a.parts[1][:, span])
        steps.append(_bit_to_ring(party, party.role(piece.rotation), planes, piece.numel, ring))
    parts = join_parts(list((yield from together(*steps))), 1)
    shape = (a.planes, *a.shape)
    return Shared((parts[0].reshape(shape), parts[1].reshape(shape)), 0, ring)


def _bit_to_ring(party: Party, role: int, b: Parts, columns: int, ring: Ring) -> Step[Parts]:
    """Parts [planes, columns] of the bits."""
    spread, shape = party.kernels.spread, (b[0].shape[0], columns)
    numel = shape[0] * shape[1]
    term: Tensor | None = None
    if role == 0:
        yield from _deal(party, [spread(b[0] ^ b[1], columns, ring).reshape(-1)], ring)
    elif role == 1:
        (dealt,) = yield from _take(party, 1, numel, ring)
        c = spread(b[1], columns, ring).reshape(-1)
        term = flip(dealt, -c) + c
    else:
        (dealt,) = yield from _mirror(party, 1, numel, ring)
        term = flip(dealt, -spread(b[0], columns, ring).reshape(-1))
    first, second = yield from share_sum(party, role, term, numel, ring)
    return first.reshape(shape), second.reshape(shape)


def select(party: Party, bit: SharedBits, x: Shared) -> Step[Shared]:
    """bit * x: `select_sum` of one term, 4k bits an element in all."""
    return select_sum(party, [bit], [x])


def select_sum(
    party: Party,
    bits: Sequence[SharedBits],
    xs: Sequence[Shared],
    frac: int | None = None,
    ring: Ring | None = None,
    schedule: Schedule = LAN,
) -> Step[Shared]:
    """sum_j bit_j * x_j, exact at any scale, for m one-plane bits and values of one shape, ring and scale; or that sum
    truncated to `frac` in `ring`.

    A bit is a ^ c as in `from_bits`, and x = X + x_2 with X = x_0 + x_1, which P0 knows. So
    bit * x = c x + (1 - 2c) (a X + a x_2): linear in what P0 can deal, with coefficients that P1 and P2 know.

    1. P0 deals each a and a X in the ring: a_0, d_0 from k_20, P0 -> P1: a_1 = a - a_0, d_1 = a X - d_0.
    2. P1 has t1, the sum of c (x_1 + x_2) + (1 - 2c) (d_1 + a_1 x_2), P2 t2, that of c x_0 + (1 - 2c) (d_0 + a_0 x_2):
       exchanged under masks (`pairs.share_sum`); or, truncated, steps 1 to 3 of `pair_truncate` (where the output's
       ring has room for no more than a local shift, an exchange and that shift).

    Views: P1 sees every a_1 and d_1 and P2's masked term, under 2m + 1 draws of k_20; P2 sees P1's, under k_01; P0
    nothing. Rounds 2; bits (2m + 2) k an element in all: 4k for one (dealing a, then multiplying, would cost 6k).
    Exact; no leakage. Truncated: rounds 4, bits 2mk + k + k' + 3e; or, where the schedule has rounds so dear, the mask
    is dealt in step 1 too: rounds 3, bits 2mk + 2k + 3k' + e. Error and leakage those of `pair_truncate`.
    """
    _check(bits, xs)
    first, steps = xs[0], []
    scale, out = first.frac if frac is None else frac, ring or first.ring
    widths = None if frac is None else Widths(first.ring, out, first.frac - scale)
    joined = widths is not None and not widths.local
    early = joined and widths is not None and deals_mask(schedule, first.numel, widths)
    for piece in rotation.slices(first.numel):
        span = slice(piece.start // rotation.WORD, -(-piece.stop // rotation.WORD))
        planes = [(bit.parts[0][0, span], bit.parts[1][0, span]) for bit in bits]
        values = [_flat(x, piece) for x in xs]
        role, end = party.role(piece.rotation), widths if joined else None
        steps.append(_choose(party, role, planes, values, first.ring, end, early))
    parts = tuple(part.reshape(first.shape) for part in join_parts(list((yield from together(*steps))), 0))
    if joined:
        return Shared(parts, scale, out)
    chosen = replace(first, parts=parts)
    return chosen if widths is None else narrow_shared(party, chosen, widths)


def deals_mask(schedule: Schedule, numel: int, w: Widths) -> bool:
    """Whether a truncation's mask is dealt beside a selection: a round less, for k + 2k' - 2e bits an element more."""
    more = w.ring.bits + 2 * w.out.bits - 2 * w.top.bits
    return schedule.deals and numel * more <= schedule.round_bits


def _check(bits: Sequence[SharedBits], xs: Sequence[Shared]) -> None:
    like = xs[0]
    for bit, x in zip(bits, xs, strict=True):
        if bit.shape != x.shape or bit.planes != 1 or x.shape != like.shape:
            raise ShapeError(
                f"select takes one plane of the value's shape, not {bit.planes} of {tuple(bit.shape)} for "
                f"{tuple(x.shape)} beside {tuple(like.shape)}"
            )
        same_kind(x, like, "selection")


def _flat(x: Shared, piece: rotation.Slice) -> Parts:
    first, second = (part.reshape(-1)[piece.start : piece.stop] for part in x.parts)
    return first, second


def _choose(
    party: Party, role: int, bits: list[Parts], xs: list[Parts], ring: Ring, widths: Widths | None, early: bool
) -> Step[Parts]:
    numel, kernels = xs[0][0].shape[0], party.kernels
    if role == 0:
        draws = [party.with_prev.elements((numel,), ring) for _ in range(2 * len(xs))]
        pairs = zip(bits, xs, draws[::2], draws[1::2], strict=True)
        dealt = [m for b, x, a, d in pairs for m in kernels.deal_choice(b, x, (a, d), ring)]
        mask = Mask.deal(party, numel, widths) if early and widths is not None else ()
        yield Round(to_next=tuple(wire.pack(kernels, m, ring) for m in dealt), to_prev=mask)
        return (yield from _settle(party, role, None, numel, ring, widths, early))
    own: Mask | None = None
    if role == 1:
        own = Mask.drawn(party, numel, widths) if early and widths is not None else None
        dealt = yield from _take(party, 2 * len(xs), numel, ring)
    elif early and widths is not None:
        dealt = [party.with_next.elements((numel,), ring) for _ in range(2 * len(xs))]
        own = yield from Mask.receive(party, numel, widths)
    else:
        dealt = yield from _mirror(party, 2 * len(xs), numel, ring)
    term = torch.zeros(numel, dtype=ring.dtype, device=xs[0][0].device)
    for b, x, a, d in zip(bits, xs, dealt[::2], dealt[1::2], strict=True):
        c, known, other = (b[1], x, x[1]) if role == 1 else (b[0], (x[1],), x[0])
        term = kernels.choose(c, known, other, (a, d), term, ring)
    return (yield from _settle(party, role, term, numel, ring, widths, early, own))


def _settle(
    party: Party,
    role: int,
    term: Tensor | None,
    numel: int,
    ring: Ring,
    widths: Widths | None,
    early: bool,
    mask: Mask | None = None,
) -> Step[Parts]:
    """The sum of two roles' terms as a sharing, truncated if `widths` say so, under a dealt mask if `early`."""
    if widths is None:
        return (yield from share_sum(party, role, term, numel, ring))
    if early:
        return (yield from truncate_masked(party, role, term, mask, numel, widths))
    return (yield from truncate_pair(party, role, term, numel, widths))


def _deal(party: Party, values: list[Tensor], ring: Ring) -> Step[None]:
    """Role 0's round: to role 1, each value [n] less a draw that role 2 makes too."""
    hidden = [ring.settle(value - party.with_prev.elements((value.shape[0],), ring)) for value in values]
    yield Round(to_next=tuple(wire.pack(party.kernels, h, ring) for h in hidden))


def _take(party: Party, count: int, numel: int, ring: Ring) -> Step[list[Tensor]]:
    """Role 1's round: its shares of what was dealt."""
    got = yield Round(from_prev=(wire.spec(numel, ring),) * count)
    return [wire.unpack(party.kernels, message, numel, ring) for message in got.from_prev]


def _mirror(party: Party, count: int, numel: int, ring: Ring) -> Step[list[Tensor]]:
    """Role 2's round: its shares, which it draws."""
    drawn = [party.with_next.elements((numel,), ring) for _ in range(count)]
    yield Round()
    return drawn
