"""Looking public tables up at the cell of a secret number: one dealt tree, one exchange."""

from __future__ import annotations

import torch
from torch import Tensor

from hush.mpc.cells import Cells
from hush.mpc.ring import RING64
from hush.mpc.secret import Shared
from hush.mpc.step import Round, Spec, Step, together
from hush.protocols.replicated import prefix, rotation
from hush.protocols.replicated.pairs import share_sum
from hush.protocols.replicated.party import Party


def pick(party: Party, x: Shared, cells: Cells, tables: Tensor) -> Step[Shared]:
    """[T, *x.shape] (frac 0): the entries of public tables [T, cells.count] of integers at x's cell; x in 2^64.

    x = v + w on b = `cells.bits` bits, v = x_0 + x_1 known to P0, w = x_2 to P1 and P2; cells of x are cells of v
    shifted by w, so a point function of v's place, dealt by P0, serves whatever w is.

    1. P0 draws a seed from k_01 and one from k_20, deals the tree of -v under them (`prefix.deal`) and sends its
       corrections to P1 and P2. Each grows its side, where it lies near w, and multiplies by the tables: t_1 + t_2.
    2. `pairs.share_sum` of t_1 + t_2, T elements.

    Views: P1 and P2 see the corrections, each beside its own seed alone: pseudorandom whatever v is (`prefix`); then
    `share_sum`'s. P0 sees nothing. Rounds 2; bits: twice 8 `correction_bytes`, and 2 * 64 T, an element in all.
    Exact: one entry of each table. Which of two neighbouring cells holds an x that lies between their centres follows
    from w alone, which P1 and P2 know: they learn nothing of it, and P0 nothing at all. Outside the cells' range all
    tables give 0.
    """
    if x.ring != RING64:
        raise ValueError(f"cells are looked up for x in Z_2^64, not in Z_2^{x.ring.bits}")
    steps = [_piece(party, x, piece, cells, tables) for piece in rotation.slices(x.numel)]
    found = yield from together(*steps)
    parts = tuple(torch.cat([own[i] for own in found], 1).reshape(len(tables), *x.shape) for i in range(2))
    return Shared(parts, 0, RING64)


def _piece(party: Party, x: Shared, piece: rotation.Slice, cells: Cells, tables: Tensor) -> Step[tuple[Tensor, ...]]:
    role, count, numel = party.role(piece.rotation), tables.shape[0], piece.numel
    first, second = (part.reshape(-1)[piece.start : piece.stop].cpu() for part in x.parts)
    term = None
    if role == 0:
        seeds = party.with_next.elements((numel, 2), RING64), party.with_prev.elements((numel, 2), RING64)
        corrections = prefix.deal(-(first + second), seeds, cells)
        yield Round(to_next=(corrections,), to_prev=(corrections,))
    else:
        stream, w = (party.with_prev, second) if role == 1 else (party.with_next, first)
        seed = stream.elements((numel, 2), RING64)
        spec = (Spec((numel, prefix.correction_bytes(cells)), torch.uint8),)
        got = yield Round(from_prev=spec) if role == 1 else Round(from_next=spec)
        dealt = (got.from_prev if role == 1 else got.from_next)[0]
        term = party.kernels.at_cells(dealt, seed, w, cells, role - 1, tables.T)
        term = term.T.reshape(-1).to(x.parts[0].device)
    parts = yield from share_sum(party, role, term, count * numel, RING64)
    return tuple(part.reshape(count, numel) for part in parts)
