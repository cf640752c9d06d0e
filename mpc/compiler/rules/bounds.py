"""How large a value can get, from the op alone: |result| in terms of the operands' bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, fx

from hush.mpc.compiler.ops import args_of, op_name
from hush.mpc.compiler.types import META, Type

Bound = Callable[[fx.Node], float | None]


def proven_bound(node: fx.Node) -> float | None:
    """A bound that holds for every input within the operands' bounds; None where no rule gives one."""
    if node.op != "call_function":
        return None
    found = _BOUNDS.get(op_name(node.target))
    return None if found is None else found(node)


def _of(value: Any) -> float | None:
    if isinstance(value, fx.Node):
        typed: Type | None = value.meta.get(META)
        return None if typed is None else typed.bound
    if isinstance(value, Tensor):
        return float(value.double().abs().max())
    return abs(float(value)) if isinstance(value, bool | int | float) else None


def _same(node: fx.Node) -> float | None:
    return _of(args_of(node)[0])


def _second(node: fx.Node) -> float | None:
    return _of(args_of(node)[1])


def _one(_: fx.Node) -> float | None:
    return 1.0


def _sum(node: fx.Node) -> float | None:
    a, b = _of(args_of(node)[0]), _of(args_of(node)[1])
    alpha: Any = node.kwargs.get("alpha", 1)
    factor = abs(float(alpha))
    return None if a is None or b is None else a + factor * b


def _product(node: fx.Node) -> float | None:
    a, b = _of(args_of(node)[0]), _of(args_of(node)[1])
    return None if a is None or b is None else a * b


def _largest(*operands: int) -> Bound:
    def bound(node: fx.Node) -> float | None:
        found = [_of(args_of(node)[i]) for i in operands if i < len(args_of(node))]
        return None if None in found else max(b for b in found if b is not None)

    return bound


def _list(node: fx.Node) -> float | None:
    found = [_of(a) for a in args_of(node)[0]]
    return None if None in found else max((b for b in found if b is not None), default=0.0)


def _running(node: fx.Node) -> float | None:
    bound, shape = _of(args_of(node)[0]), args_of(node)[0].meta[META].shape
    dim = args_of(node)[1] if len(args_of(node)) > 1 else None
    if bound is None or not shape:
        return bound
    dims: list[int] = [dim] if isinstance(dim, int) else list(dim or range(len(shape)))
    return float(bound * math.prod(shape[d] for d in dims))


def _index(node: fx.Node) -> float | None:
    shape = args_of(node)[0].meta[META].shape
    dim = args_of(node)[1] if len(args_of(node)) > 1 else None
    return float(math.prod(shape) if dim is None else shape[dim])


def _clamped(node: fx.Node) -> float | None:
    limits = [float(a) for a in args_of(node)[1:3] if isinstance(a, int | float)]
    bound = _of(args_of(node)[0])
    if len(limits) == 2:
        return max(map(abs, limits))
    return None if bound is None else max([bound, *map(abs, limits)])


def _options(node: fx.Node, *defaults: float) -> list[float]:
    """The numbers behind the first argument, defaults where the call leaves them out."""
    given = [float(a) for a in args_of(node)[1:]]
    return [*given, *defaults[len(given) :]]


def _at_most_six(node: fx.Node) -> float | None:
    bound = _of(args_of(node)[0])
    return None if bound is None else min(bound, 6.0)


def _hardtanh(node: fx.Node) -> float | None:
    return max(map(abs, _options(node, -1.0, 1.0)))


def _scaled(x: Any, factor: float) -> float | None:
    bound = _of(x)
    return None if bound is None else bound * factor


def _leaky(node: fx.Node) -> float | None:
    return _scaled(args_of(node)[0], max(1.0, abs(_options(node, 0.01)[0])))


def _elu(node: fx.Node) -> float | None:
    """|e^x - 1| <= |x| below 0."""
    alpha, scale, _ = _options(node, 1.0, 1.0, 1.0)
    return _scaled(args_of(node)[0], abs(scale) * max(1.0, abs(alpha)))


def _selu(node: fx.Node) -> float | None:
    return _scaled(args_of(node)[0], 1.76)


