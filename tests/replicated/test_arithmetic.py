"""Linear primitives and products among three parties: values, scales, rings, shapes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hush.mpc.protocol import ConvShape
from hush.mpc.ring import RING32, RING64, Ring
from hush.mpc.ring.torch_backend import TorchKernels
from tests.support.trio import Trio

KINDS = [(RING64, 18), (RING32, 9), (Ring(48), 14)]
kinds = pytest.mark.parametrize(("ring", "frac"), KINDS, ids=lambda v: str(getattr(v, "bits", v)))


def reals(seed: int, frac: int, *shape: int) -> Tensor:
    """Float64 values that are multiples of 2^-frac."""
    generator = torch.Generator().manual_seed(seed)
    return torch.round(torch.randn(shape, generator=generator, dtype=torch.float64) * 2**frac) / 2**frac


def ulps(trio: Trio, secret: list, exact: Tensor) -> Tensor:
    """Deviation from the exact value in units of the secret's last place."""
    return (trio.reveal(secret) - exact) * 2.0 ** secret[0].frac


def floor_or_one_more(trio: Trio, secret: list, exact: Tensor) -> bool:
    """Whether every element is the exact value rounded down to the secret's scale, or one unit more."""
    deviation = ulps(trio, secret, torch.floor(exact * 2.0 ** secret[0].frac) * 2.0 ** -secret[0].frac)
    return set(deviation.unique().tolist()) <= {0.0, 1.0}


SHAPES = [((), ()), ((5,), (5,)), ((0, 3), (0, 3)), ((3, 1), (4,)), ((2, 3, 4), ()), ((1,), (2, 5)), ((7000,), (7000,))]


