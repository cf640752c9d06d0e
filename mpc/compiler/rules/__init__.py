"""What an op is on shares, and how large its values get: one table, `RULES`.

The plain interpretation is the op itself, shapes come from running it, and cost from running the secure rule under a
cost model. An op without a secure rule is an `UnsupportedOp`.
"""

from hush.mpc.compiler.rules import (
    activations,
    attention,
    contractions,
    convolutions,
    einsum,
    elementwise,
    layout,
    logic,
    lookup,
    pooling,
    rectifiers,
    reductions,
    resampling,
    scatter,
    sorting,
)
from hush.mpc.compiler.rules.table import RULES, Rule, Site, rule_for

__all__ = [
    "RULES",
    "Rule",
    "Site",
    "activations",
    "attention",
    "contractions",
    "convolutions",
    "einsum",
    "elementwise",
    "layout",
    "logic",
    "lookup",
    "pooling",
    "rectifiers",
    "reductions",
    "resampling",
    "rule_for",
    "scatter",
    "sorting",
]
