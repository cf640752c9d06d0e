"""Fit the polynomials of `hush.mpc.functions`: minimax by Remez' exchange on a fine grid, numpy only.

`python benchmarks/fit_polynomials.py` prints every coefficient tuple with its error; a test holds the modules to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Function = Callable[[Vector], Vector]

MARGIN = 2.0**-6  # how far beyond its cut a comparison may let an argument through
POINTS = 6001


def minimax(target: Function, basis: Sequence[Function], low: float, high: float, weight: Function) -> Vector:
    """Coefficients c that minimise max weight |target - sum c_i basis_i| on [low, high]."""
    x = (low + high) / 2 - (high - low) / 2 * np.cos(np.linspace(0, np.pi, POINTS))
    y, columns, w = target(x), np.stack([b(x) for b in basis], 1), weight(x)
    size = columns.shape[1]
    picked = np.linspace(0, POINTS - 1, size + 1).astype(int)
    best, least = np.zeros(size), math.inf
    for _ in range(60):
        signs = (-1.0) ** np.arange(size + 1) / w[picked]
        solved = np.linalg.solve(np.column_stack([columns[picked], signs]), y[picked])
        residual = (y - columns @ solved[:size]) * w
        worst = float(np.abs(residual).max())
        if worst < least:
            best, least = solved[:size], worst
        extrema = _alternation(residual, size + 1)
        if len(extrema) <= size or worst <= abs(float(solved[size])) * (1 + 1e-7):
            break
        picked = np.array(extrema)
    return best


def _alternation(residual: Vector, count: int) -> list[int]:
    """The largest point of each run of one sign, the least important ones dropped down to `count`."""
    cuts = np.flatnonzero(np.diff(np.sign(residual))) + 1
    points = [int(run[np.argmax(np.abs(residual[run]))]) for run in np.split(np.arange(residual.size), cuts)]
    size = np.abs(residual)
    while len(points) > count:
        if len(points) == count + 1:
            points.pop(0 if size[points[0]] < size[points[-1]] else -1)
            continue
        pair = min(range(len(points) - 1), key=lambda i: max(size[points[i]], size[points[i + 1]]))
        del points[pair : pair + (1 if pair in (0, len(points) - 2) else 2)]
    return points


def one(x: Vector) -> Vector:
    """The constant weight."""
    return np.ones_like(x)


def symmetric(target: Function, degree: int, factor: int, cut: float, *, odd: bool = False) -> tuple[float, ...]:
    """Coefficients in w = 2 (factor x / 16)^2 - 1 of an even target, or of an odd one over x, for |x| <= cut."""

    def column(k: int) -> Function:
        return lambda x: (x if odd else np.ones_like(x)) * np.cos(k * np.arccos(2 * (factor * x / 16) ** 2 - 1))

    chebyshev = minimax(target, [column(k) for k in range(degree + 1)], 1e-6 if odd else 0.0, cut + MARGIN, one)
    return tuple(float(c) for c in np.polynomial.chebyshev.cheb2poly(chebyshev))


def quartic(low: float, high: float, squares: int, power: float) -> tuple[int, tuple[float, float, float, float]]:
    """exp on [low, high] / 2^squares as a monic quartic in u = lead v, in Knuth's form (z+u+b)(z+d)+e, z = u(u+k).

    Minimises the error of its 2^squares-th power over exp(power x). lead is a multiple of 2^-7 (returned as such).
    """
    n = 2.0**squares

    def weight(v: Vector) -> Vector:
        return n * np.exp((n - 1) * v - n * v * power)

    def monomials(lead: float, count: int) -> list[Function]:
        return [lambda v, k=k: (lead * v) ** k for k in range(count)]  # type: ignore[misc]

    free = minimax(np.exp, monomials(1.0, 5), low / n, high / n, weight)
    lead = round(float(free[4]) ** 0.25 * 128)
    scale = lead / 128
    a0, a1, a2, a3 = minimax(lambda v: np.exp(v) - (scale * v) ** 4, monomials(scale, 4), low / n, high / n, weight)
    k = (a3 - 1) / 2
    both = a2 - k * k - k
    d = a1 - both * k
    b = both - d
    return lead, (float(k), float(b), float(d), float(a0 - b * d))


def erf(x: Vector) -> Vector:
    """The error function."""
    return np.array([math.erf(v) for v in x])


def gelu_even(x: Vector) -> Vector:
    """gelu(x) - x/2."""
    return x * erf(x / math.sqrt(2)) / 2


def gelu_tanh_even(x: Vector) -> Vector:
    """The tanh form's gelu(x) - x/2."""
    return x * np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)) / 2


SHORT = np.cos(np.linspace(0, np.pi, 400)) / 2 + 0.5  # Chebyshev points of [0, 1]


def octic(parameters: Vector, x: Vector, lead: int) -> Vector:
    """An even polynomial of degree 16 in four products, as `hush.mpc.functions.polynomial.octic` evaluates it."""
    c, b, d, a, g, e = parameters
    w = lead / 2048 * x * x - c
    z = w * w
    u = (z - 2 * w + b) * (z + d)
    value: Vector = e - (u + w / 2 + a) * (u + z - w + g)
    return value


def fit_octic(target: Function, lead: int, cut: float, start: Sequence[float]) -> tuple[float, ...]:
    """Nearly minimax parameters for |x| <= cut. `start` comes from a random search: there are many local minima."""
    x = (cut + MARGIN) * SHORT
    return lawson(lambda p: octic(p, x, lead) - target(x), start, np.ones_like(x))


