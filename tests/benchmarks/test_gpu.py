"""`benchmarks/gpu.py`: all parts run in Triton's interpreter at toy sizes; what fails is told and the rest goes on."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hush.parties.profile import Exchange, Kind, Op, Profile, Span

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton"),
]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, str(SCRIPT), *options], env=environment, capture_output=True, text=True)


def test_all_parts_run_in_the_interpreter(tmp_path: Path) -> None:
    done = run("--quick", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "failed:" not in done.stdout + done.stderr, done.stderr[-2000:]
    rows = "int8 limbs, the second's kept", "int8 residues, the second's kept", "int64 SIMT", "keystream", "gelu"
    for name in (*rows, "stacked limbs", "GPT-2, 32 + 1", "BERT base, 128", "two layers", "32 blocks, predicted"):
        assert name in done.stdout
    for name in ("Triton, interpreted", "toy sizes", "SIGMA", "PUMA"):
        assert name in done.stdout
    made = json.loads((tmp_path / "gpu.json").read_text())
    assert (tmp_path / "gpu.md").read_text() == done.stdout.removesuffix("\n")
    from gpu.plan import PARTS

    assert list(made["parts"]) == [part.name for part in PARTS]
    parts = {name: part["found"] for name, part in made["parts"].items()}
    assert parts["products/squares"]["exact, 2^64"] is parts["products/squares"]["exact, 2^32"] is True
    for name in ("networks/toy", "networks/gpt2", "networks/bert", "cpu/bert", "cpu/gpt2"):
        row = parts[name]["memory"]
        assert row["as_predicted"]
        assert row["max_abs_err"] < 5e-3
        for turn in row["profile"].values():
            assert sum(turn["shares"].values()) == pytest.approx(1.0)
    for name in ("llama/blocks", "llama/whole", "cpu/llama"):
        assert all(row["as_predicted"] for key, row in parts[name].items() if "predicted" not in key)


def test_what_it_is_asked_for() -> None:
    listed = run("--list")
    assert listed.returncode == 0
    assert "llama/whole" in listed.stdout
    unknown = run("--only", "steps,nothing")
    assert unknown.returncode == 2
    assert "no part 'nothing': there are products/squares, " in unknown.stderr


# ---------------------------------------------------------------------- the plan
@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    return importlib.import_module("gpu.plan")


def test_parts_are_chosen_by_names_and_halves(plan: Any) -> None:
    names = [part.name for part in plan.chosen("llama, products/tiles")]
    assert names == ["llama/blocks", "products/tiles", "llama/whole"]
    assert plan.chosen("") == list(plan.PARTS)


def parts(plan: Any, *runs: Callable[..., Any], takes: float = 1.0) -> list[Any]:
    return [plan.Part(f"part/{number}", run, takes) for number, run in enumerate(runs)]


def breaks(job: Any) -> Any:
    yield "before", 1.5
    raise RuntimeError("an illegal memory access")


def works(job: Any) -> Any:
    yield "all of it", {"seconds": 2.0}


def test_a_part_that_fails_is_written_down_and_the_rest_goes_on(plan: Any) -> None:
    found, kept = dict[str, Any](), list[list[str]]()
    plan.Plan(True, plan.FOREVER, found, lambda: kept.append(list(found))).carry_out(parts(plan, breaks, works))
    assert found["part/0"]["found"] == {"before": 1.5}
    assert found["part/0"]["failed"] == "RuntimeError: an illegal memory access"
    assert found["part/1"]["found"] == {"all of it": {"seconds": 2.0}}
    assert kept == [["part/0"], ["part/0", "part/1"]]


def test_what_does_not_fit_the_budget_is_skipped_and_older_results_stay(plan: Any) -> None:
    older = {"found": {"x": 1}}
    found = {"part/0": older}
    plan.Plan(False, 50.0, found, lambda: None).carry_out(parts(plan, works, works, takes=100.0))
    assert found["part/0"] is older
    assert found["part/1"] == {"skipped": "takes about 100 s, and 50 s were left of the budget"}


CHILD = """
import sys, time
print("something else")
print('finding: ["a", 1]', flush=True)
print('finding: ["a", 2]', flush=True)
%s
"""


@pytest.mark.parametrize(
    ("end", "failed"),
    [
        ("", None),
        ('print(\'finding: ["", "RuntimeError: no"]\'); sys.exit(1)', "RuntimeError: no"),
        ("sys.exit(3)", "its process ended with status 3"),
        ("time.sleep(60)", "ended after 6 s, which was all of the budget"),
    ],
)
def test_a_part_has_a_process_of_its_own(end: str, failed: str | None, plan: Any, tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD % end)
    found, kept = dict[str, Any](), list[int]()
    plan.Plan(False, 6.0, found, lambda: kept.append(1), script).carry_out(parts(plan, works))
    assert found["part/0"]["found"] == {"a": 2}
    assert found["part/0"].get("failed") == failed
    assert len(kept) >= 3


def test_a_parts_own_process_tells_what_it_finds(
    plan: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "PARTS", parts(plan, breaks, works))
    assert plan.alone("part/1", 100.0) == 0
    assert capsys.readouterr().out == 'finding: ["all of it", {"seconds": 2.0}]\n'
    with pytest.raises(RuntimeError, match="illegal"):
        plan.alone("part/0", 100.0)
    assert capsys.readouterr().out.splitlines()[-1] == 'finding: ["", "RuntimeError: an illegal memory access"]'


# ---------------------------------------------------------------------- what is made of findings
def profile(*rows: tuple[str, Kind, int]) -> Profile:
    spans, at = list[Span](), 0
    for name, kind, ms in rows:
        spans.append(Span(Op(name, "layer"), kind, at, ms * 1_000_000))
        at += ms * 1_000_000
    first = spans[0]
    return Profile(0, tuple(spans), (Exchange((first.op,), (64,), (first,), 1),), 0)


def test_time_is_shared_out_by_category() -> None:
    from gpu.categories import categories, longest

    made = profile(
        ("hush.affine", Kind.COMPUTE, 30),
        ("hush.affine", Kind.SEND, 5),
        ("hush.affine", Kind.COPY, 4),
        ("aten.bmm.default", Kind.COMPUTE, 10),
        ("aten.gelu.default", Kind.COMPUTE, 20),
        ("aten.gelu.default", Kind.WAIT_NEXT, 10),
        ("aten.gelu.default", Kind.COPY, 6),
        ("hush.attend", Kind.COMPUTE, 5),
        ("(checks)", Kind.WAIT_PREV, 10),
    )
    found = categories([made] * 3)
    assert found == pytest.approx({"GEMM": 0.4, "nonlinear": 0.25, "copy": 0.1, "network": 0.25})
    half = profile(("hush.affine", Kind.COMPUTE, 100))
    assert categories([made, half]) == pytest.approx({"GEMM": 0.7, "nonlinear": 0.125, "copy": 0.05, "network": 0.125})
    assert longest([made])["affine"] == {"seconds": 0.039, "compute": 0.03, "send": 0.005, "wait": 0.0, "copy": 0.004}


@pytest.mark.parametrize(
    ("name", "due"),
    [
        ("NVIDIA H200", 989.5),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 366.5),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 3060", None),
    ],
)
def test_peaks_are_found_by_a_cards_name(name: str, due: float | None) -> None:
    from gpu.card import peak

    assert peak(name) == due


def test_targets_are_reached_missed_or_not_measured() -> None:
    from gpu.page import page, targets

    assert [row[-1] for row in targets({})] == ["not measured"] * 4
    limbs = {"4096^3, 2^64, int8 limbs": 12.0, "4096^3, 2^64, int8 limbs, the second's kept": {"failed": "no"}}
    turn = {"secure_s": 19.0, "rounds": 7}
    whole = {"32 blocks": {"secure_s": 21.0, "rounds": 7, "tokens": [turn]}}
    blocks = {"32 blocks, predicted": {"secure_s": 5.0, "rounds": 7, "tokens": [turn], "predicted": "so"}}
    gpt2 = {"grpc": {"secure_s": 1.6, "rounds": 7}, "memory": {"secure_s": 1.2, "rounds": 7}}
    made = {
        "products/squares": {"found": limbs | {"4096^3, 2^64, int8 residues": 30.0, "exact, 2^64": True}},
        "networks/gpt2": {"found": gpt2},
        "llama/blocks": {"found": blocks},
    }
    rows = targets(made)
    assert [row[-1] for row in rows] == ["missed", "reached", "reached", "reached"]
    assert ("(memory)" in rows[2][0], "(predicted)" in rows[3][0]) == (True, True)
    assert "(predicted)" not in targets(made | {"llama/whole": {"found": whole}})[3][0]
    card = {"name": "NVIDIA H200", "versions": {}, "int8_peak": 989.5, "peak_source": "a sheet", "memory_gib": 139.8}
    machine = {"cpu": "a CPU", "cores": 16, "system": "Linux"}
    text = page({"card": card, "machine": machine, "parts": made | {"steps": {"skipped": "no time"}}})
    assert "| 4096^3 | 2^64 | int8 limbs | 12 | 36 | 43.7% |" in text
    assert "| failed: no | 36 |" in text
    assert "- steps: skipped: no time" in text
