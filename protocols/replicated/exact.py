"""Exact truncation: the floor, whatever coins the fused truncation drew (PROTOCOLS 2a, last lines)."""

from __future__ import annotations

from dataclasses import replace

from hush.mpc.ring import Ring
from hush.mpc.ring.widths import Widths
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.step import Step, together
from hush.protocols.replicated import compare, convert, fused, truncate
from hush.protocols.replicated.boolean import join_parts
from hush.protocols.replicated.linear import coarser, sub
from hush.protocols.replicated.party import Party
from hush.protocols.replicated.rotation import slices


def wide(widths: Widths) -> Widths:
    """The fused truncation that an exact one corrects: into the input's ring where the output's would be too narrow."""
    return replace(widths, out=widths.ring) if widths.local else widths


def mask_owner(rotation: int) -> int:
    """The rotation of a comparison whose role 0, who alone knows one operand, is the truncation's role 2."""
    return (rotation + 2) % 3


def shared(party: Party, x: Shared, frac: int, ring: Ring) -> Step[Shared]:
    """floor(x / 2^f), f = x.frac - frac, in any ring, for -2^(k-2) <= x < 2^(k-2).

    1, 2. The fused truncation of x (`fused.truncate_shared`), which is one too large iff c mod 2^f < r mod 2^f.
    3 ... That bit, by a comparison on f bits of r, known to P2, and c, known to P0 and P1 (`compare.exceeds`).
    Then it is converted (`convert.from_bits`, 2 rounds) and subtracted; a narrower ring drops high bits locally.

    Views: those of the three parts. Rounds 4 and the comparison's, bits the sum of the three. Exact: the result does
    not depend on the coins t of the truncation, which the adversary still learns and which are uniform.
    """
    coarser(x, frac)
    widths = Widths(x.ring, ring, x.frac - frac)
    if not widths.shift:
        return (yield from truncate.shared(party, x, frac, ring))
    device = x.parts[0].device
    parts, masks = yield from fused.truncate_shared(party, truncate.pieces(x), x.numel, device, wide(widths))
    comparisons = [
        compare.exceeds(party, mask, widths.shift, x.ring, mask_owner(cut.rotation))
        for cut, mask in zip(slices(x.numel), masks, strict=True)
    ]
    excess = SharedBits(join_parts(list((yield from together(*comparisons))), 1), x.shape)
    one = yield from convert.from_bits(party, excess, ring)
    floors = Shared(tuple(ring.reduce(part).reshape(x.shape) for part in parts), frac, ring)
    return sub(floors, one[0].with_frac(frac))
