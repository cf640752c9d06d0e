"""`hush bench --profile`: a trace that viewers take, a picture whose widths are times, a table that adds up."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hush.parties.cli import flame, main, profiling, trace
from hush.parties.profile import Exchange, Kind, Op, Profile, Span
from hush.parties.report import RunReport

SVG = "{http://www.w3.org/2000/svg}"
MODULE = """
import torch

def build():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Linear(8, 2))
    return net, (torch.linspace(-2, 2, 12).reshape(3, 4),)
"""
HEADER = 16


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODULE)
    return tmp_path


def run(capfd: pytest.CaptureFixture[str], *args: str) -> tuple[str, str]:
    status = main(list(args))
    out, err = capfd.readouterr()
    assert status == 0, err
    return out, err


@pytest.mark.parametrize("link", ["memory", "grpc"])
def test_a_profile_of_a_small_network(link: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, err = run(capfd, "bench", "net.py", "--link", link, "--profile-dir", "out", "--json")
    (row,) = json.loads(out)
    place = folder / "out" / "hush-net.profile"
    assert {path.name for path in place.iterdir()} == {"trace.json", "flame.svg"}
    assert "hush-net.profile/trace.json" in err
    assert "seconds: of a party, mean" in err
    found = json.loads((place / "trace.json").read_text())
    check_trace(found, row)
    check_picture((place / "flame.svg").read_text(), {"all", "(checks)", "gelu", "affine", "compute", "send"})


def test_the_table_goes_where_the_figures_go(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capfd, "bench", "net.py", "--link", "memory", "--profile")
    assert (folder / "hush-net.profile" / "trace.json").exists()
    table = out.partition("as predicted")[2]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]
    total = {cells[0]: cells for cells in rows}
    assert {"gelu", "affine", "(checks)", "(no messages)", "all"} == set(total)
    assert sum(int(cells[-1]) for name, cells in total.items() if name != "all") == int(total["all"][-1]) == 16


def test_a_network_that_generates_has_two_turns(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    args = ("--size", "tiny", "--seq", "4", "--new", "2", "--link", "memory", "--profile")
    out, _ = run(capfd, "bench", "gpt2-base", *args)
    place = folder / "hush-gpt2-base-tiny-4.profile"
    assert {path.name for path in place.iterdir()} == {"trace.json", "flame.svg", "flame-token-2.svg"}
    assert out.count("(choice)") == 2
    for name in ("flame.svg", "flame-token-2.svg"):
        assert {"(choice)", "net.h.0", "attend"} <= names((place / name).read_text())


def check_trace(found: dict[str, Any], row: dict[str, Any]) -> None:
    events = found["traceEvents"]
    labels = {(e["pid"], e["args"]["name"]) for e in events if e["ph"] == "M"}
    assert labels == {(i, name) for i in range(3) for name in (f"party {i}", "ops", "rounds, waiting")}
    complete = [e for e in events if e["ph"] == "X"]
    assert len(complete) + 9 == len(events)
    assert all(e["ts"] >= 0 and e["dur"] >= 0 for e in complete)
    for party in range(3):
        own = [e for e in complete if e["pid"] == party]
        rounds = [e for e in own if e["cat"] == "round"]
        sent = sum(e["args"]["bytes_sent"] for e in rounds)
        assert sent + HEADER * row["messages"][party] == row["bytes_sent"][party]
        ops = [e for e in own if e["cat"] == "compute"]
        assert {"hush.affine", "aten.gelu.default", "(checks)"} <= {e["name"] for e in ops}
        apart(ops)
        apart(rounds)
        inside = [e for e in own if e["cat"] in ("send", "wait")]
        apart(inside)
        assert {f"wait for {i}" for i in range(3) if i != party} | {"send"} == {e["name"] for e in inside}
        for event in inside:
            assert any(r["ts"] - 1e-3 <= event["ts"] and end(event) <= end(r) + 1e-3 for r in rounds)


def end(event: dict[str, Any]) -> float:
    return float(event["ts"] + event["dur"])


def apart(events: list[dict[str, Any]]) -> None:
    ordered = sorted(events, key=lambda e: (e["ts"], end(e)))
    assert all(end(a) <= b["ts"] + 1e-3 for a, b in pairwise(ordered))


def names(text: str) -> set[str]:
    return {(title.text or "").partition(":")[0] for title in ET.fromstring(text).iter(f"{SVG}title")}


def check_picture(text: str, due: set[str]) -> None:
    assert due <= names(text)
    rects = [
        {key: float(r.get(key, 0)) for key in ("x", "y", "width")}
        for group in ET.fromstring(text).iter(f"{SVG}g")
        for r in group.iter(f"{SVG}rect")
    ]
    rows: dict[float, list[dict[str, float]]] = {}
    for rect in rects:
        rows.setdefault(rect["y"], []).append(rect)
    ordered = [sorted(rows[y], key=lambda r: r["x"]) for y in sorted(rows)]
    assert [rect["width"] for rect in ordered[0]] == [flame.WIDTH]
    for above, below in pairwise(ordered):
        for rect in below:
            right = rect["x"] + rect["width"]
            assert any(r["x"] - 0.02 <= rect["x"] and right <= r["x"] + r["width"] + 0.02 for r in above)
        for one, other in pairwise(below):
            assert one["x"] + one["width"] <= other["x"] + 0.02


# ---------------------------------------------------------------------- pieces
GELU, NORM = Op("aten.gelu.default", "block.0.up<&"), Op("aten.layer_norm.default", "block.0")
CHECK = Op("(checks)", "")


def profile(begin: int = 0) -> Profile:
    """20 of (checks), then 60 of GELU of which 30 waiting, then 20 of a norm: in milliseconds."""
    rows = ((CHECK, Kind.COMPUTE, 20), (GELU, Kind.COMPUTE, 20), (GELU, Kind.SEND, 10), (GELU, Kind.WAIT_NEXT, 20))
    spans, at = list[Span](), 0
    for op, kind, ms in (*rows, (GELU, Kind.WAIT_PREV, 10), (NORM, Kind.COMPUTE, 20)):
        spans.append(Span(op, kind, at, ms * 1_000_000))
        at += ms * 1_000_000
    return Profile(begin, tuple(spans), (Exchange((GELU,), (64,), tuple(spans[2:5]), 1),), 0)


def test_widths_are_times() -> None:
    root = flame.tree([profile()] * 3)
    assert root.ns == 100e6
    assert root.busy == 70e6
    assert {name: box.ns for name, box in root.below.items()} == {"(checks)": 20e6, "block.0": 80e6}
    gelu = root.below["block.0"].below["up<&"].below["gelu"]
    assert {name: box.ns for name, box in gelu.below.items()} == {
        "compute": 20e6, "send": 10e6, "wait for the next party": 20e6, "wait for the previous party": 10e6,
    }  # fmt: skip
    text = flame.draw(root, "a <b>")
    check_picture(text, {"all", "(checks)", "block.0", "up<&", "gelu", "layer_norm", "compute"})
    assert "a &lt;b&gt;" in text
    widths = [float(r.get("width", 0)) for g in ET.fromstring(text).iter(f"{SVG}g") for r in g.iter(f"{SVG}rect")]
    assert widths.count(960.0) == 1  # block.0: 80 of 100


def test_copying_has_a_column_and_boxes_of_its_own() -> None:
    whole = profile()
    copies = Span(GELU, Kind.COPY, whole.spans[-1].end, 50_000_000)
    there = Profile(0, (*whole.spans, copies), (Exchange((GELU,), (64,), (*whole.spans[2:5], copies), 1),), 0)
    for made, names_ in ((whole, ["send", "wait"]), (there, ["send", "wait", "copy"])):
        report = RunReport(0.1, None, 0, (0.1,) * 3, (0,) * 3, (), (made,) * 3)  # type: ignore[arg-type]
        columns = [str(c.header) for c in profiling.table(profiling.Turn("inference", report), "net").columns]
        assert columns == ["operator", "seconds", "compute", *names_, "MB", "rounds"]
    gelu = flame.tree([there] * 3).below["block.0"].below["up<&"].below["gelu"]
    assert (gelu.below["copy"].ns, gelu.below["copy"].busy) == (50e6, 50e6)
    events = trace.document([[there] * 3])["traceEvents"]
    assert [e["dur"] for e in events if e.get("cat") == "copy"] == [50e3] * 3


def test_parties_are_placed_by_their_clocks() -> None:
    events = trace.document([[profile(5_000), profile(5_030), profile(5_010)]])["traceEvents"]
    first = {e["pid"]: e["ts"] for e in reversed(events) if e["ph"] == "X" and e["name"] == "(checks)"}
    assert first == {0: 0.0, 1: 30.0, 2: 10.0}


def test_what_was_left_out_is_told() -> None:
    cut = Profile(0, profile().spans, profile().rounds, 7)
    report = RunReport(0.1, None, 0, (0.1,) * 3, (0,) * 3, (), (profile(), cut, cut))  # type: ignore[arg-type]
    assert profiling.left_out([profiling.Turn("inference", report)]) == 14
