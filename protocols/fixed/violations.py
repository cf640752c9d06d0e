"""A value that left the range in which a primitive is correct."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """`primitive` met a value of `magnitude` where `limit` is the most it allows (both real values, not ring units).

    `place` is what the driver said it was running (`Fixed.place`), empty if it said nothing.
    """

    primitive: str
    magnitude: float
    limit: float
    place: str = ""

    def __str__(self) -> str:
        where = f" in {self.place}" if self.place else ""
        return f"{self.primitive}{where}: magnitude {self.magnitude:.6g} where at most {self.limit:.6g} is exact"
