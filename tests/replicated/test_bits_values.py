"""Comparisons, conversions and selection give the exact answer on every value, width and shape."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hush.mpc.errors import RangeError, ShapeError
from hush.mpc.ring import RING32, RING64, Ring
from hush.mpc.secret import Shared, SharedBits, join_planes
from hush.mpc.step import Step
from hush.protocols.replicated import adder, compare
from hush.protocols.replicated.digits import Layout, answers, halve, thermometer
from hush.protocols.replicated.protocol import Replicated
from hush.protocols.replicated.rotation import Slice
from tests.support.trio import Program, SecretBits, Trio

RINGS = [Ring(4), Ring(8), RING32, RING64]
BY_RING = pytest.mark.parametrize("ring", RINGS, ids=lambda ring: f"k{ring.bits}")
NUMELS = [1, 63, 64, 65, 7000]  # 7000 is cut in three slices with rotating roles


def edges(ring: Ring) -> list[int]:
    """Values around 0 and both ends of the ring."""
    top = 1 << (ring.bits - 1)
    return [0, 1, -1, 2, -2, top - 1, top - 2, -top, -top + 1, top // 2, -top // 2, top // 2 - 1]


def values(ring: Ring, numel: int, seed: int = 1) -> Tensor:
    """Signed values: all of a small ring, or random ones of all magnitudes; edges first."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randint(-(1 << 62), 1 << 62, (numel,), generator=generator) << 1
    drawn = ring.signed(ring.reduce(wide >> 7)) >> torch.randint(ring.bits, (numel,), generator=generator)
    known = torch.tensor(edges(ring)) if ring.bits > 8 else torch.arange(-(1 << ring.bits - 1), 1 << ring.bits - 1)
    count = min(numel, known.numel())
    drawn[:count] = known[:count]
    return drawn


def planes(x: Tensor, count: int) -> Tensor:
    """[count, *shape]: the low bits."""
    return torch.stack([(x >> j) & 1 for j in range(count)])


def whole(ring: Ring) -> float:
    """A bound that every element keeps."""
    return 2.0 ** (ring.bits - 1)


@BY_RING
@pytest.mark.parametrize("numel", NUMELS)
def test_negative_is_exact(ring: Ring, numel: int) -> None:
    x, trio = values(ring, numel), Trio(ring, 0)
    got = trio.run(lambda p, a: p.negative(a, bound=whole(ring)), trio.share_elements(x, ring=ring))
    assert torch.equal(trio.reveal_bits(got)[0], (x < 0).long())


@BY_RING
@pytest.mark.parametrize("numel", NUMELS)
def test_below_is_exact_for_every_threshold(ring: Ring, numel: int) -> None:
    quarter = 1 << (ring.bits - 2)
    x, trio = values(ring, numel) >> 1, Trio(ring, 0)
    thresholds = [0.0, 1.0, -1.0, float(quarter - 1), float(-quarter)]

    def program(p: Replicated, a: Shared) -> Step[SharedBits]:
        return join_planes((yield from p.below(a, thresholds, bound=whole(ring))))

    planes_of = trio.reveal_bits(trio.run(program, trio.share_elements(x, ring=ring)))
    for t, plane in zip(thresholds, planes_of, strict=True):
        assert torch.equal(plane, (x < int(t)).long()), t


@pytest.mark.parametrize("ring", RINGS, ids=lambda ring: f"k{ring.bits}")
@pytest.mark.parametrize("terms", [1, 2, 3])
@pytest.mark.parametrize("numel", [65, 7000])
def test_select_sum_is_exact(ring: Ring, terms: int, numel: int) -> None:
    trio = Trio(ring, 0)
    xs = [values(ring, numel, seed) for seed in range(terms)]
    flags = [values(RING64, numel, 10 + seed) & 1 for seed in range(terms)]
    operands = [trio.share_elements(x, ring=ring) for x in xs] + [trio.share_bits(b[None]) for b in flags]
    got = trio.run(lambda p, *o: p.select_sum(o[terms:], o[:terms]), *operands)
    expected = sum(b * x for b, x in zip(flags, xs, strict=True))
    assert torch.equal(ring.signed(trio.elements(got)), ring.signed(ring.reduce(expected)))


