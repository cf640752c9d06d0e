"""Comparisons, conditions and logic on secret integers and reals: truth values are integers 0 and 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from hush.mpc import fixed_point
from hush.mpc.compiler.ops import args_of, op_name, op_target
from hush.mpc.compiler.rules.bounds import largest, one
from hush.mpc.compiler.rules.elementwise import total
from hush.mpc.compiler.rules.table import Site, Value, rule
from hush.mpc.compiler.types import Kind, type_of
from hush.mpc.points import Points
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together

_KINDS = ("Scalar", "Tensor")
COMPARISONS = tuple(f"aten.{op}.{kind}" for op in ("eq", "ne", "lt", "le", "gt", "ge") for kind in _KINDS)


def _is_onehot(site: Site, index: int) -> bool:
    operand: Any = site.node.args[index]
    return hasattr(operand, "meta") and type_of(operand).kind is Kind.ONEHOT


@rule(*COMPARISONS, onehot=True, bound=one)
def _compare(site: Site, a: Value | Points, b: Value) -> Any:
    """One comparison, exact. With a number a table look-up: of a one-hot integer local, of keys one round."""
    if isinstance(b, int | float) and isinstance(a, Points):
        return _look_up_points(site, a, b)
    assert not isinstance(a, Points)
    if _is_onehot(site, 0) and isinstance(b, int | float):
        return _look_up(site, a, b)
    return _difference(site, a, b)


def _look_up(site: Site, rows: Value, number: float) -> Shared:
    assert isinstance(rows, Shared)
    return site.p.matmul_int(rows, _answers(site, rows.shape[-1], number))[..., 0]


def _look_up_points(site: Site, places: Points, number: float) -> Step[Shared]:
    found = yield from site.p.lookup(places, _answers(site, places.classes, number), frac=0)
    return found[..., 0]


def _answers(site: Site, classes: int, number: float) -> Tensor:
    """[classes, 1]: what the comparison of each integer with the number gives."""
    answers: Tensor = op_target(op_name(site.node.target))(torch.arange(classes), number)
    return answers.long().reshape(-1, 1)


def _integer(site: Site, index: int, value: Value) -> Value:
    return site.integer(value) if isinstance(value, Shared) and _is_onehot(site, index) else value


def _difference(site: Site, a: Value, b: Value) -> Step[Shared]:
    p, op = site.p, op_name(site.node.target).split(".")[1]
    a, b = _integer(site, 0, a), _integer(site, 1, b)
    gap = _gap(site, a, b)
    bound = site.bound(0) + site.bound(1)
    if op in ("eq", "ne"):
        bit = yield from p.is_zero(gap, bound=bound)
        flip = op == "ne"
    else:
        bit = yield from p.negative(gap if op in ("lt", "ge") else p.neg(gap), bound=bound)
        flip = op in ("le", "ge")
    return (yield from p.from_bits(p.invert(bit) if flip else bit))[0]


def _gap(site: Site, a: Value, b: Value) -> Shared:
    """a - b at the finer of the two scales."""
    p = site.p
    fracs = [v.frac for v in (a, b) if isinstance(v, Shared)]
    reals = [not isinstance(v, Shared) and torch.as_tensor(v).is_floating_point() for v in (a, b)]
    frac = max([*fracs, p.frac if any(reals) else 0])
    a, b = (p.rescale(v, frac) if isinstance(v, Shared) and v.frac < frac else v for v in (a, b))
    if isinstance(a, Shared) and isinstance(b, Shared):
        return p.sub(a, b)
    if isinstance(a, Shared):
        return p.add_public(a, -torch.as_tensor(b, dtype=torch.float64))
    assert isinstance(b, Shared)
    return p.add_public(p.neg(b), torch.as_tensor(a))


def _buckets(node: fx.Node) -> float | None:
    """As many as there are boundaries."""
    boundaries: Any = args_of(node)[1]
    return float(type_of(boundaries).shape[0])


@rule("aten.bucketize.Tensor", bound=_buckets)
def _bucketize(
    site: Site, x: Shared, boundaries: Value, *, out_int32: bool = False, right: bool = False
) -> Step[Shared]:
    """How many boundaries [n] lie below x (`right`: or at it): n exact comparisons in the rounds of one."""
    p, bound = site.p, site.bound(0) + site.bound(1)
    gap = _gap(site, x.local(lambda t: t.unsqueeze(-1)), boundaries)
    bit = yield from p.negative(gap if right else p.neg(gap), bound=bound)
    reached = (yield from p.from_bits(p.invert(bit) if right else bit))[0]
    return reached.local(lambda t: reached.ring.settle(t.sum(-1)))


@rule("aten.bitwise_not.default", bound=one)
def _invert(site: Site, x: Shared) -> Shared:
    _only_bits(site)
    return site.p.add_public(site.p.neg(x), 1)


@rule("aten.logical_not.default", bound=one)
def _not(site: Site, x: Shared) -> Step[Shared]:
    """1 - x of a truth value; of a number whether it is 0."""
    truth = yield from _truth(site, 0, x)
    assert isinstance(truth, Shared)
    return site.p.add_public(site.p.neg(truth), 1)


@rule("aten.__and__.Tensor", "aten.bitwise_and.Tensor", bound=one)
def _both(site: Site, a: Value, b: Value) -> Step[Shared]:
    _only_bits(site)
    return (yield from _bit_product(site, a, b))


@rule("aten.__or__.Tensor", "aten.bitwise_or.Tensor", bound=one)
def _either(site: Site, a: Value, b: Value) -> Step[Shared]:
    _only_bits(site)
    return (yield from _sum_less(site, a, b, 1))


@rule("aten.bitwise_xor.Tensor", bound=one)
def _one_of(site: Site, a: Value, b: Value) -> Step[Shared]:
    _only_bits(site)
    return (yield from _sum_less(site, a, b, 2))


@rule("aten.logical_and.default", bound=one)
def _and(site: Site, a: Value, b: Value) -> Step[Shared]:
    """Product of truth values: local with a public one. A number is true where it is not 0: an equality test."""
    return (yield from _bit_product(site, *(yield from _truths(site, a, b))))


@rule("aten.logical_or.default", bound=one)
def _or(site: Site, a: Value, b: Value) -> Step[Shared]:
    return (yield from _sum_less(site, *(yield from _truths(site, a, b)), 1))


@rule("aten.logical_xor.default", bound=one)
def _xor(site: Site, a: Value, b: Value) -> Step[Shared]:
    return (yield from _sum_less(site, *(yield from _truths(site, a, b)), 2))


def _only_bits(site: Site) -> None:
    if any(type_of(operand).kind is not Kind.BOOL for operand in site.node.all_input_nodes):
        raise site.unsupported("logic of the bits of secret integers has no rule; of truth values it has")


def _truths(site: Site, a: Value, b: Value) -> Step[tuple[Value, Value]]:
    """Both operands as truth values, in the rounds of one."""
    return (yield from together(_truth(site, 0, a), _truth(site, 1, b)))


def _truth(site: Site, index: int, value: Value) -> Step[Value]:
    """A truth value as it is, of a number whether it is not 0."""
    if not isinstance(value, Shared):
        return torch.as_tensor(value) != 0
    if type_of(site.node.args[index]).kind is Kind.BOOL:  # type: ignore[arg-type]
        return value
    zero = yield from site.p.is_zero(value, bound=site.bound(index))
    return (yield from site.p.from_bits(site.p.invert(zero)))[0]


def _sum_less(site: Site, a: Value, b: Value, times: int) -> Step[Shared]:
    """a + b - times * ab: "or" with 1, "one of the two" with 2."""
    both = yield from _bit_product(site, a, b)
    return site.p.sub(total(site, _as_integer(a), _as_integer(b)), site.p.scale(both, times))


def _as_integer(value: Value) -> Value:
    return value.long() if isinstance(value, Tensor) else value


def _bit_product(site: Site, a: Value, b: Value) -> Step[Shared]:
    if isinstance(a, Shared) and isinstance(b, Shared):
        return (yield from site.p.mul(a, b, frac=0))
    secret, public = (a, b) if isinstance(a, Shared) else (b, a)
    assert isinstance(secret, Shared)
    return site.p.scale(secret, torch.as_tensor(public).long())


@rule("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar", bound=largest(1, 2))
def _where(site: Site, condition: Value, a: Value, b: Value) -> Step[Shared]:
    return (yield from choose(site, condition, a, b))


@rule("aten.masked_fill.Scalar", "aten.masked_fill.Tensor", bound=largest(0, 2))
def _masked_fill(site: Site, x: Value, mask: Value, value: Value) -> Step[Shared]:
    return (yield from choose(site, mask, value, x))


def choose(site: Site, condition: Value, a: Value, b: Value) -> Step[Shared]:
    """a where the condition holds, b elsewhere, exactly: b + condition * (a - b)."""
    p, frac = site.p, site.p.frac if site.real else 0
    if isinstance(condition, Shared):
        if not isinstance(a, Shared) and not isinstance(b, Shared):
            return _choose_constants(site, condition, a, b, frac)
        gap = _gap(site, _lifted(site, a), _lifted(site, b))
        gap = gap if gap.frac == frac else p.rescale(gap, frac)
        chosen = yield from p.mul(condition, gap, frac=frac)
        return total(site, chosen, b)
    keep = torch.as_tensor(condition).long()
    terms: list[Value] = []
    for value, where in ((a, keep), (b, 1 - keep)):
        if isinstance(value, Shared):
            terms.append(p.scale(site.as_real(value) if site.real else value, where))
        else:
            terms.append(torch.as_tensor(value) * where)
    return total(site, terms[0], terms[1])


def _lifted(site: Site, value: Value) -> Value:
    if isinstance(value, Shared):
        return site.as_real(value) if site.real else value
    assert value is not None
    return torch.as_tensor(value, dtype=torch.float64) if site.real else value


def _choose_constants(site: Site, condition: Shared, a: Value, b: Value, frac: int) -> Shared:
    """Two public values: their encodings are integers, so the choice is local."""
    high, low = (torch.as_tensor(v, dtype=torch.float64) for v in (a, b))
    step = site.encode(high, frac) - site.encode(low, frac)
    most = fixed_point.limit(site.p.ring, frac)
    return site.p.add_public(site.p.scale(condition, step).with_frac(frac), low.clamp(-most, most))


@rule("aten.maximum.default", "aten.max.other", bound=largest(0, 1))
def _maximum(site: Site, a: Value, b: Value) -> Step[Shared]:
    return (yield from _extreme(site, a, b, largest=True))


@rule("aten.minimum.default", "aten.min.other", bound=largest(0, 1))
def _minimum(site: Site, a: Value, b: Value) -> Step[Shared]:
    return (yield from _extreme(site, a, b, largest=False))


def _extreme(site: Site, a: Value, b: Value, *, largest: bool) -> Step[Shared]:
    """b + [a > b] (a - b), or with [a < b]: exact."""
    p = site.p
    gap = _gap(site, _lifted(site, a), _lifted(site, b))
    bound = site.bound(0) + site.bound(1)
    bit = yield from p.negative(p.neg(gap) if largest else gap, bound=bound)
    return total(site, (yield from p.select(bit, gap)), b)
