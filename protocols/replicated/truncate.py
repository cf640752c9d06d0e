"""Truncation of products and of shared values: which protocol serves which widths."""

from __future__ import annotations

import torch
from torch import Tensor

from hush.mpc.ring import Ring
from hush.mpc.ring.widths import Widths
from hush.mpc.secret import Shared
from hush.mpc.step import Step
from hush.protocols.replicated import fused, zero
from hush.protocols.replicated.linear import coarser
from hush.protocols.replicated.party import Party

Parts = tuple[Tensor, Tensor]


def product(party: Party, z: Tensor, widths: Widths) -> Step[Parts]:
    """Parts of z/2^f in the output ring from local products z_i.

    k' > k-f: two rounds, `fused.truncate_product`. k' <= k-f: one round, `narrow_product`; f = 0 is exact there.
    """
    if widths.local:
        return (yield from narrow_product(party, z, widths))
    return (yield from fused.truncate_product(party, z, widths))


def narrow_product(party: Party, z: Tensor, widths: Widths) -> Step[Parts]:
    """Truncation of a product into a ring of k' <= k-f bits.

    1. Every party adds to its z_i a share of zero in the product's ring, P0 also the constant 3 * 2^(f-1); it shifts
       the sum right by f, reduces it mod 2^k' and sends it to the previous party: that is its component of the result.
       f = 0: `zero.reshare` in the output's ring.

    The carries of the dropped bits are 0, 1 or 2, and the constant centres them: the result is round(z/2^f) - 1, 0 or
    + 1 (at most 1.5 units from z/2^f, mean 0 but for 2^-f units), for any quotient that fits k' bits, with no failure
    at random; exact if f = 0. Views: party i sees the high bits of a summand that is masked by a key it lacks; uniform.
    Leakage: the last unit depends on the dropped bits of the masked summands, of which party i knows its own. They are
    coins: uniform, and independent of the factors given z. (Shifting z_i itself and masking afterwards hides as much
    from each party, but makes the last unit a function of both factors, which a party that colludes with the client
    could test.)
    Rounds 1; bits 3k' an element in all.
    """
    if not widths.shift:
        return (yield from zero.reshare(party, widths.out.reduce(z), widths.out))
    constant = centring(widths.shift) if party.index == 0 else 0
    shape, ring = (z.numel(),), widths.ring
    plus, minus = party.with_next.elements(shape, ring), party.with_prev.elements(shape, ring)
    shifted = party.kernels.narrow(z.reshape(-1), (plus, minus), constant, widths)
    first, second = yield from zero.pass_on(party, shifted, widths.out)
    return first.reshape(z.shape), second.reshape(z.shape)


def shared(party: Party, x: Shared, frac: int, ring: Ring) -> Step[Shared]:
    """x at the coarser scale `frac` in a ring: local where the ring is narrow enough, else `fused.truncate_shared`."""
    coarser(x, frac)
    if frac == x.frac and ring == x.ring:
        return x
    widths = Widths(x.ring, ring, x.frac - frac)
    if widths.local:
        return narrow_shared(party, x, widths)

    return (yield from linear(party, pieces(x), x.shape, x.parts[0].device, widths, frac))


def pieces(x: Shared) -> fused.Piece:
    """A shared tensor as what `fused.truncate_shared` asks for."""
    flat = [part.reshape(-1) for part in x.parts]

    def piece(which: tuple[int, ...], start: int, stop: int) -> Tensor:
        terms = [flat[i][start:stop] for i in which]
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]

    return piece


def linear(
    party: Party, piece: fused.Piece, shape: torch.Size, device: torch.device, widths: Widths, frac: int
) -> Step[Shared]:
    """Truncation of a shared value that is given by its pieces; `frac` is the scale after it."""
    (first, second), _ = yield from fused.truncate_shared(party, piece, shape.numel(), device, widths)
    return Shared((first.reshape(shape), second.reshape(shape)), frac, widths.out)


def narrow_shared(party: Party, x: Shared, widths: Widths) -> Shared:
    """Truncation of a shared value into a ring of k' <= k-f bits: local, since both holders of x_i shift it alike.

    Error and leakage as `narrow_product`; rounds 0.
    """
    zeroth, narrow = zero_part(party.index), party.kernels.narrow
    constants = [centring(widths.shift) if widths.shift and part == zeroth else 0 for part in range(len(x.parts))]
    moved = [narrow(t.reshape(-1), (), c, widths).reshape(x.shape) for t, c in zip(x.parts, constants, strict=True)]
    return Shared(tuple(moved), x.frac - widths.shift, widths.out)


def centring(shift: int) -> int:
    """1.5 units of the last place after the shift."""
    return 3 << (shift - 1)


def zero_part(index: int) -> int | None:
    """Which part of party `index` is component 0: party 0's first, party 2's second, none at party 1."""
    return (0, None, 1)[index]
