"""Ops that no rule and no pass knows are taken apart by torch itself, as far as it has a decomposition for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from hush.mpc.compiler.ops import op_name
from hush.mpc.compiler.passes.canonical import REWRITES
from hush.mpc.compiler.passes.public import SIMPLIFIED
from hush.mpc.compiler.rules import RULES

_DEPTH = 8  # of decompositions of decompositions


def known(name: str) -> bool:
    """Whether the compiler has a rule or a rewrite for an op, or it is about shapes alone."""
    return name in RULES or name in REWRITES or name in SIMPLIFIED or name.startswith("aten.sym_")


def take_apart(exported: ExportedProgram) -> ExportedProgram:
    """Replace unknown ops by what torch makes of them, and what that is made of, until all are known or whole.

    Only ops that an argument of the call flows into: constants and weights are evaluated by torch itself.
    """
    for _ in range(_DEPTH):
        table = _decompositions(exported)
        if not table:
            break
        exported = exported.run_decompositions(table)
    return exported


def _decompositions(exported: ExportedProgram) -> dict[Any, Callable[..., Any]]:
    unknown = {target for target in _reached(exported) if isinstance(target, OpOverload) and not known(op_name(target))}
    if not unknown:
        return {}
    every = torch.export.default_decompositions()
    return {target: every[target] for target in unknown if target in every}


def _reached(exported: ExportedProgram) -> set[Any]:
    """Targets of the calls whose value depends on an argument of the module."""
    specs = exported.graph_signature.input_specs
    arguments = {spec.arg.name for spec in specs if spec.kind is InputKind.USER_INPUT}
    reached, targets = set[Any](), set[Any]()
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in arguments:
            reached.add(node)
        elif node.op == "call_function" and any(n in reached for n in node.all_input_nodes):
            reached.add(node)
            targets.add(node.target)
    return targets
