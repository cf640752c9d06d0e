"""A flame picture of profiles: layers, below them ops, below them what the time went to. Width is time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from hush.mpc.compiler import group_of
from hush.parties.profile import Kind, Op, Profile, short

WIDTH, ROW, MARGIN = 1200.0, 20, 10
_LETTER = 6.7  # width of a letter, about
_LEAST = 0.3  # boxes that are narrower are not drawn
_NAMES = {
    Kind.COMPUTE: "compute",
    Kind.SEND: "send",
    Kind.WAIT_NEXT: "wait for the next party",
    Kind.WAIT_PREV: "wait for the previous party",
    Kind.COPY: "copy",
}
_COMPUTE, _WAIT = (242, 142, 76), (157, 189, 219)  # red, green, blue
_STYLE = "text{font:11px monospace;fill:#222;pointer-events:none} rect{stroke:#fff;stroke-width:.6}"


@dataclass(slots=True)
class Box:
    """A part of the time, in nanoseconds: `busy` of it not spent waiting."""

    name: str
    ns: float = 0.0
    busy: float = 0.0
    below: dict[str, Box] = field(default_factory=dict)

    def add(self, path: Sequence[str], ns: float, busy: float) -> None:
        """Time that goes to a path of names below this one."""
        self.ns, self.busy = self.ns + ns, self.busy + busy
        if path:
            self.below.setdefault(path[0], Box(path[0])).add(path[1:], ns, busy)


def tree(profiles: Sequence[Profile]) -> Box:
    """Mean time of a party by layer, module inside the layer, op, and what it did. Layers in the order of their ops."""
    root = Box("all")
    for profile in profiles:
        for span in profile.spans:
            ns = span.ns / len(profiles)
            waits = span.kind in (Kind.WAIT_NEXT, Kind.WAIT_PREV)
            root.add((*path(span.op), _NAMES[span.kind]), ns, 0.0 if waits else ns)
    return root


def path(op: Op) -> tuple[str, ...]:
    """("encoder.layer.0", "attention.self", "attend"); what is no op of a layer stands for itself."""
    name = short(op.name)
    if not op.layer:
        return (name,) if name.startswith("(") else (group_of(""), name)
    group = group_of(op.layer)
    inside = op.layer.removeprefix(group).removeprefix(".")
    return (group, inside, name) if inside else (group, name)


def draw(root: Box, title: str) -> str:
    """An SVG of the tree, which needs nothing else. The name of a box and its time show when the mouse is over it."""
    height = 2 * MARGIN + ROW * (1 + _depth(root))
    width = WIDTH + 2 * MARGIN
    head = f"{title}: {root.ns / 1e9:.3f} s of a party, mean; orange: computing, sending, copying, blue: waiting"
    size = f'width="{width:g}" height="{height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" {size}>',
        f"<style>{_STYLE}</style>",
        f'<rect {size} fill="#fff"/>',
        f'<text x="{MARGIN}" y="{MARGIN + 12}">{escape(head)}</text>',
        *_boxes(root, float(MARGIN), MARGIN + ROW, WIDTH / (root.ns or 1.0), root.ns or 1.0),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _depth(box: Box) -> int:
    return 1 + max((_depth(below) for below in box.below.values()), default=0)


def _boxes(box: Box, x: float, y: int, scale: float, whole: float) -> Iterator[str]:
    """A box and all below it. `scale`: width of a nanosecond."""
    width = box.ns * scale
    if width < _LEAST:
        return
    told = f"{box.name}: {box.ns / 1e6:.2f} ms, {100 * box.ns / whole:.1f}%, waiting {(box.ns - box.busy) / 1e6:.2f} ms"
    where = f'x="{x:.2f}" y="{y}" width="{width:.2f}" height="{ROW}"'
    yield f'<g><title>{escape(told)}</title><rect {where} fill="{_blend(box.busy / box.ns)}"/>'
    letters = int((width - 6) / _LETTER)
    if letters >= 3:
        text = box.name if len(box.name) <= letters else box.name[: letters - 1] + "…"
        yield f'<text x="{x + 3:.2f}" y="{y + 14}">{escape(text)}</text>'
    yield "</g>"
    for below in box.below.values():
        yield from _boxes(below, x, y + ROW, scale, whole)
        x += below.ns * scale


def _blend(busy: float) -> str:
    mixed = (round(w + busy * (c - w)) for c, w in zip(_COMPUTE, _WAIT, strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)
