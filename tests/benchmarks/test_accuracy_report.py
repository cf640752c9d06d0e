"""The report: table, targets, places; that a stopped run goes on; that docs/accuracy.md says what was measured."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fidelity import record, report
from fidelity.part import Part, Row, Work
from fidelity.record import Record, every

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("accuracy_script", ROOT / "benchmarks" / "accuracy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Told(Part):
    """A part whose figures are made up; it breaks down after so many."""

    def __init__(self, name: str, figures: Row, breaks_after: int = 99) -> None:
        self.name, self.figures, self.left = name, figures, breaks_after
        self.asked: list[tuple[str, str]] = []

    def facts(self) -> dict[str, Any]:
        facts = {"network": "made up", "parameters": 1234567, "training": "no time", "weights": "ab"}
        if self.name == "bert":
            return facts | {"examples": 500, "groups": ["a", "b"]}
        more = {"tokens": 4096, "bytes_per_token": 2.5, "by_frequency": 300.0, "prompts": 50, "new": 16}
        return facts | more

    def reference(self) -> Row:
        return self.measure("", "float")

    def measure(self, approx: str, interpretation: str) -> Row:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.asked.append((approx, interpretation))
        plain = {"perplexity": 20.0, "change": 0.0, "equal": 50, "accuracy": 0.8}
        found = plain if interpretation == "float" else self.figures
        return {"same_next": 1.0, "largest": 0.001, "mean": 0.0, "violations": 0, "odd": [], "other": 1} | plain | found


def made(name: str, tmp_path: Path, **figures: Any) -> Record:
    part = Told(name, figures)
    machine = {"cpu": "abacus", "cores": 1, "system": "none"}
    kept = Record(name, part.facts(), machine, {"hush": "0"})
    record.fill(kept, part, tmp_path / f"{name}.json", lambda line: None)
    return kept


def test_table_has_every_interpretation_of_both_sets(tmp_path: Path) -> None:
    text = report.block(
        [made("gpt2", tmp_path, perplexity=20.01, change=0.0005), made("bert", tmp_path, accuracy=0.798)]
    )
    assert "| gpt2 | perplexity | `default` | 20.0000 | 20.0100 | 20.0100 | 20.0100 | 0 |" in text
    assert "| gpt2 | its change | `puma` | +0.0000% | +0.0500% | +0.0500% | +0.0500% | 0 |" in text
    assert "| bert | accuracy | `puma` | 0.8000 | 0.7980 | 0.7980 | 0.7980 | 0 |" in text
    assert "1,234,567 parameters" in text
    assert "- gpt2, bert: " in text
    assert "abacus" in text


@pytest.mark.parametrize(
    ("name", "figures", "met"),
    [
        ("gpt2", {"perplexity": 20.019, "change": 0.00095, "equal": 48}, [True, True, True]),
        ("gpt2", {"perplexity": 20.019, "change": -0.0011, "equal": 48}, [False, True, True]),
        ("llama", {"perplexity": 19.979, "change": 0.0, "equal": 47}, [True, False, False]),
        ("bert", {"accuracy": 0.79}, [True]),
        ("bert", {"accuracy": 0.812}, [False]),
    ],
)
def test_what_was_missed_is_said(tmp_path: Path, name: str, figures: dict[str, Any], met: list[bool]) -> None:
    kept = made(name, tmp_path, **figures)
    assert [target.met for target in report.targets(kept)] == met
    assert report.block([kept]).count("**MISSED**") == met.count(False)


def test_kinds_of_pairs_are_told_apart(tmp_path: Path) -> None:
    kept = made("bert", tmp_path)
    kept.part = "minilm"
    kept.facts = {"network": "all", "pairs": 2, "sentences": 3, "lengths": {"16": 3}}
    kept.rows = {name: {"correlation": 1 - 3e-8, "largest": 0.1, "mean": 0, "violations": 0} for name in kept.rows}
    kept.rows["float"]["means"] = {"related": 0.4}
    text = report.block([kept])
    assert "2 pairs of 3 sentences, by tokens: 3 of up to 16; mean similarity in float: related 0.40" in text
    assert "| minilm | 1 - correlation of the similarities | `default` | 3.0e-08 |" in text
    assert report.targets(kept) == []


def test_continuations_that_differ_are_listed(tmp_path: Path) -> None:
    odd = [{"prompt": 3, "position": 5, "gap": 0.00123}]
    text = report.block([made("llama", tmp_path, odd=odd, equal=49)])
    assert "- llama, `default`: prompt 3 at its token 6, where float prefers its own by 0.0012" in text


def test_the_block_is_put_in_its_place() -> None:
    page = f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\nrest\n"
    once = report.inserted(page, "new\n")
    assert once == f"# Title\n\n{report.BEGIN}\n\nnew\n\n{report.END}\n\nrest\n"
    assert report.inserted(once, "new\n") == once
    with pytest.raises(ValueError, match="no place"):
        report.inserted("# Title\n", "new\n")


def test_a_stopped_run_goes_on(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(tmp_path, False, lambda line: None)
    first, second = Told("gpt2", {}, breaks_after=3), Told("gpt2", {})
    monkeypatch.setitem(script.PARTS, "gpt2", lambda work: first)
    with pytest.raises(KeyboardInterrupt):
        script.measured("gpt2", work)
    monkeypatch.setitem(script.PARTS, "gpt2", lambda work: second)
    kept = script.measured("gpt2", work)
    assert kept.complete
    assert first.asked + second.asked == list(every())
    third = Told("gpt2", {})
    monkeypatch.setitem(script.PARTS, "gpt2", lambda work: third)
    script.measured("gpt2", work)
    assert third.asked == []
    script.measured("gpt2", work, again=True)
    assert third.asked == list(every())


def test_figures_of_another_network_are_not_gone_on_with(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(tmp_path, False, lambda line: None)
    for weights in ("ab", "cd"):
        part = Told("bert", {})
        facts = part.facts() | {"weights": weights}
        monkeypatch.setattr(part, "facts", lambda facts=facts: facts)
        monkeypatch.setitem(script.PARTS, "bert", lambda work, part=part: part)
        script.measured("bert", work)
        assert part.asked == list(every())


# ---------------------------------------------------------------------- what is committed
def test_the_page_has_the_committed_figures(script: ModuleType) -> None:
    page, expected = script.PAGE.read_text(), report.block(script.committed())
    assert report.inserted(page, expected) == page, "run `python benchmarks/accuracy.py --write`"
    assert [kept.part for kept in script.committed()] == list(script.PARTS)


def test_the_committed_figures_reach_what_was_to_be_reached(script: ModuleType) -> None:
    for kept in script.committed():
        assert all(target.met for target in report.targets(kept)), kept.part
        assert kept.row("default", "fixed")["violations"] == 0