@kinds
@pytest.mark.parametrize(("left", "right"), SHAPES, ids=str)
def test_linear_primitives_are_exact_and_silent(
    ring: Ring, frac: int, left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    trio, x, y = Trio(ring, frac), reals(1, frac, *left), reals(2, frac, *right)
    X, Y = trio.share(x), trio.share(y)
    whole = torch.tensor(5) if not right else torch.arange(y.numel()).reshape(right) - 3
    cases = [
        (lambda p, a, b: p.add(a, b), x + y),
        (lambda p, a, b: p.sub(a, b), x - y),
        (lambda p, a, b: p.neg(a), -x),
        (lambda p, a, b: p.add_public(a, y), x + y),
        (lambda p, a, b: p.add_public(a, -1.5), x - 1.5),
        (lambda p, a, b: p.scale(p.rescale(a, frac + 1), 3), x * 3),
        (lambda p, a, b: p.scale(a, whole), x * whole),
        (lambda p, a, b: p.add(a, p.constant(y)), x + y),
    ]
    for program, expected in cases:
        assert torch.equal(trio.reveal(trio.run(program, X, Y)), expected)
        assert trio.traffic == []


@kinds
@pytest.mark.parametrize(("left", "right"), SHAPES, ids=str)
def test_mul_is_the_floor_or_one_more(ring: Ring, frac: int, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    trio, x, y = Trio(ring, frac), reals(3, frac, *left), reals(4, frac, *right)
    X, Y = trio.share(x), trio.share(y)
    product = trio.run(lambda p, a, b: p.mul(a, b), X, Y)
    assert product[0].frac == frac
    assert product[0].shape == (x * y).shape
    assert floor_or_one_more(trio, product, x * y)
    assert len(trio.traffic) == 2


@kinds
def test_a_product_that_keeps_all_bits_is_exact_in_one_round(ring: Ring, frac: int) -> None:
    trio, x, y = Trio(ring, frac), reals(5, frac, 40), reals(6, frac, 40)
    for more in (0, 2):
        wide = trio.run(lambda p, a, b, m=more: p.mul(a, b, frac=2 * frac + m), trio.share(x), trio.share(y))
        assert wide[0].frac == 2 * frac + more
        assert torch.equal(trio.reveal(wide), x * y)
        assert len(trio.traffic) == 1


@kinds
def test_matmul_truncates_once(ring: Ring, frac: int) -> None:
    trio = Trio(ring, frac)
    for left, right in [
        ((4, 6), (6, 3)),
        ((3, 1, 4, 5), (2, 5, 2)),
        ((90, 4), (4, 80)),
        ((2, 0), (0, 3)),
        ((0, 2), (2, 3)),
    ]:
        x, y = reals(7, frac, *left), reals(8, frac, *right)
        z = trio.run(lambda p, a, b: p.matmul(a, b), trio.share(x), trio.share(y))
        assert floor_or_one_more(trio, z, x @ y)
        transposed = trio.run(
            lambda p, a, b: p.matmul(b.transpose(-1, -2), a.transpose(-1, -2)), trio.share(x), trio.share(y)
        )
        assert floor_or_one_more(trio, transposed, (x @ y).transpose(-1, -2))


@kinds
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "geometry"),
    [
        ((2, 4, 9, 7), (6, 2, 3, 3), ConvShape((2, 1), (1, 1), (1, 1), 2)),
        ((1, 3, 8, 8), (5, 3, 4, 4), ConvShape((4, 4), (0, 0), (1, 1))),
        ((2, 3, 20), (4, 3, 3), ConvShape((1,), (2,), (2,))),
        ((1, 6, 12), (6, 1, 5), ConvShape((1,), (4,), (1,), 6)),
    ],
    ids=["grouped", "patches", "dilated", "depthwise"],
)
def test_convolution(
    ring: Ring, frac: int, x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvShape
) -> None:
    trio, x, w = Trio(ring, frac), reals(9, frac, *x_shape), reals(10, frac, *w_shape) / 2
    w = torch.round(w * 2**frac) / 2**frac
    torch_conv = torch.conv1d if len(x_shape) == 3 else torch.conv2d
    exact = torch_conv(x, w, None, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
    secret = trio.run(lambda p, a, b: p.conv(a, b, geometry), trio.share(x), trio.share(w))
    assert floor_or_one_more(trio, secret, exact)
    public = trio.run(lambda p, a: p.conv_public(a, w, geometry), trio.share(x))
    assert floor_or_one_more(trio, public, exact)


@kinds
def test_public_factors(ring: Ring, frac: int) -> None:
    trio, x, y = Trio(ring, frac), reals(11, frac, 70, 100), reals(12, frac, 100)
    X, matrix = trio.share(x), reals(13, frac, 100, 90)
    assert floor_or_one_more(trio, trio.run(lambda p, a: p.mul_public(a, y), X), x * y)
    assert floor_or_one_more(trio, trio.run(lambda p, a: p.mul_public(a, -0.375), X), x * -0.375)
    assert floor_or_one_more(trio, trio.run(lambda p, a: p.mul_public(a[0, 0], y), X), x[0, 0] * y)
    assert floor_or_one_more(trio, trio.run(lambda p, a: p.matmul_public(a, matrix), X), x @ matrix)
    batched = matrix.reshape(3, 100, 30)
    assert floor_or_one_more(trio, trio.run(lambda p, a: p.matmul_public(a[:2], batched), X), x[:2] @ batched)
    exact = trio.run(lambda p, a: p.matmul_public(a, torch.ones(100, 2), scale=0, frac=frac), X)
    assert torch.equal(trio.reveal(exact), x @ torch.ones(100, 2, dtype=torch.float64))
    assert trio.traffic == []


@kinds
@pytest.mark.parametrize(("rows", "columns"), [((1,), 7), ((1,), 6500), ((3, 5), 700), ((2, 1, 4), 9), ((90,), 91)])
def test_wide_public_matrices_are_cut_by_columns(ring: Ring, frac: int, rows: tuple[int, ...], columns: int) -> None:
    trio, x, w = Trio(ring, frac), reals(16, frac, *rows, 12), reals(17, frac, 12, columns)
    y, f = reals(18, frac, *rows, columns), reals(19, frac, columns)
    X, Y, turned = trio.share(x), trio.share(y), w.t().contiguous().t()
    for matrix in (w, turned):
        found = trio.run(lambda p, a, m=matrix: p.matmul_public(a, m), X)
        assert floor_or_one_more(trio, found, x @ w)
        assert found[0].parts[0].is_contiguous()
    for factor in (f, y, torch.tensor(0.5, dtype=torch.float64)):
        found = trio.run(lambda p, a, b, q=factor: p.matmul_add(a, w, b, q), X, Y)
        assert floor_or_one_more(trio, found, x @ w + y * factor)
    with pytest.raises(ValueError, match="does not join"):
        trio.run(lambda p, a, b: p.matmul_add(a, w, b, f), X, trio.share(y.reshape(-1, 1)))


def test_the_scale_of_a_public_factor_is_its_precision() -> None:
    trio = Trio()
    y = trio.run(lambda p, a: p.mul_public(a, 2.0**-20, scale=24, frac=22), trio.share(torch.tensor([1024.0])))
    assert y[0].frac == 22
    assert abs(trio.reveal(y).item() - 2.0**-10) <= 2.0**-22


@kinds
def test_combine_truncates_a_polynomial_once(ring: Ring, frac: int) -> None:
    trio, x, y = Trio(ring, frac), reals(14, frac, 2500, 3), reals(15, frac, 3)
    exact = 0.5 * x - 0.25 * y + 0.125
    program = lambda p, a, b: p.combine([a, b], [0.5, -0.25], 0.125)  # noqa: E731
    assert floor_or_one_more(trio, trio.run(program, trio.share(x), trio.share(y)), exact)
    assert len(trio.traffic) == 2
    kept = trio.run(lambda p, a, b: p.combine([a, b], [0.5, y], y, frac=2 * frac), trio.share(x), trio.share(y))
    assert torch.equal(trio.reveal(kept), 0.5 * x + y * y + y)
    assert trio.traffic == []


def test_the_reference_kernels_serve_as_well() -> None:
    for ring, frac in KINDS:
        trio, x, y = Trio(ring, frac, TorchKernels()), reals(19, frac, 65, 100), reals(20, frac, 100)
        X = trio.share(x)
        assert floor_or_one_more(trio, trio.run(lambda p, a, b: p.mul(a, b), X, trio.share(y)), x * y)
        assert floor_or_one_more(trio, trio.run(lambda p, a, f=y: p.combine([a], [f], 1.0), X), x * y + 1)
        matrix = torch.ones(100, 3)
        assert floor_or_one_more(trio, trio.run(lambda p, a, m=matrix: p.matmul_public(a, m), X), x @ matrix.double())


def test_matmul_int_is_exact() -> None:
    trio, x = Trio(), reals(16, 18, 3, 5)
    matrix = torch.tensor([[1, -2], [0, 3], [7, 0], [1, 1], [-1, 0]])
    y = trio.run(lambda p, a: p.matmul_int(a, matrix), trio.share(x))
    assert torch.equal(trio.reveal(y), x @ matrix.double())
    assert y[0].frac == 18


@kinds
def test_open_shows_the_elements_to_all(ring: Ring, frac: int) -> None:
    trio, x = Trio(ring, frac), reals(17, frac, 3, 50)
    secret = trio.share(x)
    opened = trio.run(lambda p, a: p.open(a), secret)
    assert all(torch.equal(o, trio.elements(secret)) for o in opened)
    assert len(trio.traffic) == 1


def test_views_of_a_secret_are_as_good_as_copies() -> None:
    trio, x = Trio(), reals(18, 18, 4, 6)
    y = trio.run(lambda p, a: p.mul(a.expand(5, 4, 6), a.transpose(0, 1).transpose(0, 1)), trio.share(x))
    assert floor_or_one_more(trio, y, (x * x).expand(5, 4, 6))
    strided = trio.run(lambda p, a: p.truncate(a[:, ::2].transpose(0, 1), 6), trio.share(x))
    assert floor_or_one_more(trio, strided, x[:, ::2].T)


def test_operands_that_do_not_fit_are_refused() -> None:
    trio = Trio()
    x, y = trio.share(torch.ones(2)), trio.share(torch.ones(2), frac=10)
    z = trio.share(torch.ones(2), frac=10, ring=RING32)
    for program in [
        lambda p, a, b, c: p.add(a, b),
        lambda p, a, b, c: p.mul(b, c),
        lambda p, a, b, c: p.combine([a, b], [1.0, 1.0]),
        lambda p, a, b, c: p.scale(a, torch.tensor(0.5)),
        lambda p, a, b, c: p.rescale(a, 3),
        lambda p, a, b, c: p.truncate(b, 11),
        lambda p, a, b, c: p.matmul(a, a),
        lambda p, a, b, c: p.truncate(p.rescale(c, 31), 0),
    ]:
        with pytest.raises(ValueError, match=r"."):
            trio.run(program, x, y, z)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_products_of_any_shape_and_width(data: st.DataObject) -> None:
    bits = data.draw(st.sampled_from([24, 31, 32, 33, 50, 63, 64]))
    frac = data.draw(st.integers(1, bits // 2 - 6))
    out = Ring(data.draw(st.sampled_from([bits, min(bits + 9, 64), 64, 32])))
    rows, inner, columns = (data.draw(st.integers(0, 9)) for _ in range(3))
    trio, seed = Trio(Ring(bits), frac), data.draw(st.integers(0, 1 << 30))
    bound = 2.0 ** ((bits - 2 - 2 * frac) // 2 - 2)
    x = (reals(seed, 0, rows, inner) * 2**frac).clamp(-3, 3) / 2**frac
    y = reals(seed + 1, frac, inner, columns).clamp(-bound, bound)
    y = torch.round(y * 2**frac) / 2**frac
    z = trio.run(lambda p, a, b: p.matmul(a, b, ring=out), trio.share(x), trio.share(y))
    assert z[0].ring == out
    if out.bits <= bits - frac:  # the one-round truncation: at most 1.5 units
        assert ulps(trio, z, x @ y).abs().max() <= 1.5 if z[0].numel else True
    else:
        assert floor_or_one_more(trio, z, x @ y)
