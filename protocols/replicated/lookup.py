"""Looking rows of a table up at places that only their client knows, by keys of distributed point functions."""

from __future__ import annotations

import torch
from torch import Tensor

from hush.mpc.points import Points
from hush.mpc.ring import RING64, Ring
from hush.mpc.secret import Shared
from hush.mpc.step import Step
from hush.protocols.replicated import dpf, zero
from hush.protocols.replicated.pairs import share_sum
from hush.protocols.replicated.party import Party

CHUNK = 1 << 22  # entries of expanded keys at once: 32 MiB
PUBLIC_ROTATION = 1  # of a public table parties 2 and 0 hold a summand each, and party 1 none
Components = tuple[int, int]


def deal(places: Tensor, classes: int) -> list[tuple[Tensor, Tensor]]:
    """For each party its two keys of every place: uint8 [*places.shape, key size]. The client's side.

    Three independent pairs of keys, one for each component of the table: of the pair c, party c gets side 0 and party
    c - 1 side 1, so party i holds side 0 of pair i and side 1 of pair i + 1.
    """
    pairs = [dpf.deal(places.reshape(-1), classes) for _ in range(3)]
    shape = (*places.shape, dpf.key_bytes(classes))
    return [(pairs[i][0].reshape(shape), pairs[(i + 1) % 3][1].reshape(shape)) for i in range(3)]


def secret_table(party: Party, points: Points, table: Shared) -> Step[Shared]:
    """[*points.shape, D] at table.frac: rows of a secret table [V, D], V <= classes.

    Let u_c + v_c = e be the unit vector of the place in the ring, u_c and v_c the expansions of pair c. Party i holds
    u_i, v_{i+1} and the table's components W_i, W_{i+1}, so that sum_i (u_i W_i + v_{i+1} W_{i+1}) = sum_c e W_c = e W.
    1. Party i computes z_i = u_i W_i + v_{i+1} W_{i+1} by itself. 2. `zero.reshare`.

    Views: keys of two independent pairs, one side each: pseudorandom whatever the place [BGI16]; then x_{i+1} of the
    result, masked by a key that the party lacks. Exact, nothing is truncated. Rounds 1; bits 3k an output in all.
    The client is trusted to deal what it means: keys that fit no place give a meaningless row of its own query, and
    keys of one place for one component and of another for the next one a mixture of shares, uniform to everybody.
    """
    rows = table.shape[0]
    u, v, lead = _flat(points)
    first, second = table.parts
    z = torch.empty((u.shape[0], table.shape[1]), dtype=table.ring.dtype, device=first.device)
    for cut in _pieces(u.shape[0], points.classes):
        left = _rows(party, u[cut], points.classes, 0, first[:rows], table.ring)
        z[cut] = left + _rows(party, v[cut], points.classes, 1, second[:rows], table.ring)
    parts = yield from zero.reshare(party, table.ring.reduce(z), table.ring)
    return Shared(tuple(p.reshape(*lead, table.shape[1]) for p in parts), table.frac, table.ring)


def public_table(party: Party, points: Points, table: Tensor, frac: int, ring: Ring) -> Step[Shared]:
    """[*points.shape, D]: rows of a public table of ring elements [V, D] with `frac` fraction bits.

    One pair serves, that of component 0: party 0 has its side 0, party 2 its side 1.
    1. Party 0 computes u_0 A, party 2 v_0 A, and they share the sum (`pairs.share_sum`).

    Views: as there, and the keys. Exact. Rounds 1; bits 2k an output in all.
    """
    u, v, lead = _flat(points)
    role, count = party.role(PUBLIC_ROTATION), u.shape[0] * table.shape[1]
    term = None
    if role != 0:
        side, keys = (1, v) if party.index == 2 else (0, u)
        pieces = _pieces(u.shape[0], points.classes)
        made = [_rows(party, keys[cut], points.classes, side, table, ring) for cut in pieces]
        term = ring.reduce(torch.cat(made).reshape(-1)) if made else table.new_empty(0)
    parts = yield from share_sum(party, role, term, count, ring)
    return Shared(tuple(p.reshape(*lead, table.shape[1]) for p in parts), frac, ring)


def _flat(points: Points) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    u, v = (part.reshape(points.numel, part.shape[-1]) for part in points.parts)
    return u, v, tuple(points.shape)


def _pieces(count: int, classes: int) -> list[slice]:
    step = max(1, CHUNK // classes)
    return [slice(start, start + step) for start in range(0, count, step)]


def _rows(party: Party, keys: Tensor, classes: int, side: int, table: Tensor, ring: Ring) -> Tensor:
    """A side's expansion times a table of ring elements."""
    hot = RING64.reduce(dpf.expand(keys, classes, side)[:, : table.shape[0]])
    return party.kernels.matmul(ring.reduce(hot).to(table.device), table, ring)
