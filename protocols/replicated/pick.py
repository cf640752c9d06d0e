"""Looking public tables up at the cell of a secret number: one dealt tree, one exchange."""

from __future__ import annotations

import torch
from torch import Tensor

from hush.mpc.cells import Cells
from hush.mpc.ring import RING64
from hush.mpc.secret import Shared
from hush.mpc.step import Round, Spec, Step, together
from hush.protocols.replicated import prefix, rotation
from hush.protocols.replicated.boolean import Parts
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
    Exact: one entry of each table. Where between their centres two neighbouring cells meet follows from w alone, which
    P1 and P2 know. Leakage: that place, as truncation hands out its rounding; an output that shows which cell was taken
    shows on which side of it x lies. Outside the cells' range all tables give 0.
    """
    if x.ring != RING64:
        raise ValueError(f"cells are looked up for x in Z_2^64, not in Z_2^{x.ring.bits}")
    steps = [_piece(party, x, piece, cells, tables) for piece in rotation.slices(x.numel)]
    found = yield from together(*steps)
    parts = tuple(torch.cat([own[i] for own in found], 1).reshape(len(tables), *x.shape) for i in range(2))
    return Shared(parts, 0, RING64)


def pick_product(
    party: Party, z: Tensor, frac: int, offset: int, cells: Cells, tables: Tensor
) -> Step[tuple[Shared, Shared]]:
    """(x, the entries [T, *x.shape] at its cell) for x = sum of local products z_i in 2^64, plus a public offset.

    A sharing of x whose third component is what P1 and P2 hold of it, made in the round in which `pick` deals: P0 takes
    v = z_0 + offset + r + s, with r from k_01 and s from k_20, P1 z_1 - r and P2 z_2 - s, whose sum is w.

    1. P1 -> P2: z_1 - r. P2 -> P1: z_2 - s. P0 deals v as in `pick`; x_1 is drawn from k_01, P0 -> P2: x_0 = v - x_1.
    2. As 2 there.

    Views: P1 sees z_2 - s, under a draw it lacks, P2 z_1 - r and x_0, under two draws of k_01; the corrections as
    there. Rounds 2, where a resharing and `pick` take 3; bits 3 * 64 an element more than `pick`. Exact.
    """
    flat = z.reshape(-1)
    steps = [_product_piece(party, flat, piece, offset, cells, tables) for piece in rotation.slices(flat.numel())]
    found = yield from together(*steps)
    parts = [tuple(torch.cat([own[k][i] for own in found], -1) for i in range(2)) for k in range(2)]
    whole = Shared(tuple(t.reshape(z.shape) for t in parts[0]), frac, RING64)
    return whole, Shared(tuple(t.reshape(len(tables), *z.shape) for t in parts[1]), 0, RING64)


def _piece(party: Party, x: Shared, piece: rotation.Slice, cells: Cells, tables: Tensor) -> Step[Parts]:
    role, numel = party.role(piece.rotation), piece.numel
    first, second = (part.reshape(-1)[piece.start : piece.stop] for part in x.parts)
    if role == 0:
        dealt = _deal(party, first + second, cells)
        yield Round(to_next=(dealt,), to_prev=(dealt,))
        return (yield from _share(party, role, None, numel, cells, tables))
    seed, spec = _seed(party, role, numel), (_spec(numel, cells),)
    got = yield Round(from_prev=spec) if role == 1 else Round(from_next=spec)
    corrections = (got.from_prev if role == 1 else got.from_next)[0]
    found = corrections, seed, second if role == 1 else first
    return (yield from _share(party, role, found, numel, cells, tables))


def _product_piece(
    party: Party, z: Tensor, piece: rotation.Slice, offset: int, cells: Cells, tables: Tensor
) -> Step[tuple[Parts, Parts]]:
    role, numel = party.role(piece.rotation), piece.numel
    own, shape, element = z[piece.start : piece.stop], (piece.numel,), (Spec((piece.numel,), torch.int64),)
    if role == 0:
        v = own + offset + party.with_next.elements(shape, RING64) + party.with_prev.elements(shape, RING64)
        x1, dealt = party.with_next.elements(shape, RING64), _deal(party, v, cells)
        yield Round(to_next=(dealt,), to_prev=(dealt, v - x1))
        return (v - x1, x1), (yield from _share(party, role, None, numel, cells, tables))
    stream, spec = party.with_prev if role == 1 else party.with_next, (_spec(numel, cells),)
    mine = own - stream.elements(shape, RING64)
    if role == 1:
        x1, seed = stream.elements(shape, RING64), _seed(party, role, numel)
        got = yield Round(to_next=(mine,), from_prev=spec, from_next=element)
        w, corrections = mine + got.from_next[0], got.from_prev[0]
        parts = (x1, w)
    else:
        seed = _seed(party, role, numel)
        got = yield Round(to_prev=(mine,), from_next=(*spec, *element), from_prev=element)
        w, corrections = mine + got.from_prev[0], got.from_next[0]
        parts = (w, got.from_next[1])
    return parts, (yield from _share(party, role, (corrections, seed, w), numel, cells, tables))


def _deal(party: Party, v: Tensor, cells: Cells) -> Tensor:
    """Role 0's corrections for -v, under seeds that it shares with role 1 and with role 2."""
    shape = (v.numel(), 2)
    seeds = party.with_next.elements(shape, RING64), party.with_prev.elements(shape, RING64)
    return prefix.deal(-v.cpu(), (seeds[0].cpu(), seeds[1].cpu()), cells)


def _seed(party: Party, role: int, numel: int) -> Tensor:
    stream = party.with_prev if role == 1 else party.with_next
    return stream.elements((numel, 2), RING64)


def _spec(numel: int, cells: Cells) -> Spec:
    return Spec((numel, prefix.correction_bytes(cells)), torch.uint8)


def _share(
    party: Party, role: int, own: tuple[Tensor, Tensor, Tensor] | None, numel: int, cells: Cells, tables: Tensor
) -> Step[Parts]:
    """Parts [T, numel] of the entries, from a side's corrections, seeds and w."""
    term, count = None, tables.shape[0]
    if own is not None:
        corrections, seed, w = own
        term = party.kernels.at_cells(corrections, seed, w.cpu(), cells, role - 1, tables.T).T.reshape(-1).to(w.device)
    first, second = yield from share_sum(party, role, term, count * numel, RING64)
    return first.reshape(count, numel), second.reshape(count, numel)
