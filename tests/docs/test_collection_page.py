"""docs/collection.md is made from what was measured, and has a row for every network and every claim."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import collection  # noqa: E402
from claims import claim  # noqa: E402

from hush.models import registry  # noqa: E402

MADE = json.loads((ROOT / "benchmarks" / "results" / "collection.json").read_text())


def test_the_committed_page_is_what_the_script_makes() -> None:
    assert (ROOT / "docs" / "collection.md").read_text() == collection.page(MADE), "benchmarks/collection.py --page"


def test_every_network_and_claim_was_measured() -> None:
    assert set(MADE["rows"]) == {entry.id for entry in registry.collection()}
    assert set(MADE["claims"]) == set(claim.names())


def test_what_was_measured_was_predicted_and_within_bounds() -> None:
    for row in MADE["rows"].values():
        assert row["predicted"] == {key: row[key] for key in ("rounds", "bytes_sent", "messages")}
        assert row["max_abs_err"] <= row["err_bound"]
    assert all(row["holds"] for row in MADE["claims"].values())
