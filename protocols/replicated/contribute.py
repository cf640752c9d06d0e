"""What one party makes by itself, shared among the three: noise, for instance."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hush.mpc import fixed_point
from hush.mpc.ring import Ring
from hush.mpc.secret import Shared
from hush.mpc.step import Round, Step
from hush.protocols.replicated import wire
from hush.protocols.replicated.party import Party


def contribute(
    party: Party, make: Callable[[], Tensor], shape: tuple[int, ...], dealer: int, frac: int, ring: Ring
) -> Step[Shared]:
    """Shares of values that the dealer makes. Roles count from the dealer: P0 deals.

    1. P0 and P2 draw x_0 from k_20; P0 sends P1 x_1 = v - x_0; x_2 = 0.

    Views: P1 sees v masked by a key it lacks, uniform; P2 sees nothing. The sharing is not fresh: P1 and P2 know that
    x_2 is 0, which tells them nothing of v; whatever is computed from it is masked anew. Rounds 1; bits k an element in
    all; values saturate at the encodable range (`fixed_point.encode`).
    """
    role, numel = party.role(dealer), math.prod(shape)
    device = party.kernels.device
    zeros = torch.zeros(shape, dtype=ring.dtype, device=device)
    if role == 0:
        element = fixed_point.encode(make(), ring, frac).reshape(-1).to(device)  # secret: made and copied anew
        drawn = party.with_prev.elements((numel,), ring)
        rest = ring.reduce(element - drawn)
        yield Round(to_next=(wire.pack(party.kernels, rest, ring),))
        return Shared((drawn.reshape(shape), rest.reshape(shape)), frac, ring)
    if role == 2:
        drawn = party.with_next.elements((numel,), ring)
        yield Round()
        return Shared((zeros, drawn.reshape(shape)), frac, ring)
    got = yield Round(from_prev=(wire.spec(numel, ring),))
    return Shared((wire.unpack(party.kernels, got.from_prev[0], numel, ring).reshape(shape), zeros), frac, ring)