@pytest.mark.parametrize(("ring", "out", "drop"), [(32, 64, 7), (32, 32, 7), (40, 64, 12), (64, 64, 18), (32, 20, 7)])
@pytest.mark.parametrize("numel", [65, 7000])
def test_a_truncated_sum_of_selections_is_off_by_a_unit_at_most(ring: int, out: int, drop: int, numel: int) -> None:
    """The floor or one more (into a narrow ring: a unit and a half); measured traffic is the predicted one."""
    trio, kind, into = Trio(RING64, 18), Ring(ring), Ring(out)
    room = min(ring - 4, out + drop - 3)
    xs = [values(RING64, numel, seed) >> (64 - room) for seed in range(2)]
    flag = values(RING64, numel, 10) & 1
    operands = [trio.share_elements(kind.reduce(x), frac=drop, ring=kind) for x in xs]
    operands += [trio.share_bits(b[None]) for b in (flag, 1 - flag)]

    def program(p: Replicated, *o: Any) -> Step[Shared]:
        return p.select_sum(o[2:], o[:2], frac=0, ring=into)

    got = into.signed(trio.elements(trio.run(program, *operands)))
    assert trio.traffic == trio.predict(program, *operands)
    gap = got - (torch.where(flag == 1, xs[0], xs[1]) >> drop)
    assert set(gap.unique().tolist()) <= ({0, 1} if out > ring - drop else {-1, 0, 1, 2})


@pytest.mark.parametrize("width", [2, 3, 5, 8, 14, 20, 21, 33, 63])
@pytest.mark.parametrize("numel", [130, 6200])
def test_negative_on_a_narrow_width(width: int, numel: int) -> None:
    """The largest bound that the width serves, and no smaller width serves."""
    bound = (1 << width - 1) - 1
    assert compare.sign_width(RING64, 0, float(bound), 0) == width or width > 53  # beyond, the float rounds up
    x = torch.randint(-bound, bound + 1, (numel,), generator=torch.Generator().manual_seed(width))
    x[:5] = torch.tensor([-bound, bound, 0, -1, 1])
    trio = Trio()
    got = trio.run(lambda p, a: p.negative(a, bound=float(bound)), trio.share_elements(x))
    assert torch.equal(trio.reveal_bits(got)[0], (x < 0).long())


@pytest.mark.parametrize(("ring", "bits"), [(RING64, 21), (RING32, 21), (Ring(8), 3)], ids=["k64", "k32", "k8"])
@pytest.mark.parametrize("drop", [1, 4])
def test_dropping_bits_errs_only_on_small_non_negative_values(ring: Ring, bits: int, drop: int) -> None:
    """Elsewhere exact, at the bounds too; and the error does occur, or the test would not look at it."""
    top = (1 << bits) - 1
    x = torch.randint(-top, top + 1, (40000,), generator=torch.Generator().manual_seed(7))
    x[:20000] %= 2 << drop
    x[20000:20006] = torch.tensor([-top, top, -1, -(1 << drop), 1 << drop, top - 1])
    trio = Trio(ring, 0)
    got = trio.run(lambda p, a: p.negative(a, bound=float(top), drop=drop), trio.share_elements(x, ring=ring))
    found = trio.reveal_bits(got)[0].bool()
    either = (x >= 0) & (x < 1 << drop)
    assert torch.equal(found[~either], (x < 0)[~either])
    assert bool(found[either].any())
    assert not bool(found[either].all())


def test_fraction_bits_scale_the_bound() -> None:
    trio = Trio()
    x = torch.tensor([-8.0, 8.0, 7.9999, -(2.0**-18), 2.0**-18, 0.0])
    got = trio.run(lambda p, a: p.negative(a, bound=8.0), trio.share(x))
    assert trio.reveal_bits(got)[0].tolist() == [1, 0, 0, 1, 0, 0]
    assert compare.sign_width(RING64, 18, 8.0, 0) == 23  # 8.0 itself is 2^21 units: one bit more than 7.99
    assert compare.sign_width(RING64, 18, 7.99, 0) == 22


