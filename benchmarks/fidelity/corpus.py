"""Texts to measure on: our own sentence pairs, and what ships with Python (its help topics and its docstrings)."""

from __future__ import annotations

import ast
import csv
import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PAIRS = Path(__file__).parents[1] / "data" / "pairs.tsv"
KINDS = ("paraphrase", "related", "unrelated")
HELD_OUT = 16  # one document of so many, chosen by the hash of its name
_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__"}

# What a docstring is about, told by the module that it is in: the classes of the classifier.
GROUPS = {
    "windows": ("tkinter", "turtle", "turtledemo", "idlelib"),
    "network": ("email", "http", "urllib", "xmlrpc", "wsgiref", "imaplib", "smtplib", "ftplib", "socket", "ssl"),
    "concurrency": ("asyncio", "threading", "multiprocessing", "concurrent", "subprocess", "queue", "selectors"),
    "building": ("distutils", "importlib", "ensurepip", "venv", "zipimport", "pkgutil", "modulefinder"),
    "numbers": ("_pydecimal", "statistics", "random", "fractions", "numbers", "datetime", "calendar", "ipaddress"),
    "testing": ("unittest", "doctest", "pdb", "bdb", "inspect", "pydoc", "traceback", "trace", "cProfile", "ast"),
}
LEAST = 40  # characters of a paragraph that says anything


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sentences, and how they were meant."""

    kind: str
    first: str
    second: str


def read_pairs(path: Path = PAIRS) -> list[Pair]:
    """The pairs of a file with one tab-separated pair a line, after a line of names."""
    with path.open(newline="") as file:
        return [Pair(**row) for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


@cache
def documents() -> dict[str, tuple[str, ...]]:
    """Texts by document: help topics by name, and the docstrings of each file of the standard library."""
    from pydoc_data.topics import topics

    found: dict[str, tuple[str, ...]] = {f"topic {name}": (text.strip(),) for name, text in sorted(topics.items())}
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root)
        if not _SKIPPED & set(place.parts) and (texts := tuple(_docstrings(path))):
            found[place.as_posix()] = texts
    return found


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):  # not every file that ships is Python 3 in UTF-8
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = (ast.get_docstring(node) or "").strip()
            if text:
                yield text


def fraction(text: str) -> float:
    """A number in [0, 1) that a text decides: the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def held_out(name: str) -> bool:
    """Whether a document is kept from training."""
    return fraction(name) < 1 / HELD_OUT


def texts(*, held: bool) -> list[str]:
    """The texts of one side of the split, each once, none that the training side has too."""
    sides: dict[bool, dict[str, None]] = {True: {}, False: {}}
    for name, parts in documents().items():
        sides[held_out(name)].update(dict.fromkeys(parts))
    return [text for text in sides[held] if not held or text not in sides[False]]


def digest(lines: list[str]) -> str:
    """Of texts, to name what was made from them."""
    return hashlib.sha256("\0".join(lines).encode()).hexdigest()[:16]


# ---------------------------------------------------------------------- the classifier's
@dataclass(frozen=True, slots=True)
class Labelled:
    """A paragraph and the number of its group."""

    text: str
    label: int


def paragraphs(*, held: bool) -> list[Labelled]:
    """Paragraphs of docstrings with their group, equally many of each; a fifth of the docstrings is held out."""
    by_label: list[dict[str, None]] = [{} for _ in GROUPS]
    for name, parts in documents().items():
        label = _group(name)
        if label is None:
            continue
        for text in parts:
            if (fraction(text) < 0.2) == held:
                by_label[label].update(dict.fromkeys(p for p in _split(text) if len(p) >= LEAST))
    other = {p.text for p in paragraphs(held=False)} if held else set()
    kept = [sorted((p for p in found if p not in other), key=fraction) for found in by_label]
    count = min(map(len, kept))
    return [Labelled(text, label) for label, found in enumerate(kept) for text in found[:count]]


def _group(name: str) -> int | None:
    top = name.split("/")[0].removesuffix(".py")
    return next((i for i, members in enumerate(GROUPS.values()) if top in members), None)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n")]
