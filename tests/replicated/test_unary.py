"""The highest of each row by unary codes: values, rows of every length, costs, messages that show nothing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from support.trio import Trio, party_step
from torch import Tensor

from hush.mpc.cells import Cells
from hush.mpc.protocol import Protocol
from hush.mpc.ring import RING32, backends
from hush.mpc.schedule import WAN
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.session import simulate
from hush.mpc.step import Round, Step
from hush.protocols.fixed import Fixed
from hush.protocols.replicated import rotation, unary

SHIFT = 5


def _highest(p: Protocol, x: Shared, row: Tensor, bins: int) -> Step[Shared]:
    return p.highest(x, row, shift=SHIFT, bins=bins)


def _rows(lengths: list[int]) -> Tensor:
    return torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))


@pytest.mark.parametrize("bins", [8, 16, 64, 128])
@pytest.mark.parametrize("lengths", [[1], [5, 1, 3], [255, 2, 100], [40] * 170])
def test_the_highest_of_rows_of_every_length(bins: int, lengths: list[int]) -> None:
    trio, row = Trio(), _rows(lengths)
    x = torch.randint(1 << SHIFT, bins << SHIFT, (len(row),))
    secret = trio.share_elements(x)
    made = trio.run(_highest, secret, row, bins)
    found = trio.elements(made)
    largest = torch.stack([part.max() for part in (x >> SHIFT).split(lengths)])
    assert bool(((found == largest) | (found == largest - 1)).all())
    assert made[0].ring == secret[0].ring
    assert trio.traffic == trio.predict(_highest, secret, row, bins)
    assert len(trio.traffic) == 6


def test_both_of_the_units_that_the_shift_may_give_occur_and_no_other() -> None:
    trio, row = Trio(), torch.arange(4000)
    x = torch.full((4000,), (5 << SHIFT) + 3)
    found = trio.elements(trio.run(_highest, trio.share_elements(x), row, 8))
    assert set(found.tolist()) == {4, 5}


def test_counts_of_a_full_row_do_not_wrap() -> None:
    trio, n = Trio(), unary.LONGEST
    found = trio.elements(
        trio.run(_highest, trio.share_elements(torch.full((n,), 7 << SHIFT)), torch.zeros(n).long(), 8)
    )
    assert found.tolist() in ([6], [7])
    with pytest.raises(ValueError, match="255 entries"):
        trio.run(_highest, trio.share_elements(torch.full((n + 1,), 7 << SHIFT)), torch.zeros(n + 1).long(), 8)


@pytest.mark.parametrize(("ring", "bins"), [(RING32, 8), (None, 4), (None, 12)])
def test_what_has_no_code_is_refused(ring: Any, bins: int) -> None:
    trio = Trio()
    with pytest.raises(ValueError, match="unary codes"):
        trio.run(_highest, trio.share_elements(torch.ones(2), ring=ring), torch.zeros(2).long(), bins)


def test_one_process_finds_the_floor() -> None:
    p = Fixed()
    step = p.highest(p.enter(torch.tensor([40.0, 95.0, 70.0]), frac=0), torch.tensor([0, 0, 1]), shift=SHIFT, bins=8)
    with pytest.raises(StopIteration) as done:
        next(step)
    assert done.value.value.parts[0].tolist() == [2, 2]


@pytest.mark.parametrize("bins", [8, 64])
def test_turned_sums_agree_with_the_reference(bins: int) -> None:
    codes = torch.randint(0, 256, (301, bins), dtype=torch.uint8)
    turns, row = torch.randint(-(1 << 62), 1 << 62, (301,)), _rows([100, 1, 200])
    made = [backends.get(name).turned_sums(codes, turns & (bins - 1), row, 4) for name in ("cpu", "torch")]
    assert torch.equal(*made)
    assert not bool(made[0][3].any())


def test_slices_end_between_rows() -> None:
    row = _rows([7] * 2000)
    pieces = unary.cuts(row)
    assert [c.rotation for c in pieces] == [0, 1, 2]
    assert (pieces[0].start, pieces[-1].stop, pieces[0].first, pieces[-1].last) == (0, len(row), 0, 2000)
    assert all(a.stop == b.start and a.last == b.first for a, b in pairwise(pieces))
    assert all(row[c.start] == c.first for c in pieces)
    assert len(unary.cuts(_rows([200] * 2))) == 1
    assert 3 * rotation.ROTATE_MIN > 400


# ---------------------------------------------------------------------- messages
def _recorded(step: Step[Any], sent: list[Tensor]) -> Step[Any]:
    """A step whose messages are noted as they leave."""
    answer = None
    while True:
        try:
            out = step.send(answer)
        except StopIteration as end:
            return end.value
        if isinstance(out, Round):
            sent += [*out.to_next, *out.to_prev]
        answer = yield out


def _messages(program: Any, trio: Trio, *args: Any) -> list[Tensor]:
    sent: list[Tensor] = []
    simulate([_recorded(party_step(trio, program, i, args), sent) for i in range(3)])
    return [m for m in sent if m.numel()]


def _even(message: Tensor, period: int) -> bool:
    """Bits of equal position modulo `period` bytes are 1 in half of the places, within seven standard deviations."""
    raw = message.contiguous().view(torch.uint8).reshape(-1, period)
    bits = ((raw[..., None] >> torch.arange(8, dtype=torch.uint8)) & 1).double()
    return float((bits.mean(0) - 0.5).abs().max()) < 7 * 0.5 / raw.shape[0] ** 0.5


@pytest.mark.parametrize("element", [1 << SHIFT, (8 << SHIFT) - 1])
def test_every_message_is_even_whatever_the_secret(element: int) -> None:
    """All rows have the same three components, so what is not masked would repeat itself."""
    trio, n = Trio(), 4096
    first, second = 0x123456789ABCDEF, -0x777777777777777
    parts = [torch.full((n,), v) for v in (first, second, element - first - second)]
    sent = _messages(_highest, trio, trio.deal(parts), torch.arange(n), 8)
    assert len(sent) > 12
    assert all(_even(message, 1) for message in sent)


@pytest.mark.parametrize("value", [1, 900])
def test_so_are_those_of_a_product_and_its_cell(value: int) -> None:
    """But for the corrections, whose marks use two bits of their byte: `test_pick` looks at them."""
    trio, n, cells = Trio(), 3000, Cells.covering(1, 1000, 2)
    tables = torch.stack([cells.centres])
    parts = [
        torch.full((n, 1, 1), v) for v in (12345678901234567, -999999999999, value - 12345678901234567 + 999999999999)
    ]
    one = [torch.full((n, 1, 1), v) for v in (5, -7, 3)]

    def program(p: Protocol, x: Shared, y: Shared) -> Step[tuple[Shared, Shared]]:
        return p.pick_product(x, y, 0.0, cells, tables)

    sent = _messages(program, trio, trio.deal(parts), trio.deal(one))
    words = [message for message in sent if message.dtype == torch.int64]
    assert len(words) >= 5
    assert all(_even(message, 8) for message in words)
    product, picked = trio.run(program, trio.deal(parts), trio.deal(one))
    assert bool((trio.elements(product) == value).all())
    assert bool(((trio.elements(picked)[0] - value).abs() <= value >> 2).all())
    assert trio.traffic == trio.predict(program, trio.deal(parts), trio.deal(one))
    assert trio.cost.rounds == 2


@pytest.mark.parametrize("numel", [70, 3 * rotation.ROTATE_MIN + 9])
def test_a_selection_with_a_dealt_mask_is_right_and_even(numel: int) -> None:
    """As `select_sum` with a truncation, a round earlier."""
    trio = Trio(schedule=WAN)
    x = torch.linspace(-7, 7, numel, dtype=torch.float64)
    bits = (torch.arange(numel) % 3 == 0).long()[None]
    value, chosen = trio.share(x, frac=24, ring=RING32), trio.share_bits(bits)

    def program(p: Protocol, b: SharedBits, v: Shared) -> Step[Shared]:
        return p.select_sum([b], [v], frac=18, ring=p.ring)

    made = trio.run(program, chosen, value)
    assert float((trio.reveal(made) - trio.reveal(value) * bits[0]).abs().max()) <= 2.0**-18
    assert trio.traffic == trio.predict(program, chosen, value)
    assert trio.cost.rounds == 3
    if numel > 1000:
        assert all(_even(message, 1) for message in _messages(program, trio, chosen, value))