@pytest.mark.parametrize(("bound", "drop"), [(2.0**45, 1), (2.0**45, 6), (2.0**70, 1), (1.0, 63)])
def test_negative_refuses_a_width_that_would_wrap(bound: float, drop: int) -> None:
    trio = Trio(frac=18)
    with pytest.raises(RangeError, match="lower the bound"):
        trio.run(lambda p, a: p.negative(a, bound=bound, drop=drop), trio.share(torch.zeros(3)))


def test_the_whole_ring_is_a_bound_if_nothing_is_dropped() -> None:
    assert compare.sign_width(RING64, 18, 2.0**45, 0) == 64
    assert compare.sign_width(RING64, 18, 1e308, 0) == 64
    assert compare.zero_width(RING64, 18, 1e308) == 64
    with pytest.raises(RangeError, match="0 or more"):
        compare.sign_width(RING64, 18, 1.0, -1)


@pytest.mark.parametrize("bound", [float("inf"), float("nan"), -1.0])
def test_a_bound_must_be_a_number(bound: float) -> None:
    trio = Trio()
    with pytest.raises(RangeError, match="not a finite"):
        trio.run(lambda p, a: p.is_zero(a, bound=bound), trio.share(torch.zeros(2)))


@BY_RING
@pytest.mark.parametrize("numel", NUMELS)
def test_is_zero_is_exact(ring: Ring, numel: int) -> None:
    x, trio = values(ring, numel), Trio(ring, 0)
    x[::3] = 0
    got = trio.run(lambda p, a: p.is_zero(a, bound=whole(ring)), trio.share_elements(x, ring=ring))
    assert torch.equal(trio.reveal_bits(got)[0], (x == 0).long())


@pytest.mark.parametrize("bound", [0, 1, 6, 7, 8, 30521])
def test_is_zero_on_a_narrow_width(bound: int) -> None:
    x = torch.randint(-bound, bound + 1, (300,), generator=torch.Generator().manual_seed(bound))
    x[:3] = torch.tensor([bound, -bound, 0])
    trio = Trio(frac=0)
    got = trio.run(lambda p, a: p.is_zero(a, bound=float(bound)), trio.share_elements(x))
    assert torch.equal(trio.reveal_bits(got)[0], (x == 0).long())


