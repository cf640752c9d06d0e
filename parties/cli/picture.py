"""`hush run NAME --picture FILE`: what a person looks at in an answer, from shares and from plaintext, in one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hush.models.registry import Call, Entry
from hush.models.sketch import Arrows, Bars, Curves, Image, Sketch
from hush.mpc.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = (".png", ".svg", ".pdf")
_WIDTH, _HEIGHT = 9.0, 3.6


def check(entry: Entry | None, name: str, path: Path) -> None:
    """Refuse, before anything runs, what could not be drawn or written afterwards."""
    if entry is None or entry.sketch is None:
        raise UserError(f"{name} has no picture of its answers: leave --picture out")
    if path.suffix.lower() not in KINDS:
        raise UserError(f"a picture is {', '.join(KINDS)}, not {path.name}: choose one of these endings")
    if not path.parent.is_dir():
        raise UserError(f"no folder {path.parent} to write {path.name} to: make it first")
    _figure()


def write(entry: Entry, call: Call, secure: Any, plain: Any, path: Path) -> None:
    """The picture of one answer, as computed on shares and as computed in plaintext."""
    assert entry.sketch is not None
    answers = {"on shares": entry.sketch(call, secure), "in plaintext": entry.sketch(call, plain)}
    figure = draw(answers)
    try:
        figure.savefig(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def draw(answers: dict[str, Sketch]) -> Figure:
    """Curves share a panel, so that a difference shows; the other kinds have one each."""
    first = next(iter(answers.values()))
    figure = _figure()
    if isinstance(first, Curves):
        _curves(figure.add_subplot(), answers)
    else:
        for place, (title, sketch) in enumerate(answers.items()):
            _panel(figure.add_subplot(1, len(answers), place + 1), title, sketch)
    figure.suptitle(first.title)
    return figure


def _figure() -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("pictures need matplotlib: pip install 'hush[plot]'") from None
    return Figure(figsize=(_WIDTH, _HEIGHT), dpi=120, layout="constrained")


def _curves(axes: Axes, answers: dict[str, Sketch]) -> None:
    styles = ("-", "--")
    for style, (title, sketch) in zip(styles, answers.items(), strict=False):
        assert isinstance(sketch, Curves)
        for curve in sketch.curves:
            values = curve.values.detach().double().numpy()
            places = range(curve.start, curve.start + len(values))
            if curve.answer:
                axes.plot(places, values, style, label=f"{curve.label}, {title}", linewidth=1.2)
            elif style == styles[0]:
                axes.plot(places, values, color="0.55", label=curve.label, linewidth=1.0)
        axes.set_xlabel(sketch.axis)
    axes.legend(frameon=False, fontsize="small")


def _panel(axes: Axes, title: str, sketch: Sketch) -> None:
    axes.set_title(title, fontsize="medium")
    if isinstance(sketch, Arrows):
        (x, y), (u, v) = sketch.points.double().T.numpy(), sketch.vectors.double().T.numpy()
        axes.quiver(x, y, u, v, angles="xy", scale_units="xy", scale=1)
        axes.set_aspect("equal")
    elif isinstance(sketch, Image):
        shown = axes.imshow(sketch.values.detach().double().numpy(), aspect="auto", origin="lower")
        axes.figure.colorbar(shown, ax=axes)
    else:
        assert isinstance(sketch, Bars)
        places = torch.arange(len(sketch.labels)).numpy()
        axes.bar(places, sketch.values.detach().double().numpy())
        axes.set_xticks(places, sketch.labels, rotation=45 if len(sketch.labels) > 6 else 0, fontsize="small")
