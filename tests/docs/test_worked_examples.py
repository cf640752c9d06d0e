"""The worked examples of the documentation run as they stand, and print what they say they print."""

from __future__ import annotations

import contextlib
import io
import linecache
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hush.models import registry
from hush.mpc.compiler.rules import RULES

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("adding-an-op.md", "adding-a-model.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def tables_as_before() -> Iterator[None]:
    """What an example registers goes with it."""
    tables: list[dict[str, Any]] = [RULES, registry._entries]
    before = [dict(table) for table in tables]
    yield
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of a page's fenced blocks."""
    return BLOCK.findall((DOCS / page).read_text())


def run(code: str, name: str, namespace: dict[str, Any]) -> str:
    """What a block prints. Its source is made known, as torch.export wants to read it."""
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec"), namespace)
    return printed.getvalue()


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs_and_prints_what_follows_it(page: str) -> None:
    namespace: dict[str, Any] = {"__name__": "example"}
    found = [*blocks(page), ("", "")]
    ran = 0
    for number, (language, text) in enumerate(found):
        if language != "python":
            continue
        printed = run(text, f"<{page} {number}>", namespace)
        follows = found[number + 1]
        assert printed == (follows[1] if follows[0] == "text" else "")
        ran += 1
    assert ran >= 5


@pytest.mark.parametrize("page", PAGES)
def test_no_output_stands_without_the_code_that_prints_it(page: str) -> None:
    languages = [language for language, _ in blocks(page)]
    assert all(languages[i - 1] == "python" for i, language in enumerate(languages) if language == "text")