@BY_RING
@pytest.mark.parametrize("numel", [1, 65, 6200])
def test_bits_and_back(ring: Ring, numel: int) -> None:
    """A2B of every width, and each bit as an integer in every ring."""
    x, trio = values(ring, numel), Trio(ring, 0)
    secret = trio.share_elements(x, ring=ring)
    for count in sorted({1, 2, 3, 5, ring.bits // 2, ring.bits - 1, ring.bits} & set(range(1, ring.bits + 1))):
        bits = trio.run(lambda p, a, count=count: p.to_bits(a, planes=count), secret)
        assert torch.equal(trio.reveal_bits(bits), planes(x, count)), count
    for out in RINGS:
        numbers = trio.run(lambda p, a, out=out: p.from_bits(a, ring=out), bits)
        assert (numbers[0].frac, numbers[0].ring) == (0, out)
        assert torch.equal(trio.elements(numbers).long(), planes(x, ring.bits))


@BY_RING
@pytest.mark.parametrize("numel", NUMELS)
def test_select_is_exact(ring: Ring, numel: int) -> None:
    x, trio = values(ring, numel), Trio(ring, 0)
    bit = torch.randint(2, (1, numel), generator=torch.Generator().manual_seed(3))
    secret = trio.share_elements(x, frac=3, ring=ring)
    got = trio.run(lambda p, b, a: p.select(b, a), trio.share_bits(bit), secret)
    assert (got[0].frac, got[0].ring) == (3, ring)
    assert torch.equal(trio.elements(got), ring.reduce(bit[0] * x))


def test_select_keeps_a_branch_that_wrapped() -> None:
    """F0 + b (F1 - F0) is exact though F1 - F0 leaves the ring."""
    low, high = torch.tensor([-(2**62), 2**62 + 5]), torch.tensor([2**62 + 2**61, -(2**62) - 77])
    trio, bit = Trio(frac=0), torch.tensor([[1, 0]])
    a, b, c = trio.share_elements(low), trio.share_elements(high), trio.share_bits(bit)

    def program(p: Replicated, a: Shared, b: Shared, c: SharedBits) -> Step[Shared]:
        chosen = yield from p.select(c, p.sub(b, a))
        return p.add(a, chosen)

    assert trio.elements(trio.run(program, a, b, c)).tolist() == [high[0].item(), low[1].item()]


def test_boolean_algebra() -> None:
    trio, generator = Trio(), torch.Generator().manual_seed(5)
    a, b, one = (torch.randint(2, (n, 7, 19), generator=generator) for n in (3, 3, 1))
    x, y, z = trio.share_bits(a), trio.share_bits(b), trio.share_bits(one)

    def check(program: Program, expected: Tensor, *args: SecretBits) -> None:
        assert torch.equal(trio.reveal_bits(trio.run(program, *args)), expected)

    check(lambda p, x, y: p.xor(x, y), a ^ b, x, y)
    check(lambda p, x, z: p.xor(x, z), a ^ one, x, z)
    check(lambda p, x: p.invert(x), 1 - a, x)
    check(lambda p, x, y: p.both(x, y), a & b, x, y)
    check(lambda p, x, z: p.both(x, z), a & one, x, z)
    check(lambda p, x, z: p.both(z, x), a & one, x, z)


def test_shapes_that_do_not_fit_are_refused() -> None:
    trio = Trio()
    one, two = trio.share_bits(torch.ones(1, 4, dtype=torch.long)), trio.share_bits(torch.ones(2, 4, dtype=torch.long))
    other, three = trio.share_bits(torch.ones(1, 5, dtype=torch.long)), trio.share_bits(torch.ones(3, 4).long())
    x = trio.share(torch.ones(4))
    with pytest.raises(ShapeError, match="shape"):
        trio.run(lambda p, a, b: p.both(a, b), one, other)
    with pytest.raises(ShapeError, match="planes"):
        trio.run(lambda p, a, b: p.xor(a, b), two, three)
    with pytest.raises(ShapeError, match="one plane"):
        trio.run(lambda p, a, b: p.select(a, b), two, x)
    with pytest.raises(ShapeError, match="one plane"):
        trio.run(lambda p, a, b: p.select(a, b), other, x)
    for count in (0, 65):
        with pytest.raises(ShapeError, match="ask for 1 to 64"):
            trio.run(lambda p, a, count=count: p.to_bits(a, planes=count), x)


@pytest.mark.parametrize("shape", [(), (3, 1), (0,), (2, 0, 3), (5, 4)])
def test_shapes_and_views(shape: tuple[int, ...]) -> None:
    """0-dim, empty, expanded and transposed inputs give contiguous results of the right shape."""
    trio = Trio(frac=4)
    base = torch.randint(-9, 9, shape, generator=torch.Generator().manual_seed(2)).double()
    secret = trio.share(base)
    if len(shape) == 2:
        base, secret = base.t().expand(2, *shape[::-1]), [s.transpose(0, 1).expand(2, *shape[::-1]) for s in secret]

    def program(p: Replicated, x: Shared) -> Step[tuple[Any, ...]]:
        sign = yield from p.negative(x, bound=16.0)
        zero = yield from p.is_zero(x, bound=16.0)
        bits = yield from p.to_bits(x, planes=9)
        kept = yield from p.select(sign, x)
        back = yield from p.from_bits(bits)
        return sign, zero, bits, kept, back

    sign, zero, bits, kept, back = trio.run(program, secret)
    assert sign[0].shape == zero[0].shape == bits[0].shape == kept[0].shape == base.shape
    assert back[0].shape == (9, *base.shape)
    assert torch.equal(trio.reveal(kept), base.clamp(max=0))
    assert torch.equal(trio.reveal(back), planes((base * 16).long(), 9).double())
    if base.numel():
        assert torch.equal(trio.reveal_bits(sign)[0], (base < 0).long())
        assert torch.equal(trio.reveal_bits(zero)[0], (base == 0).long())


def _digit(value: int, known: int, width: int) -> tuple[int, int]:
    """A digit's answers computed with shares that are all in one hand."""
    bits = -((torch.tensor([value]).unsqueeze(-1) >> torch.arange(width)) & 1)
    code = thermometer(bits.unsqueeze(-1))
    assert code.flatten().tolist() == [-(value >= i) for i in range(1, 1 << width)]
    top, lower = halve(code)
    assert int(top) == -(value >> (width - 1))
    assert torch.equal(lower, thermometer(bits[:, : width - 1].unsqueeze(-1)) if width > 1 else lower)
    other = -((torch.tensor([known]).unsqueeze(-1) >> torch.arange(width)) & 1).unsqueeze(-1)
    generates, passes = answers(code, other, ones=True).flatten().tolist()
    return -generates, -passes


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5])
def test_a_digit_answers_for_every_pair(width: int) -> None:
    full = (1 << width) - 1
    for v in range(full + 1):
        for w in range(full + 1):
            assert _digit(v, w, width) == (v + w > full, v + w == full)


