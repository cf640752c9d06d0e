"""`hush run --picture`: a file with the answer of shares and of plaintext; what cannot be drawn is refused first."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from hush.models import registry
from hush.models.sketch import Arrows, Bars, Curves, Image, forecast
from hush.mpc.errors import UserError
from hush.parties.cli import main, picture

MAGIC = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.mark.parametrize("ending", picture.KINDS)
def test_a_run_draws_its_answer(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"forecast{ending}"
    assert main(["run", "ltsf-linear", "--link", "memory", "--picture", str(path)]) == 0
    assert path.read_bytes().startswith(MAGIC[ending])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ltsf-linear", "--picture", "a.gif"], "a picture is .png, .svg, .pdf, not a.gif"),
        (["ltsf-linear", "--picture", "none/a.png"], "no folder none"),
        (["minilm", "--picture", "a.png"], "minilm has no picture"),
        (["hf:somewhere", "--picture", "a.png"], "hf:somewhere has no picture"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_the_run(
    arguments: list[str],
    message: str,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", *arguments]) != 0
    out, err = capfd.readouterr()
    assert message in err.replace("\n", " ")
    assert "running" not in err
    assert not out


def test_an_unwritable_file_is_an_error(tmp_path: Path) -> None:
    entry = registry.get("ltsf-linear")
    (call,) = entry.calls("tiny", 48, 1)
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        picture.write(entry, call, torch.zeros(1, 12, 3), torch.zeros(1, 12, 3), tmp_path / "a.png")


def test_every_kind_has_a_panel() -> None:
    curves = picture.draw({"on shares": forecast("c", torch.ones(4), torch.ones(2))})
    (axes,) = curves.axes
    assert [line.get_label() for line in axes.lines] == ["history", "forecast, on shares"]
    for sketch in (
        Arrows("a", torch.rand(5, 2), torch.rand(5, 2)),
        Image("i", torch.rand(4, 6)),
        Bars("b", [str(i) for i in range(9)], torch.rand(9)),
    ):
        figure = picture.draw({"on shares": sketch, "in plaintext": sketch})
        assert [a.get_title() for a in figure.axes if a.get_title()] == ["on shares", "in plaintext"]
        figure.savefig(io.BytesIO())


@pytest.mark.parametrize("entry", [e for e in registry.entries() if e.sketch], ids=lambda e: e.id)
def test_every_sketch_is_of_its_own_example(entry: registry.Entry) -> None:
    size = entry.default_size
    call = entry.example(size, entry.length(size, None), 1, 0)
    module = entry.build(size, None)
    with torch.inference_mode():
        output = module(*call)
    assert entry.sketch is not None
    sketch = entry.sketch(call, output)
    assert sketch.title
    if isinstance(sketch, Curves):
        assert any(curve.answer for curve in sketch.curves)
        assert all(curve.values.ndim == 1 for curve in sketch.curves)
    picture.draw({"on shares": sketch, "in plaintext": sketch}).savefig(io.BytesIO())


def test_every_network_of_the_collection_has_one() -> None:
    assert [entry.id for entry in registry.collection() if entry.sketch is None] == []
