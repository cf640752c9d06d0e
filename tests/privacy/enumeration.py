"""Values of states: digits of a state's number, drawn from a pair's key as a party draws its masks."""

from __future__ import annotations

import torch
from torch import Tensor

from hush.mpc.ring import RING64, Ring, backends

WORD = 64
Column = tuple[int, Tensor]  # (width in bits, value in every state)


class Tape:
    """Cuts state numbers into digits, low bits first."""

    def __init__(self, states: Tensor) -> None:
        self.states, self.used = states, 0

    def take(self, bits: int) -> Tensor:
        """The next digit of every state."""
        digit = (self.states >> self.used) & ((1 << bits) - 1)
        self.used += bits
        return digit


class Table:
    """Values fixed per slice: the slice number is a digit of the state, the values come from a seeded generator."""

    def __init__(self, tape: Tape, bits: int) -> None:
        self._slice, self._count = tape.take(bits), 1 << bits
        self._generator = torch.Generator().manual_seed(4)

    def take(self, bits: int) -> Tensor:
        """One value per slice, seen from every state."""
        return torch.randint(1 << bits, (self._count,), generator=self._generator)[self._slice]


class Key:
    """The draws of one pair of parties. `forced` maps a draw's number to None (all zeros) or to an earlier draw's
    number (the same mask again): deliberate breakage."""

    def __init__(self, source: Tape | Table, numel: int, forced: dict[int, int | None]) -> None:
        self._source, self.numel, self._forced = source, numel, forced
        self.draws: list[list[Column]] = []

    def draw(self, number: int, widths: list[int]) -> list[Column]:
        """Draw `number`: one column per width; the second holder gets what the first got."""
        if number == len(self.draws):
            self.draws.append(self._make(number, widths))
        columns = self.draws[number]
        if [bits for bits, _ in columns] != widths:
            raise AssertionError("the two holders of a key drew differently")
        return columns

    def _make(self, number: int, widths: list[int]) -> list[Column]:
        if number not in self._forced:
            return [(bits, self._source.take(bits)) for bits in widths]
        again = self._forced[number]
        if again is None:
            return [(bits, torch.zeros(self.numel, dtype=torch.int64)) for bits in widths]
        earlier = self.draws[again]
        if [bits for bits, _ in earlier] != widths:
            raise ValueError("a mask of another width cannot be repeated")
        return earlier


class Holder:
    """`Randomness` of one holder of a key."""

    def __init__(self, key: Key) -> None:
        self._key, self.drawn = key, 0

    def elements(self, shape: tuple[int, ...], ring: Ring) -> Tensor:
        """Uniform ring elements, a digit of the state each."""
        blocks, rest = divmod(torch.Size(shape).numel(), self._key.numel)
        assert rest == 0, "a draw is not a whole number of elements per state"
        columns = self._next([ring.bits] * blocks)
        return ring.reduce(torch.cat([value for _, value in columns])).reshape(shape)

    def planes(self, planes: int, words: int) -> Tensor:
        """Uniform bit planes, a bit of the state each."""
        blocks, rest = divmod(words * WORD, self._key.numel)
        assert rest == 0, "a draw is not a whole number of planes per state"
        columns = self._next([1] * (planes * blocks))
        flat = torch.cat([value for _, value in columns])
        return pack(flat).reshape(planes, words)

    def _next(self, widths: list[int]) -> list[Column]:
        self.drawn += 1
        return self._key.draw(self.drawn - 1, widths)


def pack(bits: Tensor) -> Tensor:
    """0/1 [n] -> int64 words [n/64]."""
    return (bits.view(-1, WORD) << torch.arange(WORD)).sum(-1)


def unpack(message: Tensor, numel: int) -> list[Column]:
    """A message's bits, one column per plane and block of states. At the ring widths used here all travel as planes."""
    assert message.dim() == 2, "a message that is not bit planes: enumerate at a width that is not native"
    assert message.dtype == torch.int64, "bit planes are words of 64"
    bits = backends.get().spread(message, message.shape[1] * WORD, RING64)
    return [(1, row) for row in bits.reshape(-1, numel)]
