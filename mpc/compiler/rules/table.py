"""The table of secure rules, and what a rule sees of the node it serves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from hush.mpc import fixed_point
from hush.mpc.compiler.ops import op_name
from hush.mpc.compiler.types import Kind, Type, Visibility, layer_of, type_of
from hush.mpc.errors import UnsupportedOp
from hush.mpc.protocol import Protocol
from hush.mpc.secret import Shared

Value = Shared | Tensor | float | int | None
RuleBody = Callable[..., Any]
Bound = Callable[[fx.Node], float | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """An op on shares: `body(site, *args, **kwargs)` returns a value or a step.

    Secret operands come as `Shared`, weights as `Shared` or (public weights) as float tensors, constants as tensors and
    numbers. With `onehot`, secret integers that travel as one-hot rows come as such rows; else as integers. With
    `exact`, bits and integers that were converted to reals come without fraction bits: products with them are exact.
    `bound` (one of `rules/bounds.py`) gives the largest magnitude of the result where that follows from the op.
    """

    body: RuleBody
    onehot: bool = False
    exact: bool = False
    bound: Bound | None = None


RULES: dict[str, Rule] = {}


def rule(
    *names: str, onehot: bool = False, exact: bool = False, bound: Bound | None = None
) -> Callable[[RuleBody], RuleBody]:
    """Register the secure rule of the named ops; the options are those of `Rule`."""

    def register(body: RuleBody) -> RuleBody:
        for name in names:
            if name in RULES:
                raise ValueError(f"{name} has two rules")
            RULES[name] = Rule(body, onehot, exact, bound)
        return body

    return register


def rule_for(node: fx.Node) -> Rule:
    """The secure rule of a node; UnsupportedOp, which names op, module and source line, if there is none."""
    name = op_name(node.target)
    found = RULES.get(name)
    if found is None:
        raise UnsupportedOp(
            f"{name} has no rule for secret values.\n{place_of(node)}\n"
            "  ways out: write the module with supported ops, name its arguments in public=(...) if they are public, "
            "or add a rule (docs/adding-an-op.md)"
        )
    return found


def place_of(node: fx.Node) -> str:
    """Where a node comes from, for a message: module path and source line."""
    return f"  module: {layer_of(node) or '(top)'}\n  source: {source_of(node)}"


def source_of(node: fx.Node) -> str:
    """The innermost source line that made a node."""
    lines = [line.strip() for line in str(node.meta.get("stack_trace", "")).splitlines() if line.strip()]
    places = [i for i, line in enumerate(lines) if line.startswith("File ")]
    return " ".join(lines[places[-1] : places[-1] + 2]) if places else "unknown"


@dataclass(frozen=True, slots=True)
class Site:
    """A node as its rule sees it."""

    p: Protocol
    node: fx.Node
    approx: str

    @property
    def type(self) -> Type:
        """Type of the result."""
        return type_of(self.node)

    @property
    def real(self) -> bool:
        """Whether the result is a real number."""
        return self.type.kind is Kind.REAL

    @property
    def weighed(self) -> bool:
        """Whether a weight is among the operands: then cost must not depend on an operand's values, public or not."""
        return any(type_of(n).visibility is Visibility.WEIGHT for n in self.node.all_input_nodes)

    def bound(self, index: int, item: int | None = None) -> float:
        """Largest magnitude of an operand (of the `item`-th one, if the operand is a list)."""
        operand: Any = self.node.args[index]
        if item is not None:
            operand = operand[item]
        if isinstance(operand, fx.Node):
            return type_of(operand).bound
        return abs(float(operand))

    def encode(self, value: Tensor | float, frac: int) -> Tensor:
        """Ring elements of a public value."""
        return fixed_point.encode(value, self.p.ring, frac)

    def as_real(self, value: Shared) -> Shared:
        """A secret at the protocol's scale: integers and bits are lifted, exactly."""
        return value if value.frac == self.p.frac else self.p.rescale(value, self.p.frac)

    def secret(self, value: Value, like: Shared) -> Shared:
        """Any operand as a secret at the scale of `like`."""
        if isinstance(value, Shared):
            return value if value.frac == like.frac else self.p.rescale(value, like.frac)
        assert value is not None
        return self.p.constant(torch.as_tensor(value), frac=like.frac)

    def integer(self, value: Shared) -> Shared:
        """One-hot rows as the integers they stand for: local."""
        classes = torch.arange(value.shape[-1], device=value.device).reshape(-1, 1)
        return self.p.matmul_int(value, classes)[..., 0]

    def unsupported(self, why: str) -> UnsupportedOp:
        """The error for an op whose rule does not cover these arguments."""
        return UnsupportedOp(f"{op_name(self.node.target)}: {why}\n{place_of(self.node)}")
