"""docs/ops.md lists the rules that there are today."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from hush.mpc.compiler.rules import RULES

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_what_the_script_makes() -> None:
    spec = importlib.util.spec_from_file_location("op_table", ROOT / "benchmarks" / "op_table.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (ROOT / "docs" / "ops.md").read_text()
    assert page == script.page(), "run `python benchmarks/op_table.py --write`"
    for name in RULES:
        assert f"`{script._short(name)}`" in page