def _softplus(node: fx.Node) -> float | None:
    """max(x, 0) + ln(1 + e^-|beta x|) / beta."""
    bound, beta = _of(args_of(node)[0]), _options(node, 1.0)[0]
    return None if bound is None or beta <= 0 else bound + math.log(2) / beta


def _padded(node: fx.Node) -> float | None:
    bound, fill = _of(args_of(node)[0]), [a for a in args_of(node)[2:] if isinstance(a, int | float)]
    return None if bound is None else max([bound, *map(abs, fill)])


def _names(*names: str) -> list[str]:
    return [f"aten.{n}" for n in names]


_BOUNDS: dict[str, Bound] = {
    **dict.fromkeys(
        _names(
            "view.default",
            "reshape.default",
            "_unsafe_view.default",
            "transpose.int",
            "permute.default",
            "t.default",
            "unsqueeze.default",
            "squeeze.dim",
            "squeeze.default",
            "squeeze.dims",
            "expand.default",
            "select.int",
            "slice.Tensor",
            "flatten.using_ints",
            "split.Tensor",
            "split_with_sizes.default",
            "chunk.default",
            "unbind.int",
            "roll.default",
            "flip.default",
            "repeat.default",
            "repeat_interleave.self_int",
            "index.Tensor",
            "index_select.default",
            "gather.default",
            "unfold.default",
            "neg.default",
            "abs.default",
            "relu.default",
            "gelu.default",
            "silu.default",
            "hardswish.default",
            "glu.default",
            "_to_copy.default",
            "to.dtype",
            "type_as.default",
            "mean.dim",
            "mean.default",
            "amax.default",
            "amin.default",
            "tril.default",
            "triu.default",
            "adaptive_avg_pool1d.default",
            "adaptive_avg_pool2d.default",
            "avg_pool1d.default",
            "avg_pool2d.default",
            "diagonal.default",
            "pixel_shuffle.default",
            "movedim.int",
            "swapaxes.default",
        ),
        _same,
    ),
    **dict.fromkeys(
        [
            "hush.softmax",
            "hush.unit",
            *_names("sigmoid.default", "tanh.default", "sin.default", "cos.default", "erf.default", "sign.default"),
            *_names("hardsigmoid.default"),
            *(f"aten.{op}.{kind}" for op in ("eq", "ne", "lt", "le", "gt", "ge") for kind in ("Scalar", "Tensor")),
            *_names(
                "logical_and.default",
                "logical_or.default",
                "logical_not.default",
                "bitwise_not.default",
                "any.dim",
                "all.dim",
                "any.default",
                "all.default",
            ),
        ],
        _one,
    ),
    **dict.fromkeys(
        _names("__and__.Tensor", "__or__.Tensor", "bitwise_and.Tensor", "bitwise_or.Tensor"), _largest(0, 1)
    ),
    **dict.fromkeys(_names("add.Tensor", "sub.Tensor", "add.Scalar", "sub.Scalar", "rsub.Scalar"), _sum),
    **dict.fromkeys(_names("mul.Tensor", "mul.Scalar"), _product),
    **dict.fromkeys(_names("cat.default", "stack.default"), _list),
    **dict.fromkeys(_names("cumsum.default", "sum.dim_IntList", "sum.default"), _running),
    **dict.fromkeys(_names("argmax.default", "argmin.default"), _index),
    **dict.fromkeys(_names("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar"), _largest(1, 2)),
    **dict.fromkeys(_names("masked_fill.Scalar", "masked_fill.Tensor"), _largest(0, 2)),
    **dict.fromkeys(_names("maximum.default", "minimum.default", "max.other", "min.other"), _largest(0, 1)),
    **dict.fromkeys(_names("clamp.default", "clamp_min.default", "clamp_max.default"), _clamped),
    "hush.quick_gelu": _same,
    "hush.attend": _second,
    "aten.relu6.default": _at_most_six,
    "aten.hardtanh.default": _hardtanh,
    "aten.leaky_relu.default": _leaky,
    "aten.elu.default": _elu,
    "aten.selu.default": _selu,
    "aten.celu.default": _same,
    "aten.softplus.default": _softplus,
    "aten.log_sigmoid.default": _softplus,
    **dict.fromkeys(_names("pad.default", "constant_pad_nd.default"), _padded),
    "getitem": _same,
}
