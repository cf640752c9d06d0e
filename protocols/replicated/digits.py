"""Sums v + w of a number that P0 knows and one that P1 and P2 both know, digit by digit.

A digit of c bits generates a carry iff v_digit + w_digit >= 2^c, and passes one on iff v_digit + w_digit = 2^c - 1. P0
deals the digit as its thermometer code, the 2^c - 1 bits [v_digit >= i]; both answers are single entries of tables that
are linear in that code, and P1 and P2, who know w_digit, pick the entries from their shares by themselves. So a digit
costs 2^c - 1 dealt bits and two exchanged ones for each answer, where c single bits cost c dealt bits, c ANDs and then
c - 1 nodes of the carry tree with two ANDs each: 11 bits instead of 21 for c = 3, and one or two rounds fewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Run:
    """`count` digits of `width` bits; the first is digit number `digit` and begins at bit `start`."""

    width: int
    count: int
    digit: int
    start: int

    @property
    def steps(self) -> int:
        """Bits of one digit's thermometer code."""
        return (1 << self.width) - 1

    @property
    def passing(self) -> int:
        """How many of the digits are asked whether they pass a carry on: all but digit 0, which receives none."""
        return self.count - (self.digit == 0)


def thermometer(bits: Tensor) -> Tensor:
    """[count, width, words] of binary digits -> [2^width - 1, count, words]: plane i-1 is [digit >= i]."""
    code = bits[:, 0].unsqueeze(0)
    for position in range(1, bits.shape[1]):
        top = bits[:, position].unsqueeze(0)
        code = torch.cat([code | top, top, code & top])
    return code


def halve(code: Tensor) -> tuple[Tensor, Tensor]:
    """(top bit [count, words], code of the digit without it). XOR-linear and without constants: works on shares."""
    half = code.shape[0] // 2
    top = code[half]
    return top, code[:half] ^ code[half + 1 :] ^ top


def answers(code: Tensor, known: Tensor, *, ones: bool) -> Tensor:
    """Shares [2, count, words] of ([v + w >= 2^c], [v + w = 2^c - 1]) from a share of v's code and w itself.

    code [2^c - 1, count, words]; known [count, c, words] are w's bits. `ones`: whether this holder contributes the
    public constant [v >= 0] = 1 (one of the two does). Entry w of the first table is [v >= 2^c - w].
    """
    nothing = torch.zeros_like(code[:1])
    table = torch.cat([nothing, code.flip(0), ~nothing if ones else nothing])
    tables = torch.stack([table[:-1], table[:-1] ^ table[1:]], 1)
    for position in reversed(range(known.shape[1])):
        low, high = tables.chunk(2)
        tables = (high ^ low).bitwise_and_(known[:, position]).bitwise_xor_(low)
    return tables[0]


class Layout:
    """How the low `bits` of a sum are cut into `count` digits, and which plane means what in the messages.

    `tops` more planes of v, above the digits, are dealt as they are. With `every`, the answers are also asked for each
    digit's low bits (1 .. c-1 of them), which gives the carry into every position.

    Dealt planes: the runs' codes one after the other, then the tops. Answered planes ("rows"), for each run and each
    length (c first): [generates] for all its digits, then [passes] for those but digit 0. The [passes] of length 1 is
    v ^ w, linear, and is not asked.
    """

    def __init__(self, bits: int, count: int, *, tops: int = 1, every: bool = False) -> None:
        self.bits, self.count, self.tops, self.every = bits, count, tops, every
        width, wide = divmod(bits, count) if count else (0, 0)
        narrow = count - wide
        runs = (Run(width, narrow, 0, 0), Run(width + 1, wide, narrow, narrow * width))
        self.runs = tuple(run for run in runs if run.count)
        if count > bits or (count > 1 and width == 1 and not every):
            raise ValueError(f"{bits} bits do not make {count} digits that can be asked: at least two bits each")

    def lengths(self, run: Run) -> range:
        """The lengths asked of a run's digits, longest first."""
        return range(run.width, 0 if self.every else run.width - 1, -1)

    @cached_property
    def dealt(self) -> int:
        """Planes that P0 deals."""
        return sum(run.steps * run.count for run in self.runs) + self.tops

    @cached_property
    def generate_rows(self) -> dict[tuple[int, int], int]:
        """(digit, length) -> row of [its low `length` bits generate a carry]."""
        return self._rows[0]

    @cached_property
    def pass_rows(self) -> dict[tuple[int, int], int]:
        """(digit, length) -> row of [its low `length` bits pass a carry on]; digit >= 1, length >= 2."""
        return self._rows[1]

    @cached_property
    def rows(self) -> int:
        """Planes that P1 and P2 exchange."""
        return len(self.generate_rows) + len(self.pass_rows)

    @cached_property
    def _rows(self) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]]:
        generate: dict[tuple[int, int], int] = {}
        passes: dict[tuple[int, int], int] = {}
        for run in self.runs:
            digits = range(run.digit, run.digit + run.count)
            for length in self.lengths(run):
                for digit in digits:
                    generate[digit, length] = len(generate) + len(passes)
                for digit in digits[run.count - run.passing :] if length > 1 else ():
                    passes[digit, length] = len(generate) + len(passes)
        return generate, passes

    def start(self, digit: int) -> int:
        """The lowest bit of a digit; digit `count` is the first bit above them all."""
        for run in reversed(self.runs):
            if digit >= run.digit:
                return run.start + (digit - run.digit) * run.width
        return 0

    def width(self, digit: int) -> int:
        """Bits of a digit."""
        return self.start(digit + 1) - self.start(digit)

    def deal(self, v: Tensor) -> Tensor:
        """[dealt, words]: the planes v [bits + tops, words] in the code in which they are dealt."""
        codes = [thermometer(self._digits(v, run)).flatten(0, 1) for run in self.runs]
        return torch.cat([*codes, v[self.bits :]])

    def answer(self, share: Tensor, w: Tensor, *, ones: bool) -> Tensor:
        """[rows, words]: shares of all answers, from a share of the dealt planes and w [bits + tops, words]."""
        found = [share[:0]]
        for run, code in self._codes(share):
            known = self._digits(w, run)
            for length in self.lengths(run):
                generates, passes = answers(code, known[:, :length], ones=ones)
                found.append(generates)
                if length > 1:
                    found.append(passes[run.count - run.passing :])
                if length > self.lengths(run)[-1]:
                    code = halve(code)[1]
        return torch.cat(found)

    def binary(self, share: Tensor) -> Tensor:
        """[bits + tops, words]: shares of v's bits, from a share of the dealt planes."""
        found = []
        for run, code in self._codes(share):
            positions = []
            for _ in range(run.width):
                top, code = halve(code)
                positions.append(top)
            found.append(torch.stack(positions[::-1], 1).flatten(0, 1))
        return torch.cat([*found, self.top(share)])

    def top(self, share: Tensor) -> Tensor:
        """[tops, words]: the dealt planes above the digits."""
        return share[self.dealt - self.tops :]

    def _digits(self, planes: Tensor, run: Run) -> Tensor:
        """[count, width, words] of a run's binary digits."""
        chosen = planes[run.start : run.start + run.count * run.width]
        return chosen.view(run.count, run.width, planes.shape[1])

    def _codes(self, share: Tensor) -> list[tuple[Run, Tensor]]:
        """Each run with its code [2^c - 1, count, words]."""
        codes, start = [], 0
        for run in self.runs:
            stop = start + run.steps * run.count
            codes.append((run, share[start:stop].view(run.steps, run.count, share.shape[1])))
            start = stop
        return codes
