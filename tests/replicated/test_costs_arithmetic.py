"""Predicted traffic equals the measured one, round by round, and the figures that the protocol notes promise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hush.mpc.cost import Traffic
from hush.mpc.protocol import ConvShape
from hush.mpc.ring import RING32, RING64, Ring
from hush.mpc.ring.widths import Widths
from hush.mpc.step import Step, together
from hush.protocols.replicated import costs
from hush.protocols.replicated.rotation import ROTATE_MIN, slices
from tests.support.trio import Trio


def bits_per_element(rounds: list[Traffic], numel: int) -> float:
    """Payload bits of all three parties, per element."""
    return sum(sum(row) for t in rounds for row in t.sent) * 8 / numel


@pytest.mark.parametrize(
    ("widths", "product", "shared"),
    [
        (Widths(RING64, RING64, 18), 249, 185),
        (Widths(RING32, RING32, 12), 135, 103),
        (Widths(RING32, RING64, 12), 263, 231),
        (Widths(RING64, RING32, 18), 96, 0),
        (Widths(RING64, RING64, 0), 192, 0),
    ],
    ids=["64", "32", "widening", "narrowing", "reshare"],
)
def test_bits_per_element_are_the_derived_ones(widths: Widths, product: int, shared: int) -> None:
    numel = 3 * 64 * 1000
    assert bits_per_element(costs.product(numel, widths), numel) == product
    assert bits_per_element(costs.shared(numel, widths), numel) == shared


def test_large_tensors_load_the_parties_evenly() -> None:
    (first, second) = costs.product(3 * 64 * 1000, Widths(RING64, RING64, 18))
    for traffic in (first, second):
        assert len({sum(row) for row in traffic.sent}) == 1


@given(st.integers(0, 10 * ROTATE_MIN))
def test_slices_cover_the_tensor_in_words(numel: int) -> None:
    cut = slices(numel)
    assert [s.start for s in cut] == [0, *(s.stop for s in cut[:-1])]
    assert cut[-1].stop == numel
    assert all(s.start % 64 == 0 for s in cut)
    assert len(cut) == (3 if numel >= 3 * ROTATE_MIN else 1)


SIZES = st.one_of(st.integers(0, 70), st.sampled_from([3 * ROTATE_MIN - 1, 3 * ROTATE_MIN, 3 * ROTATE_MIN + 65]))
PROGRAMS = {
    "mul": lambda p, a, b: p.mul(a, b),
    "mul kept": lambda p, a, b: p.mul(a, b, frac=a.frac + b.frac),
    "mul narrow": lambda p, a, b: p.mul(a, b, ring=Ring(a.ring.bits - a.frac - b.frac)),
    "mul wide": lambda p, a, b: p.mul(a, b, ring=RING64),
    "mul broadcast": lambda p, a, b: p.mul(a[:1], b),
    "outer": lambda p, a, b: p.matmul(a[:60].reshape(-1, 1), b[:150].reshape(1, -1)),
    "mul public": lambda p, a, b: p.mul_public(a, 2.0),
    "mul public kept": lambda p, a, b: p.mul_public(a, 1.5, frac=a.frac + p.frac),
    "combine": lambda p, a, b: p.combine([a, b], [0.5, torch.ones(3, 1)], 1.0, frac=2),
    "matmul public": lambda p, a, b: p.matmul_public(a[:80].reshape(-1, 1), torch.ones(1, 90)),
    "truncate": lambda p, a, b: p.truncate(a, 1),
    "truncate exactly": lambda p, a, b: p.truncate(a, 1, exact=True),
    "truncate narrow": lambda p, a, b: p.truncate(a, 1, ring=Ring(9)),
    "truncate wide": lambda p, a, b: p.truncate(a, 1, ring=RING64),
    "truncate exactly narrow": lambda p, a, b: p.truncate(a, 1, ring=Ring(9), exact=True),
    "nothing to truncate": lambda p, a, b: p.truncate(a, a.frac, exact=True),
    "open": lambda p, a, b: p.open(a),
}


@pytest.mark.parametrize("name", PROGRAMS)
@settings(max_examples=12, deadline=None)
@given(size=SIZES, kind=st.sampled_from([(RING64, 18), (RING32, 8), (Ring(45), 11)]))
def test_predicted_equals_measured(name: str, size: int, kind: tuple[Ring, int]) -> None:
    ring, frac = kind
    trio = Trio(ring, frac)
    x, y = trio.share(torch.ones(size)), trio.share(torch.zeros(size))
    trio.run(PROGRAMS[name], x, y)
    assert trio.predict(PROGRAMS[name], x, y) == trio.traffic


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_predicted_equals_measured_for_matmul_and_convolution(data: st.DataObject) -> None:
    draw = data.draw
    trio = Trio(*draw(st.sampled_from([(RING64, 18), (RING32, 8)])))
    batch, rows, inner, columns = (draw(st.integers(low, 40)) for low in (0, 0, 1, 0))
    x, y = trio.share(torch.ones(batch, rows, inner)), trio.share(torch.ones(inner, columns))
    for program in [
        lambda p, a, b: p.matmul(a, b),
        lambda p, a, b: p.matmul(a, b, ring=RING32),
        lambda p, a, b: p.matmul_public(a, torch.ones(inner, columns)),
        lambda p, a, b: p.matmul_int(a, torch.ones(inner, columns, dtype=torch.int64)),
    ]:
        result = trio.run(program, x, y)
        assert trio.predict(program, x, y) == trio.traffic
        assert tuple(result[0].shape) == (batch, rows, columns)
    stride, padding, dilation, groups = (draw(st.integers(1, 3)) for _ in range(4))
    geometry = ConvShape((stride, 1), (padding, 0), (1, dilation), groups)
    image, kernel = trio.share(torch.ones(2, 2 * groups, 9, 12)), torch.ones(3 * groups, 2, 3, 2)
    w = trio.share(kernel)
    secret, public = (lambda p, a, b: p.conv(a, b, geometry)), (lambda p, a, b: p.conv_public(a, kernel, geometry))
    for program in (secret, public):
        trio.run(program, image, w)
        assert trio.predict(program, image, w) == trio.traffic


def test_independent_steps_share_their_rounds_in_both() -> None:
    trio = Trio()
    x, y = trio.share(torch.ones(7000)), trio.share(torch.ones(9))

    def program(p: object, a: object, b: object) -> Step[object]:
        first, _, third = yield from together(p.mul(a, a), p.mul_public(b, 2.0), p.mul(b, b, frac=36))
        return (yield from p.mul(first, third[0].with_frac(18)))

    trio.run(program, x, y)
    assert len(trio.traffic) == 4
    assert trio.predict(program, x, y) == trio.traffic


def test_the_cost_depends_on_public_shapes_and_not_on_public_values() -> None:
    trio = Trio()
    x = trio.share(torch.ones(100))
    rounds = []
    for factor in (0.0, 1.0, 2.0, 0.3, -1e9):
        trio.run(lambda p, a, f=factor: p.mul_public(a, f), x)
        rounds.append(trio.traffic)
    assert all(r == rounds[0] for r in rounds)


def test_the_cost_model_needs_no_data() -> None:
    trio = Trio()
    x = trio.share(torch.ones(4, 5))
    local = lambda p, a: p.add(p.scale(p.add_public(p.sub(a, p.constant(torch.ones(5))), torch.ones(3, 1, 1)), 2), a)  # noqa: E731
    assert trio.predict(local, x) == []
    assert tuple(trio.run(local, x)[0].shape) == (3, 4, 5)
