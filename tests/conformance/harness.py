"""One case of a primitive, run under every protocol and brought to a common form.

Values are multiples of one unit and small enough that float64 computes with them exactly, so `plain` gives the exact
real result, `fixed` its floor, and the parties the floor or what they declare beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hush.mpc.points import Points
from hush.mpc.ring import RING64, Ring
from hush.mpc.secret import Shared, SharedBits, join_planes
from hush.protocols.plain.single import SingleProcess
from tests.support.trio import Trio

EXACT = (0, 0)
ONE_ULP = (0, 1)  # the floor or one more
NARROW = (-1, 2)  # within 1.5 units of the quotient, seen from its floor


@dataclass(frozen=True)
class Real:
    """A secret of real values."""

    value: Tensor
    frac: int


@dataclass(frozen=True)
class Wild:
    """A secret of arbitrary ring elements, for primitives that are exact modulo 2^k."""

    element: Tensor
    frac: int


@dataclass(frozen=True)
class BitString:
    """Secret bits [planes, *shape], 0 or 1."""

    bits: Tensor


@dataclass(frozen=True)
class Places:
    """Secret places, known by their keys."""

    ids: Tensor
    classes: int


Argument = Real | Wild | BitString | Places


@dataclass(frozen=True)
class Case:
    """A program of one primitive, its secret arguments, and how a result may differ from `fixed`'s.

    `slack`: allowed deviation in units. `anywhere`: a mask of elements whose result is free. `canonical` brings results
    to a form that can be compared (sorted rows, for a shuffle).
    """

    program: Callable[..., Any]
    arguments: Sequence[Argument]
    slack: tuple[int, int] = EXACT
    anywhere: Tensor | None = None
    canonical: Callable[[Tensor], Tensor] = field(default=lambda t: t)

    @property
    def has_real_values(self) -> bool:
        """Whether the float reference has a meaning here."""
        return not any(isinstance(a, Wild) for a in self.arguments)


class Setting:
    """Ring, scale, shape and a source of values: what a row of the table makes a case from."""

    def __init__(self, ring: Ring, frac: int, shape: tuple[int, ...], seed: int) -> None:
        self.ring, self.frac, self.shape = ring, frac, shape
        self.top = min(
            24, (ring.bits - 2) // 2 - 3
        )  # units up to 2^top: a sum of 16 products truncates, exact in float64
        self._generator = torch.Generator().manual_seed(seed)

    def units(self, shape: Sequence[int], top: int | None = None) -> Tensor:
        """Integers of all magnitudes up to 2^top, with zeros, ones and the extremes among them."""
        top = self.top if top is None else top
        size = tuple(shape)
        magnitude = torch.randint(0, top + 1, size, generator=self._generator)
        value = torch.randint(-(1 << top), (1 << top) + 1, size, generator=self._generator) >> magnitude
        special = torch.tensor([0, 1, -1, 1 << top, -(1 << top)])[torch.randint(5, size, generator=self._generator)]
        return torch.where(torch.randint(4, size, generator=self._generator) == 0, special, value)

    def public(self, shape: Sequence[int], frac: int | None = None) -> Tensor:
        """Public reals that are whole units at a scale."""
        return self.units(shape).double() * 2.0 ** -(self.frac if frac is None else frac)

    def real(self, shape: Sequence[int] | None = None, frac: int | None = None) -> Real:
        """A secret of reals."""
        scale = self.frac if frac is None else frac
        return Real(self.public(self.shape if shape is None else shape, scale), scale)

    def wild(self, shape: Sequence[int] | None = None) -> Wild:
        """A secret of uniform ring elements."""
        size = tuple(self.shape if shape is None else shape)
        low = torch.randint(1 << 32, size, generator=self._generator)
        element = (torch.randint(1 << 32, size, generator=self._generator) << 32) | low
        return Wild(self.ring.reduce(element), self.frac)

    def places(self, classes: int, shape: Sequence[int] | None = None) -> Places:
        """Secret places of a table of so many rows."""
        size = tuple(self.shape if shape is None else shape)
        return Places(torch.randint(classes, size, generator=self._generator), classes)

    def bits(self, planes: int, shape: Sequence[int] | None = None) -> BitString:
        """Secret bits."""
        size = (planes, *(self.shape if shape is None else shape))
        return BitString(torch.randint(2, size, generator=self._generator))


def last(step: Any) -> Any:
    """The result of a step without rounds, or of a local primitive."""
    if not hasattr(step, "send"):
        return step
    try:
        next(step)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a single process has nobody to exchange with")


def alone(protocol: SingleProcess, case: Case) -> Tensor:
    """A case's result under `plain` or `fixed`: units, bits or opened elements."""
    handles = [_enter(protocol, argument) for argument in case.arguments]
    result = last(case.program(protocol, *handles))
    if isinstance(result, Shared):
        result = result.ring.signed(result.parts[0])
    elif isinstance(result, SharedBits):
        result = protocol.bits_of(result)
    return case.canonical(result)


def among_three(trio: Trio, case: Case) -> Tensor:
    """A case's result under the replicated protocol, the same at all parties."""
    return revealed(trio, case, trio.run(case.program, *share(trio, case)))


def revealed(trio: Trio, case: Case, results: Any) -> Tensor:
    """The three parties' results put together."""
    if isinstance(results[0], Shared):
        return case.canonical(results[0].ring.signed(trio.elements(results)))
    if isinstance(results[0], SharedBits):
        return case.canonical(trio.reveal_bits(results))
    assert all(torch.equal(results[0], other) for other in results[1:]), "the parties opened different values"
    return case.canonical(results[0])


def share(trio: Trio, case: Case) -> list[Any]:
    """The case's arguments as the three parties' handles."""
    return [_share(trio, argument) for argument in case.arguments]


def _share(trio: Trio, argument: Argument) -> Any:
    if isinstance(argument, Real):
        return trio.share(argument.value, frac=argument.frac)
    if isinstance(argument, Wild):
        return trio.share_elements(argument.element, frac=argument.frac)
    if isinstance(argument, Places):
        return trio.deal_places(argument.ids, argument.classes)
    return trio.share_bits(argument.bits)


def _enter(protocol: SingleProcess, argument: Argument) -> Shared | SharedBits | Points:
    if isinstance(argument, Places):
        return Points((argument.ids[..., None],), argument.classes)
    if isinstance(argument, Real):
        return protocol.enter(argument.value, frac=argument.frac)
    if isinstance(argument, Wild):
        return Shared((argument.element,), argument.frac, protocol.ring)
    packed = [protocol.kernels.to_planes(plane, 1, RING64) for plane in argument.bits]
    return join_planes([SharedBits((plane,), argument.bits.shape[1:]) for plane in packed])


def assert_within(found: Tensor, reference: Tensor, case: Case, ring: Ring) -> None:
    """Every element lies within the case's slack of the reference, modulo the result's ring."""
    assert found.shape == reference.shape
    off = ring.signed(ring.reduce(found.long() - reference.long()))
    if case.anywhere is not None:
        off = off[~case.anywhere.expand(off.shape)]
    if off.numel():
        low, high = case.slack
        assert low <= int(off.min()), f"{int(off.min())} units below the reference"
        assert int(off.max()) <= high, f"{int(off.max())} units above the reference"
