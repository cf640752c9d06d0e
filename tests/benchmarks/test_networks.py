"""`benchmarks/networks.py`: what a prediction starts from, how far it was off, tokens a second, and one real row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networks
import pytest

LINES = networks.commands(("net-a", "net-b --new 3"))


def row(net: str, seconds: float, rounds: int, decode: tuple[float, ...] = ()) -> dict[str, Any]:
    cost = {"rounds": rounds, "bytes_sent": [500, 1000, 800], "messages": [1, 2, 3]}
    later = [{"secure_s": s, **cost, "predicted": cost} for s in decode]
    return {"net": net, "secure_s": seconds, **cost, "predicted": cost} | ({"decode": later} if later else {})


def test_every_shaped_row_has_the_same_program_unshaped() -> None:
    shaped = [line for line in LINES if "--net" in line]
    assert len(shaped) == 6
    for line in shaped:
        base = networks.unshaped(line)
        assert base in LINES
        assert "--net" not in base
        assert ("--schedule wan" in base) == ("--net wan --json" in line)


def test_forecasts_add_the_network_to_the_unshaped_run_step_by_step() -> None:
    local, lan = LINES[6], next(line for line in LINES[6:] if "--net lan" in line)
    rows = {local: row("none", 2.0, 100, (0.5, 0.25)), lan: row("lan", 3.0, 100, (0.75, 0.5))}
    trip = 100 * 0.2e-3 + 8 * 500 / 5e9
    found = list(networks.forecasts(rows))
    assert [f[:2] for f in found] == [(lan, "prompt"), (lan, "tokens")]
    assert found[0][2:] == (pytest.approx(2.0 + trip), 3.0)
    assert found[1][2:] == (pytest.approx(0.75 + 2 * trip), 1.25)
    assert not list(networks.forecasts({lan: rows[lan]}))  # without its unshaped row nothing is foretold


def test_tokens_a_second_are_those_after_the_first() -> None:
    assert networks.tokens_per_second(row("none", 9.0, 1, (0.5, 1.5))) == 1.0
    assert networks.tokens_per_second(row("none", 9.0, 1)) is None


def test_a_step_that_was_not_as_predicted_is_seen() -> None:
    made = row("none", 1.0, 5, (1.0, 1.0))
    assert networks.as_predicted(made)
    made["decode"][1] |= {"rounds": 6}
    assert not networks.as_predicted(made)


def test_a_real_row_joins_those_that_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "networks.json"
    output.write_text(json.dumps({"rows": {"bench older --json": row("none", 1.0, 1)}}))
    monkeypatch.setattr(networks, "WAYS", (networks.LOCAL,))
    assert networks.main(["--quick", "--only", "gpt2", "--output", str(output)]) == 0
    made = json.loads(output.read_text())
    assert list(made["rows"]) == ["bench older --json", f"bench {networks.QUICK_GPT2} --json"]
    assert all(networks.as_predicted(r) for r in made["rows"].values())
    assert {"machine", "versions", "measured", "command"} <= set(made)
