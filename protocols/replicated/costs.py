"""The traffic of each interactive step, declared as formulas over public sizes: one `Traffic` per round.

Rows of a `Traffic` are parties, columns (to the next party, to the previous one). Elements of a width that is no native
one travel as bit planes (`wire`): `size` is exact. Where roles are asymmetric the formula is written for rotation 0 and
summed over the slices of `rotation`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from hush.mpc.cells import Cells
from hush.mpc.cost import Traffic
from hush.mpc.ring import Ring
from hush.mpc.ring.widths import Widths
from hush.protocols.replicated import unary
from hush.protocols.replicated.invocation import DIGEST_BYTES, POSITION_BYTES
from hush.protocols.replicated.lookup import PUBLIC_ROTATION
from hush.protocols.replicated.prefix import correction_bytes
from hush.protocols.replicated.rotation import slices
from hush.protocols.replicated.wire import size

Rounds = list[Traffic]


def rotated(numel: int, formula: Callable[[int], Rounds]) -> Rounds:
    """A role-asymmetric formula (of a number of elements) summed over a tensor's slices."""
    parts = [[t.rotate(cut.rotation) for t in formula(cut.numel)] for cut in slices(numel)]
    return [Traffic.merge(same_round) for same_round in zip(*parts, strict=True)]


def reshare(numel: int, ring: Ring) -> Rounds:
    """One round; party i sends x_i, k bits an element, to party i-1."""
    k = size(numel, ring)
    return [Traffic(((0, k), (0, k), (0, k)))]


def open_all(numel: int, ring: Ring) -> Rounds:
    """One round; party i sends x_i, k bits an element, to party i+1."""
    k = size(numel, ring)
    return [Traffic(((k, 0), (k, 0), (k, 0)))]


def contribute(numel: int, ring: Ring, dealer: int) -> Rounds:
    """One round; the dealer sends the next party k bits an element."""
    return [Traffic(((size(numel, ring), 0), (0, 0), (0, 0))).rotate(dealer)]


def public_lookup(numel: int, ring: Ring) -> Rounds:
    """One round; parties 2 and 0 tell each other their terms, k bits each (`lookup.public_table`)."""
    k = size(numel, ring)
    return [Traffic(((0, 0), (k, 0), (0, k))).rotate(PUBLIC_ROTATION)]


def pick(numel: int, cells: Cells, tables: int, ring: Ring) -> Rounds:
    """`pick.pick`: P0 sends P1 and P2 the corrections; P1 and P2 tell each other k bits for each table."""

    def formula(n: int) -> Rounds:
        dealt = n * correction_bytes(cells)
        return [Traffic(((dealt, dealt), (0, 0), (0, 0))), public_exchange(n * tables, ring)]

    return rotated(numel, formula)


def pick_product(numel: int, cells: Cells, tables: int, ring: Ring) -> Rounds:
    """`pick.pick_product`: P0 sends P1 and P2 the corrections, and P2 an element; P1 and P2 tell each other one."""

    def formula(n: int) -> Rounds:
        dealt, k = n * correction_bytes(cells), size(n, ring)
        return [Traffic(((dealt, dealt + k), (k, 0), (0, k))), public_exchange(n * tables, ring)]

    return rotated(numel, formula)


def highest(row: Tensor, bins: int) -> Rounds:
    """`unary.highest`: codes of `bins` bytes an entry from P0 to P2; counts, exchanged; the codes of their two digits;
    those, exchanged; a product a row."""
    pieces, ring = unary.cuts(row), unary.digit_ring(bins)
    dealt = [Traffic(((0, cut.numel * bins), (0, 0), (0, 0))).rotate(cut.rotation) for cut in pieces]
    counts = [public_exchange(cut.rows * (bins - 1), unary.COUNT).rotate(cut.rotation) for cut in pieces]

    def digits(n: int) -> Rounds:
        return [Traffic(((0, size(2 * unary.DIGIT * n, ring)), (0, 0), (0, 0))), public_exchange(2 * n, ring)]

    rows = sum(cut.rows for cut in pieces)
    return [
        Traffic.merge(dealt),
        Traffic.merge(counts),
        *rotated(rows * (bins - 1), digits),
        *product(rows, unary.widening(bins)),
    ]


def public_exchange(numel: int, ring: Ring) -> Traffic:
    """`pairs.share_sum`: P1 and P2 tell each other k bits an element."""
    k = size(numel, ring)
    return Traffic(((0, 0), (k, 0), (0, k)))


def product(numel: int, widths: Widths) -> Rounds:
    """A product of `numel` outputs and its truncation.

    Into a narrow ring: a resharing, 3k' an element. Else `fused.truncate_product`: round 1, P0 and P1 exchange k bits
    and P2 sends P1 k' + e; round 2, P0 and P1 exchange e.
    """
    if widths.local:
        return reshare(numel, widths.out)

    def formula(n: int) -> Rounds:
        k, out, e = size(n, widths.ring), size(n, widths.out), size(n, widths.top)
        return [Traffic(((k, 0), (0, k), (0, out + e))), Traffic(((e, 0), (0, e), (0, 0)))]

    return rotated(numel, formula)


def shared(numel: int, widths: Widths) -> Rounds:
    """Truncation of a shared value, as after a public factor: none if local.

    Else `fused.truncate_shared`: round 1, P0 sends P1 k + e, P2 sends P1 k' + e; round 2, P1 sends P0 e.
    """
    if widths.local:
        return []

    def formula(n: int) -> Rounds:
        k, out, e = size(n, widths.ring), size(n, widths.out), size(n, widths.top)
        return [Traffic(((k + e, 0), (0, 0), (0, out + e))), Traffic(((0, 0), (0, e), (0, 0)))]

    return rotated(numel, formula)


def invocation_before() -> Rounds:
    """`invocation.agree_on_inputs`: one round, a digest to each neighbour."""
    return [_to_both(DIGEST_BYTES)]


def invocation_after() -> Rounds:
    """`invocation.agree_on_counters`: one round, a position to each neighbour."""
    return [_to_both(POSITION_BYTES)]


def _to_both(count: int) -> Traffic:
    return Traffic(((count, count), (count, count), (count, count)))
