"""docs/ops.md: every op that may touch a secret, from the compiler's own tables.

python benchmarks/op_table.py           # print the page
python benchmarks/op_table.py --write   # write docs/ops.md
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterable
from pathlib import Path

from hush.mpc.compiler.passes.canonical import REWRITES
from hush.mpc.compiler.rules import RULES, Rule

PAGE = Path(__file__).parents[1] / "docs" / "ops.md"
HEAD = """\
# Ops

Made by `python benchmarks/op_table.py --write` from the rule tables (`hush.mpc.compiler.rules.RULES`) and the rewrites
of the canonical form; `tests/docs/test_op_table.py` makes it again and compares.

An op is listed if it may take a **secret** operand. What depends on public values or on weights alone is evaluated by
torch and needs no rule. An op that is not listed is taken apart by torch's own decompositions as far as they go
(`mpc/compiler/decompose.py`); what then remains without a rule is one error, which names op, module path and source
line.

"Bound": *proven* where the largest magnitude of the result follows from the op, whatever the input; else it is
calibrated on examples, and declared as leakage ([threat-model.md](threat-model.md)). "Takes": *ids*, if token ids may
come as keys or one-hot rows; *integers*, if integers and bits come without fraction bits, so that products with them
are exact. Costs are in [costs.md](costs.md); a program's own are shown by `hush inspect`. Names that begin with `hush.`
are ops that passes put in the place of several.
"""


def main() -> int:
    """Print the page, or write it; exit status."""
    parser = argparse.ArgumentParser(description="The table of ops.")
    parser.add_argument("--write", action="store_true", help="write docs/ops.md")
    if parser.parse_args().write:
        PAGE.write_text(page())
    else:
        sys.stdout.write(page())
    return 0


def page() -> str:
    """docs/ops.md."""
    parts = [HEAD]
    for module in dict.fromkeys(rule.body.__module__ for rule in RULES.values()):
        title = (importlib.import_module(module).__doc__ or module).splitlines()[0].rstrip(".")
        rows = "\n".join(_row(names, rule) for names, rule in _groups(module))
        file = module.removeprefix("hush.").replace(".", "/") + ".py"
        parts.append(f"## {title}\n\n`{file}`\n\n| ops | rule | bound | takes |\n|---|---|---|---|\n{rows}\n")
    rewritten = ", ".join(f"`{_short(name)}`" for name in sorted(REWRITES) if name not in RULES)
    rewrites = "## Rewritten before rules apply\n\n`mpc/compiler/passes/canonical.py`: no-ops, and ops made of others."
    parts.append(f"{rewrites}\n\n{rewritten}.\n")
    return "\n".join(parts)


def _groups(module: str) -> Iterable[tuple[list[str], Rule]]:
    """Ops of one rule together, in the order of the table."""
    groups: dict[int, tuple[list[str], Rule]] = {}
    for name, rule in RULES.items():
        if rule.body.__module__ == module:
            groups.setdefault(id(rule.body), ([], rule))[0].append(name)
    return groups.values()


def _row(names: list[str], rule: Rule) -> str:
    said = (rule.body.__doc__ or "as torch").strip().splitlines()[0].replace("|", "\\|")
    takes = [word for word, flag in (("ids", rule.onehot), ("integers", rule.exact)) if flag]
    bound = "proven" if rule.bound is not None else "calibrated"
    return f"| {', '.join(f'`{_short(name)}`' for name in names)} | {said} | {bound} | {', '.join(takes)} |"


def _short(name: str) -> str:
    """`gelu` of aten.gelu.default, `add.Tensor` of aten.add.Tensor."""
    return name.removeprefix("aten.").removesuffix(".default")


if __name__ == "__main__":
    sys.exit(main())
