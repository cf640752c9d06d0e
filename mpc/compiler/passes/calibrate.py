"""Types: shapes and magnitudes from running the graph on examples, tightened by what each op can produce at all.

A calibrated bound is MARGIN times the largest magnitude seen, rounded up to a power of two: it is public, so it is
part of what a program declares to leak. Bounds that follow from the op alone leak nothing.

Examples cannot show what a secret integer or bit may become: one whose mask keeps everything shows neither the minus C
of a masked score nor a short row's count. So whatever is made of secret integers and public values alone takes the
bound that its ops prove from the declared input, and so does whatever such a value widens by being added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from hush.mpc.compiler.capture import Draft
from hush.mpc.compiler.interpret import evaluate
from hush.mpc.compiler.ops import is_op
from hush.mpc.compiler.passes.lookups import travels, vocabularies
from hush.mpc.compiler.passes.masks import HUGE
from hush.mpc.compiler.passes.rewrite import visibilities
from hush.mpc.compiler.rules.bounds import proven_bound
from hush.mpc.compiler.types import META, VOCABULARY, Kind, Type, Visibility, dtype_name, kind_of
from hush.mpc.errors import RangeError
from hush.mpc.ring import Ring

MARGIN = 4.0
DIVIDES = tuple(
    f"aten.{op}"
    for op in (
        "div.Tensor",
        "div.Scalar",
        "reciprocal.default",
        "rsqrt.default",
        "log.default",
        "log2.default",
        "pow.Tensor_Scalar",
    )
)
"""Ops that need to know how small a magnitude gets."""
_UNUSED = 2**31  # a bound for a place that a step does not look up
_LEAST = 2.0**-6

_CALIBRATED_RESULTS = (
    "hush.affine",
    "hush.affine_plus",
    "hush.matmul",
    "hush.rms_norm",
    *(
        f"aten.{op}.default"
        for op in ("embedding", "layer_norm", "group_norm", "instance_norm", "conv1d", "conv2d", "transpose", "einsum")
    ),
    "aten.transpose.int",
)
"""Ops whose rules ask nothing about the size of their weights."""


@dataclass(slots=True)
class Seen:
    """What a node showed on the examples."""

    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32
    most: float = 0.0
    least: float = math.inf
    bits: bool = True  # an integer tensor that was 0 or 1 throughout
    whole: bool = True  # numbers without a fraction

    def update(self, value: Any, *, divides: bool) -> None:
        """Take one more example's value into account; entries that a mask makes huge do not count.

        Of several results of one op all count, and the first one's shape and dtype stand for them. `divides`: also how
        small magnitudes get, and whether they are whole, which nobody else asks.
        """
        if isinstance(value, list | tuple):
            for part in reversed(value):
                self.update(part, divides=divides)
        if not isinstance(value, Tensor):
            return
        self.shape, self.dtype = tuple(value.shape), value.dtype
        if not value.numel():
            return
        finite = value if value.is_floating_point() else value.double()
        low, high = (float(edge) for edge in torch.aminmax(finite))
        if not (low > 1e30 * HUGE and high < math.inf):
            finite = finite.double().nan_to_num(0.0, 0.0, 0.0)
            finite = torch.where(finite <= 1e30 * HUGE, 0.0, finite)
            low, high = (float(edge) for edge in torch.aminmax(finite))
        self.most = max(self.most, abs(low), abs(high))
        self.bits = self.bits and not value.is_floating_point() and 0 <= low <= self.most <= 1
        if divides:
            self.least = min(self.least, float(finite.abs().min()))
            self.whole = self.whole and bool((finite == finite.round()).all())


def observe(draft: Draft, samples: Sequence[Sequence[Any]]) -> dict[fx.Node, Seen]:
    """Run the graph on every sample (values of the placeholders) and collect what each node showed."""
    seen: dict[fx.Node, Seen] = {}
    who = visibilities(draft)
    weights = {n for n in who if who[n] is Visibility.WEIGHT and _unbounded(n, who)}

    def watch(node: fx.Node, value: Any) -> None:
        shown = seen.setdefault(node, Seen())
        if node in weights and isinstance(value, Tensor):  # nobody asks how large they are, and they are large tensors
            shown.shape, shown.dtype = tuple(value.shape), value.dtype
        else:
            shown.update(value, divides=any(is_op(user, *DIVIDES) for user in node.users))

    for sample in samples:
        evaluate(draft.graph, sample, draft.tensors, watch)
    return seen


def score_bound(draft: Draft, samples: Sequence[Sequence[Any]]) -> float:
    """MARGIN times the largest score that any softmax of the graph sees, masked entries aside."""
    largest = 0.0

    def watch(node: fx.Node, value: Any) -> None:
        nonlocal largest
        if (
            any(is_op(u, "hush.softmax") for u in node.users)
            and isinstance(value, Tensor)
            and value.is_floating_point()
        ):
            kept = torch.where(value <= HUGE, torch.zeros_like(value), value)
            largest = max(largest, float(kept.nan_to_num(0.0, 0.0, 0.0).abs().max()))

    for sample in samples:
        evaluate(draft.graph, sample, draft.tensors, watch)
    return MARGIN * largest


@dataclass(slots=True)
class Typing:
    """What the typing pass needs beside the graph."""

    samples: Sequence[Sequence[Any]]
    ring: Ring
    frac: int
    explicit: Mapping[str, float] = field(default_factory=dict)
    lookup: str = "auto"


def assign_types(draft: Draft, typing: Typing) -> str:
    """Give every node its type."""
    seen, who = observe(draft, typing.samples), visibilities(draft)
    beyond = Beyond(who)
    for node in draft.graph.nodes:
        if node.op == "output":
            continue
        node.meta[META] = _type(draft, node, seen[node], beyond, typing)
        beyond.note(node, power_of_two(MARGIN * seen[node].most))
    calibrated = [n for n in draft.graph.nodes if n.op == "call_function" and _leaks(n)]
    return f"ranges: {len(calibrated)} bounds calibrated on {len(typing.samples)} example(s), the rest follow from ops"


def _leaks(node: fx.Node) -> bool:
    typed: Type = node.meta[META]
    return typed.visibility is Visibility.SECRET and not typed.proven


class Beyond:
    """Nodes whose range examples cannot be trusted to show.

    `declared`: made of secret integers and public values alone, so that the ops' own bounds hold from the input on.
    `widened`: larger than calibrated, because something declared was added on the way.
    """

    def __init__(self, who: Mapping[fx.Node, Visibility]) -> None:
        self.who = who
        self.declared: set[fx.Node] = set()
        self.widened: set[fx.Node] = set()

    def untrusted(self, node: fx.Node) -> bool:
        """Whether the bound that the ops prove must be taken, even where examples showed less."""
        secret = [n for n in node.all_input_nodes if self.who[n] is Visibility.SECRET]
        added = is_op(node, *_ADDS) and any(n in self.declared for n in secret)
        return self._of_declared(node) or added or any(n in self.widened for n in secret)

    def note(self, node: fx.Node, calibrated: float) -> None:
        """Sort a node that has its type."""
        typed: Type = node.meta[META]
        if self.who[node] is not Visibility.SECRET:
            return
        integer_input = node.op == "placeholder" and typed.kind is not Kind.REAL
        if integer_input or self._of_declared(node):
            self.declared.add(node)
        elif node.op == "call_function" and self.untrusted(node) and typed.bound > calibrated:
            self.widened.add(node)

    def _of_declared(self, node: fx.Node) -> bool:
        operands = node.all_input_nodes
        secret = [n for n in operands if self.who[n] is Visibility.SECRET]
        weights = any(self.who[n] is Visibility.WEIGHT for n in operands)
        return bool(secret) and not weights and all(n in self.declared for n in secret)


_ADDS = tuple(f"aten.{op}" for op in ("add.Tensor", "sub.Tensor", "rsub.Tensor"))


def _type(draft: Draft, node: fx.Node, shown: Seen, beyond: Beyond, typing: Typing) -> Type:
    kind, who = kind_of(shown.dtype), beyond.who[node]
    if node.op == "placeholder" and str(node.target) in draft.places:
        kind = Kind.PLACE
    elif who is Visibility.SECRET and (chosen := travels(node)) is not None:
        kind = chosen
    elif node.op == "placeholder" and kind is Kind.INT and shown.bits and str(node.target) not in typing.explicit:
        kind = Kind.BOOL
    bound, proven = _bound(draft, node, beyond, kind, shown, typing)
    if who is Visibility.SECRET and kind is Kind.REAL:
        _fits(node, shown, typing)
    frac = typing.frac if kind is Kind.REAL else 0
    divides = kind is Kind.REAL and who is Visibility.SECRET and any(is_op(u, *DIVIDES) for u in node.users)
    floor = _floor(node, shown, frac, beyond) if divides else 0.0
    return Type(who, kind, shown.shape, dtype_name(shown.dtype), bound, frac, typing.ring.bits, proven, floor)


def _floor(node: fx.Node, shown: Seen, frac: int, beyond: Beyond) -> float:
    """1/MARGIN of the smallest magnitude seen, rounded down to a power of two, at least one unit; 1 for a count."""
    if beyond.untrusted(node):
        return 1.0 if shown.whole else 2.0**-frac
    if not 0 < shown.least < math.inf:
        return 2.0**-frac
    return float(max(2.0 ** math.floor(math.log2(shown.least / MARGIN)), 2.0**-frac))


def _bound(draft: Draft, node: fx.Node, beyond: Beyond, kind: Kind, shown: Seen, typing: Typing) -> tuple[float, bool]:
    who = beyond.who[node]
    if node.op == "placeholder":
        return _input_bound(draft, node, kind, shown, typing)
    if who is Visibility.WEIGHT:
        return _weight_bound(node, shown, beyond.who)
    if node.op == "get_attr":
        return shown.most, True
    derived = proven_bound(node)
    calibrated = power_of_two(MARGIN * shown.most)
    if derived is not None and (kind is not Kind.REAL or derived <= calibrated or beyond.untrusted(node)):
        return derived, True
    return calibrated, False


def _weight_bound(node: fx.Node, shown: Seen, who: Mapping[fx.Node, Visibility]) -> tuple[float, bool]:
    """A weight's largest entry must not be in the program. Only where a rule needs a bound is its power of two."""
    return (math.inf, True) if _unbounded(node, who) else (power_of_two(shown.most), False)


