"""Where the time of a profiled run goes: products, functions, copies, network."""

from __future__ import annotations

from collections.abc import Sequence

from hush.parties.profile import Profile, by_operator, short

PRODUCTS = (
    "hush.affine",
    "hush.affine_plus",
    "hush.matmul",
    "hush.scores",
    "aten.bmm.default",
    "aten.conv1d.default",
    "aten.conv2d.default",
)


def categories(profiles: Sequence[Profile]) -> dict[str, float]:
    """Shares of a party's time, which add up to 1 (mean of the parties).

    `GEMM`: computing of `PRODUCTS`, the local steps of their truncations with it: an op's computing is one figure.
    `nonlinear`: computing of all other ops. Attention's product with the values is part of `hush.attend`, and so is,
    where scores are made as they are needed, the product before it: both are counted here. `copy`: to the host and
    back. `network`: messages packed and handed on, and waiting for the others, who may be computing.
    """
    found = by_operator(profiles)
    sums = {
        "GEMM": sum(sums.compute for name, sums in found.items() if name in PRODUCTS),
        "nonlinear": sum(sums.compute for name, sums in found.items() if name not in PRODUCTS),
        "copy": sum(sums.copy for sums in found.values()),
        "network": sum(sums.send + sums.wait for sums in found.values()),
    }
    whole = sum(sums.values())
    return {name: value / whole if whole else 0.0 for name, value in sums.items()}


def longest(profiles: Sequence[Profile], most: int = 12) -> dict[str, dict[str, float]]:
    """Seconds of the operators that take longest."""
    rows = list(by_operator(profiles).items())[:most]
    names = ("seconds", "compute", "send", "wait", "copy")
    return {short(op): {name: round(getattr(sums, name), 6) for name in names} for op, sums in rows}
