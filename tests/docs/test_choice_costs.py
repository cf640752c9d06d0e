"""docs/generation.md says what choosing a token costs today."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_committed_table_is_what_the_script_makes() -> None:
    spec = importlib.util.spec_from_file_location("choice_costs", ROOT / "benchmarks" / "choice_costs.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (ROOT / "docs" / "generation.md").read_text()
    assert script.replaced(page, script.table()) == page, "run `python benchmarks/choice_costs.py --write`"