@pytest.mark.parametrize(("count", "every"), [(n, False) for n in range(1, 6)] + [(n, True) for n in range(1, 12)])
def test_every_cut_into_digits_adds_right(count: int, every: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planner's choice must not matter: 11 carry bits in 1 to 11 digits, on all carry patterns of 12 bits."""
    cut = Layout(11, count, every=every)
    monkeypatch.setattr(adder, "layout", lambda *args, **kwargs: cut)
    x, trio = torch.arange(-2048, 2048), Trio(Ring(12), 0)
    secret = trio.share_elements(x)
    if every:
        got = trio.run(lambda p, a: p.to_bits(a, planes=12), secret)
        assert torch.equal(trio.reveal_bits(got), planes(x, 12))
    else:
        got = trio.run(lambda p, a: p.negative(a, bound=2048.0), secret)
        assert torch.equal(trio.reveal_bits(got)[0], (x < 0).long())


@pytest.mark.parametrize("turn", range(3))
@pytest.mark.parametrize("bits", [1, 2, 6])
def test_exceeds_compares_a_dealer_with_two_others(turn: int, bits: int) -> None:
    """[v > c] for all pairs, v known to the party of role 0, c to the other two."""
    side = 1 << bits
    v, c = (g.flatten() for g in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
    trio = Trio(Ring(8), 0)

    def program(p: Replicated) -> Step[SharedBits]:
        own = v if p.party.role(turn) == 0 else c
        parts = yield from compare.exceeds(p.party, own, bits, Ring(8), turn)
        return SharedBits(parts, v.shape)

    assert torch.equal(trio.reveal_bits(trio.run(program))[0], (v > c).long())


@pytest.mark.parametrize("turn", range(3))
def test_each_rotation_of_the_roles(turn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hush.protocols.replicated.rotation.slices", lambda numel: (Slice(turn, 0, numel),))
    x, trio = values(RING32, 200), Trio(RING32, 0)
    secret, bit = trio.share_elements(x), trio.share_bits((x & 1).unsqueeze(0))

    def program(p: Replicated, x: Shared, bit: SharedBits) -> Step[tuple[Any, ...]]:
        sign = yield from p.negative(x, bound=2.0**31)
        zero = yield from p.is_zero(x, bound=2.0**31)
        bits = yield from p.to_bits(x, planes=32)
        kept = yield from p.select(bit, x)
        back = yield from p.from_bits(sign)
        return sign, zero, bits, kept, back

    sign, zero, bits, kept, back = trio.run(program, secret, bit)
    assert torch.equal(trio.reveal_bits(sign)[0], (x < 0).long())
    assert torch.equal(trio.reveal_bits(zero)[0], (x == 0).long())
    assert torch.equal(trio.reveal_bits(bits), planes(x, 32))
    assert torch.equal(trio.elements(kept).long(), x * (x & 1))
    assert torch.equal(trio.elements(back)[0].long(), (x < 0).long())
