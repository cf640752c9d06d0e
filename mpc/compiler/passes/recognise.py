"""Functions that reach the graph in pieces: GELU, SiLU, RMS norm, unit length, as ops with one rule each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import fx

from hush.mpc.compiler.capture import Draft
from hush.mpc.compiler.ops import args_of, is_op
from hush.mpc.compiler.passes.rewrite import argument, call, drop_dead, replace, scalar_of, visibilities
from hush.mpc.compiler.types import Visibility

_ADD, _MUL, _DIV, _POW = "aten.add.Tensor", "aten.mul.Tensor", "aten.div.Tensor", "aten.pow.Tensor_Scalar"


def recognise(draft: Draft) -> str:
    """Replace the patterns, secret operands only: what the provider computes needs no rule."""
    matches = {"gelu": _gelu, "silu": _gated, "rms_norm": _rms_norm, "unit": _unit}
    counts = dict.fromkeys(matches, 0)
    seen = visibilities(draft)
    for node in list(draft.graph.nodes):
        if seen.get(node) is not Visibility.SECRET:
            continue
        with draft.graph.inserting_before(node):
            for name, match in matches.items():
                instead = match(draft, node)
                if instead is not None:
                    replace(draft, node, instead)
                    seen[instead] = Visibility.SECRET
                    counts[name] += 1
                    break
    _rms_weights(draft)
    drop_dead(draft)
    return "recognised: " + ", ".join(f"{n} {name}" for name, n in counts.items())


def _orders(node: Any, *names: str) -> Iterator[tuple[Any, Any]]:
    """Both orders of a commutative call's operands; nothing if the node is no such call."""
    if is_op(node, *names):
        yield args_of(node)[0], args_of(node)[1]
        yield args_of(node)[1], args_of(node)[0]


def _scaled(draft: Draft, node: Any) -> tuple[Any, float]:
    """(x, c) of c * x, x * c or x / d; (node, 1) otherwise."""
    for x, factor in _orders(node, _MUL):
        value = scalar_of(draft, factor)
        if value is not None and isinstance(x, fx.Node):
            return x, value
    if is_op(node, _DIV):
        value = scalar_of(draft, args_of(node)[1])
        if value is not None:
            return args_of(node)[0], 1 / value
    return node, 1.0


def _plus(draft: Draft, node: Any) -> tuple[Any, float] | None:
    """(x, c) of x + c."""
    for x, term in _orders(node, _ADD):
        value = scalar_of(draft, term)
        if value is not None and isinstance(x, fx.Node):
            return x, value
    return None


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-4)


def _gelu(draft: Draft, node: fx.Node) -> fx.Node | None:
    """x/2 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), or erf(x / sqrt 2) in the place of the tanh."""
    for half, gate in _orders(node, _MUL):
        x, factor = _scaled(draft, half)
        shifted = _plus(draft, gate)
        if not _close(factor, 0.5) or shifted is None or not _close(shifted[1], 1.0):
            continue
        if is_op(shifted[0], "aten.erf.default"):
            inner, scale = _scaled(draft, shifted[0].args[0])
            if inner is x and _close(scale, math.sqrt(0.5)):
                return call(draft, "aten.gelu.default", x, like=node)
        if is_op(shifted[0], "aten.tanh.default"):
            inner, scale = _scaled(draft, shifted[0].args[0])
            if _close(scale, math.sqrt(2 / math.pi)) and _cubic(draft, inner, x):
                return call(draft, "aten.gelu.default", x, like=node, approximate="tanh")
    return None


def _gated(draft: Draft, node: fx.Node) -> fx.Node | None:
    """x sigmoid(x), which is SiLU, and x sigmoid(1.702 x), CLIP's GELU."""
    for x, gate in _orders(node, _MUL):
        if not is_op(gate, "aten.sigmoid.default") or len(gate.users) != 1:
            continue
        inner, factor = _scaled(draft, args_of(gate)[0])
        if inner is x and factor == 1.0:
            return call(draft, "aten.silu.default", x, like=node)
        if inner is x and _close(factor, 1.702):
            return call(draft, "hush.quick_gelu", x, like=node)
    return None


def _cubic(draft: Draft, node: Any, x: Any) -> bool:
    for linear, rest in _orders(node, _ADD):
        cube, factor = _scaled(draft, rest)
        power = is_op(cube, _POW) and args_of(cube)[0] is x and args_of(cube)[1] == 3
        if linear is x and power and _close(factor, 0.044715):
            return True
    return False


def _rms_norm(draft: Draft, node: fx.Node) -> fx.Node | None:
    """x * rsqrt(mean(x^2, -1) + eps)."""
    for x, inverse in _orders(node, _MUL):
        shifted = _plus(draft, args_of(inverse)[0]) if is_op(inverse, "aten.rsqrt.default") else None
        if shifted is None or not is_op(shifted[0], "aten.mean.dim"):
            continue
        mean = shifted[0]
        squares = args_of(mean)[0]
        square = is_op(squares, _POW) and args_of(squares)[1] == 2 and args_of(squares)[0] is x
        square = square or (is_op(squares, _MUL) and args_of(squares)[0] is x and args_of(squares)[1] is x)
        if square and list(args_of(mean)[1]) == [-1] and argument(mean, 2, "keepdim", False):
            return call(draft, "hush.rms_norm", x, None, shifted[1], like=node)
    return None


def _rms_weights(draft: Draft) -> None:
    """weight * rms_norm(x) as rms_norm(x, weight)."""
    seen = visibilities(draft)
    for node in list(draft.graph.nodes):
        for norm, weight in _orders(node, _MUL):
            bare = is_op(norm, "hush.rms_norm") and args_of(norm)[1] is None and len(norm.users) == 1
            vector = isinstance(weight, fx.Node) and len(weight.meta.get("shape", (0, 0))) == 1
            if bare and vector and seen[weight] is not Visibility.SECRET:
                with draft.graph.inserting_before(node):
                    replace(
                        draft, node, call(draft, "hush.rms_norm", args_of(norm)[0], weight, args_of(norm)[2], like=node)
                    )
                break


def _unit(draft: Draft, node: fx.Node) -> fx.Node | None:
    """x / max(|x|_2, eps) along one dimension (torch's normalize)."""
    if not is_op(node, _DIV) or not isinstance(args_of(node)[1], fx.Node):
        return None
    divisor = args_of(args_of(node)[1])[0] if is_op(args_of(node)[1], "aten.expand.default") else args_of(node)[1]
    if not is_op(divisor, "aten.clamp_min.default", "aten.clamp.default"):
        return None
    norm, eps = args_of(divisor)[0], scalar_of(draft, argument(divisor, 1, "min"))
    if not is_op(norm, "aten.linalg_vector_norm.default") or args_of(norm)[0] is not args_of(node)[0] or eps is None:
        return None
    dims = argument(norm, 2, "dim")
    if argument(norm, 1, "ord", 2) != 2 or not argument(norm, 3, "keepdim", False) or not dims or len(dims) != 1:
        return None
    return call(draft, "hush.unit", args_of(node)[0], dims[0], eps, like=node)