def lawson(residual: Function, start: Sequence[float], weight: Vector) -> tuple[float, ...]:
    """Parameters that nearly minimise max weight |residual|: reweighted least squares by Levenberg-Marquardt steps."""
    now, importance = np.array(start), np.ones_like(weight)
    best, least = now, math.inf
    for _ in range(150):
        now = _descend(lambda p: np.sqrt(importance) * weight * residual(p), now)  # noqa: B023 (used at once)
        size = np.abs(weight * residual(now))
        if size.max() < least:
            best, least = now, float(size.max())
        importance = importance * (size / size.max() + 0.02) ** 0.5
        importance /= importance.mean()
    return tuple(float(p) for p in best)


def root(parameters: Vector, x: Vector) -> Vector:
    """2 exp(x/2) in three products, as `hush.mpc.functions.exp` evaluates it."""
    shift, slope, b, e, f, g, tilt = parameters
    u = x + shift
    z = u * u / 128
    w = (z + b) ** 2
    value: Vector = (w + tilt * u + e) * (3 * w - 2 * z + slope * u + f) + g
    return value


# Where one entry of a softmax stands against n others, ln n below it, an error there costs n/4 times as much: what the
# error of exp(-ln n) may be, for n = 2048 (and further below, so much that their sum is off alike), 128, 16, 4, 1.
ALLOWED = {-math.log(2048): 4.1e-6, -math.log(128): 7.5e-6, -math.log(16): 5e-5, -math.log(4): 1.4e-4, 0.0: 1.4e-4}
ROOT_START = (8.507, 0.171, 0.202, 0.05, 1.22, -0.093, -0.00085)


def fit_root(low: float, high: float) -> tuple[float, ...]:
    """Parameters of `root` for low <= x <= high: shift, slope, b, e, f, g, tilt."""
    x = low + (high - low) * SHORT
    points = np.array(list(ALLOWED))
    allowed = np.exp(np.interp(x, points, np.log(list(ALLOWED.values())))) * (1 + np.clip(x - 0.2, 0, None))
    rare = 2048 * np.exp(x)
    allowed = np.where(rare < 1, ALLOWED[points[0]] / 4 * (1 + rare) ** 2, allowed)
    return lawson(lambda p: root(p, x) - 2 * np.exp(x / 2), ROOT_START, np.exp(x / 2) / allowed)


def _descend(residual: Function, start: Vector, steps: int = 40) -> Vector:
    """Levenberg-Marquardt with numerical derivatives."""
    now, damping = start, 1e-4
    value = residual(now)
    for _ in range(steps):
        moves = 1e-6 * np.eye(now.size)
        slope = np.stack([(residual(now + move) - residual(now - move)) / 2e-6 for move in moves], 1)
        normal = slope.T @ slope
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -slope.T @ value)
        there = residual(now + step)
        if there @ there < value @ value:
            settled = float(value @ value - there @ there) < 1e-12 * float(value @ value)
            now, value, damping = now + step, there, damping / 5
            if settled:
                break
        else:
            damping *= 8
    return now


# target, lead in units of 2^-11, cut, start
OCTIC: dict[str, tuple[Function, int, float, tuple[float, ...]]] = {
    "gelu": (gelu_even, 128, 3.85, (0.509, 0.1824, -0.0896, 1.3939, -0.4613, 0.7689)),
    "gelu_tanh": (gelu_tanh_even, 129, 3.85, (0.5094, 0.1846, -0.0943, 1.404, -0.4605, 0.7652)),
    "quick_gelu": (lambda x: x * np.tanh(0.851 * x) / 2, 128, 4.4, (0.602, 0.064, -0.275, 1.438, -0.658, 0.579)),
    "silu": (lambda x: x * np.tanh(x / 2) / 2, 46, 7.6, (0.6895, -0.2805, -0.2921, 1.8963, -1.1849, 0.4974)),
    "softplus": (lambda x: np.log(2 * np.cosh(x / 2)), 36, 7.3, (0.5952, -0.4625, -0.2041, 2.112, -1.4121, 0.1008)),
}

SYMMETRIC: dict[str, tuple[Function, int, int, float, bool]] = {
    "sigmoid": (lambda x: np.tanh(x / 2) / 2, 8, 2, 7.75, True),
    "erf": (erf, 7, 5, 3.0, True),
}


def error(name: str, coefficients: Sequence[float]) -> float:
    """Largest error of a symmetric fit inside its cut."""
    target, _, factor, cut, odd = SYMMETRIC[name]
    x = np.linspace(0.0, cut + MARGIN, 20001)
    fitted = np.polyval(coefficients[::-1], 2 * (factor * x / 16) ** 2 - 1) * (x if odd else 1.0)
    return float(np.abs(fitted - target(x)).max())


def sine() -> tuple[float, ...]:
    """sin(pi v / 2) / v in powers of v^2 on |v| <= 1."""
    basis: list[Function] = [lambda v, k=k: v ** (2 * k + 1) for k in range(4)]  # type: ignore[misc]
    return tuple(float(c) for c in minimax(lambda v: np.sin(np.pi * v / 2), basis, 1e-6, 1.0, one))


def main() -> None:
    """Print every fit."""
    for name, (target, degree, factor, cut, odd) in SYMMETRIC.items():
        coefficients = symmetric(target, degree, factor, cut, odd=odd)
        print(name, coefficients, f"error {error(name, coefficients):.3g}")
    for name, (target, lead, cut, start) in OCTIC.items():
        parameters = fit_octic(target, lead, cut, start)
        x = np.linspace(0.0, cut + MARGIN, 20001)
        print(name, parameters, f"error {np.abs(octic(np.array(parameters), x, lead) - target(x)).max():.3g}")
    print("exp_nonpositive", fit_root(-14.0, 0.5))
    print("exp", quartic(-14.0, 12.0, 6, 1.0))
    print("sine", sine())


if __name__ == "__main__":
    main()
