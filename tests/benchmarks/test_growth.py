"""`benchmarks/growth.py`: exponents of known growth, tables, and one real point that costs what the model says."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import growth
import pytest
import torch

import hush
from hush.models.initial import initialised
from hush.parties.cost import predicted

AXES = {"seq": (4, 8, 16, 32), "layers": (1, 2)}
BASE = growth.Shape(seq=4, batch=1, layers=1, hidden=32)


def known_point(shape: growth.Shape, idle: int, repeat: int) -> dict[str, Any]:
    """Quadratic bytes in the length, seconds in proportion, rounds that do not grow, memory with a constant part."""
    return {
        "seconds": 0.25 * shape.seq * shape.layers,
        "bytes": 3 * shape.seq**2 * shape.layers,
        "rounds": 7,
        "memory": 5 * shape.seq - idle,
        "as_predicted": shape.seq != 16,
        "max_abs_err": 0.0,
    }


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(growth, "point", known_point)
    monkeypatch.setattr(growth, "run", lambda net, call, repeat: {"peak_rss": [3, 20, 4]})
    kept: list[int] = []
    found: dict[str, Any] = growth.measured(AXES, BASE, 1, lambda made: kept.append(len(made["points"])))
    assert kept == [1, 2, 3, 4, 5]  # the base is a point of both axes, and measured once
    return found


@pytest.mark.parametrize("power", [-0.5, 0.0, 1.0, 1.7])
def test_exponents_of_powers(power: float) -> None:
    sizes = [32, 64, 128, 256, 512]
    assert growth.exponent(sizes, [9 * s**power for s in sizes]) == pytest.approx(power)
    assert growth.exponent(sizes[:2], [s**power for s in sizes[:2]]) == pytest.approx(power)


def test_the_lower_half_has_no_say() -> None:
    sizes = [1, 2, 4, 8, 16, 32]
    assert growth.exponent(sizes, [50, 50, 50, 64, 256, 1024]) == pytest.approx(2)
    assert growth.exponent(sizes, [50, 50, 100, 64, 256, 1024]) == pytest.approx(2)
    assert growth.exponent(sizes, [1, 2, 4, 64, 256, 2048]) > 2.4


def test_of_what_is_not_positive_or_a_single_point_there_is_no_exponent() -> None:
    assert growth.exponent([1, 2, 4], [1, 0, 4]) is None
    assert growth.exponent([1, 2, 4, 8], [-1, -1, 4, 8]) == pytest.approx(1)
    assert growth.exponent([4], [4]) is None


def test_every_cost_has_its_exponent(made: dict[str, Any]) -> None:
    slopes = growth.exponents(made)
    above_idle = math.log2(140 / 60)  # the upper half: 16 and 32 positions, 20 of each being a party's own
    assert slopes["seq"] == pytest.approx({"seconds": 1, "bytes": 2, "rounds": 0, "memory": above_idle})
    assert {key: slopes["layers"][key] for key in ("seconds", "bytes", "rounds")} == pytest.approx(
        {"seconds": 1, "bytes": 1, "rounds": 0}
    )
    assert slopes["layers"]["memory"] is None  # no party took more than one that runs nothing


def test_files_hold_all_of_it(made: dict[str, Any], tmp_path: Path) -> None:
    growth.write(json.loads(json.dumps(made)), tmp_path)
    text = (tmp_path / "growth.md").read_text()
    assert "| sequence length | 1.00 | 2.00 | 0.00 | 1.22 |" in text
    assert "| layers | 1.00 | 1.00 | 0.00 | - |" in text
    assert "| 32 | 8.000 | 0.0 | 7 | 0 |" in text
    assert "NOT as predicted: 16-1-1-32." in text
    assert (tmp_path / "growth.png").exists() == (importlib.util.find_spec("matplotlib") is not None)


def test_axes_are_the_issues() -> None:
    assert (growth.AXES["seq"][0], growth.AXES["seq"][-1]) == (32, 1024)
    assert (growth.AXES["batch"][0], growth.AXES["batch"][-1]) == (1, 16)
    assert set(growth.AXES) == set(growth.QUICK) == set(growth.TITLES)


def test_a_real_point_costs_what_the_model_says() -> None:
    shape = growth.Shape(seq=4, batch=2, layers=1, hidden=32)
    found = growth.point(shape, 0, 1)
    program = hush.compile(initialised(lambda: growth.Stack(shape)), (torch.randn(2, 4, 32),))
    assert found["as_predicted"]
    assert found["seconds"] > 0
    assert found["memory"] > 1 << 20
    assert found["max_abs_err"] < 1e-2
    assert found["rounds"] == predicted(program).rounds