def _unbounded(weight: fx.Node, who: Mapping[fx.Node, Visibility]) -> bool:
    """Whether no rule asks for a weight's bound; what weights make of weights, the provider computes without one."""
    return all(
        user.op == "output" or who[user] is Visibility.WEIGHT or is_op(user, *_CALIBRATED_RESULTS)
        for user in weight.users
    )


def _input_bound(draft: Draft, node: fx.Node, kind: Kind, shown: Seen, typing: Typing) -> tuple[float, bool]:
    if kind in VOCABULARY or kind is Kind.PLACE:
        return float(min(vocabularies(node), default=_UNUSED)), True
    if kind is Kind.BOOL:
        return 1.0, True
    if node.target in typing.explicit:
        return float(typing.explicit[str(node.target)]), True
    return power_of_two(MARGIN * shown.most), False


def power_of_two(value: float) -> float:
    """The smallest power of two that is not below the value (nor below 2^-6)."""
    return float(2.0 ** math.ceil(math.log2(max(value, _LEAST))))


def _fits(node: fx.Node, shown: Seen, typing: Typing) -> None:
    """Values beyond 2^(k-2-2f) cannot enter a product without wrapping around."""
    top = 2.0 ** (typing.ring.bits - 2 - 2 * typing.frac)
    if shown.most > top:
        raise RangeError(
            f"{node.name} ({node.target}) takes values up to {shown.most:g}, and fixed point with {typing.frac} "
            f"fraction bits holds {top:g} at most: scale the model's activations down"
        )
