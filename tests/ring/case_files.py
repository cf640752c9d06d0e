"""Cases that run in a process of their own, one for each file of cases, and are told of one by one.

Triton's interpreter is chosen when kernels are imported, so it would not do for the process that pytest itself is.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def cases(*files: str) -> list[str]:
    """`file::test` of all tests in some files here, which are not imported for that."""
    found = []
    for file in files:
        tree = ast.parse((HERE / file).read_text())
        tests = [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
        assert tests, f"{file} has no tests"
        found += [f"{file}::{name}" for name in tests]
    return found


def title(case: str) -> str:
    """A case's name among tests."""
    return case.rpartition("::test_")[2]


def check(case: str, request: pytest.FixtureRequest) -> None:
    """Fail as a case does. All cases of its file that this session was asked for run at the first."""
    file = case.partition("::")[0]
    asked = [item.callspec.params.get("case", "") for item in request.session.items if hasattr(item, "callspec")]
    told, text = outcomes(file, tuple(sorted({c for c in asked if str(c).startswith(f"{file}::")} | {case})))
    assert case in told, f"{case} did not run\n{text}"
    failed, skipped = told[case]
    assert not failed, "\n".join(failed)
    if skipped:
        pytest.skip("; ".join(skipped))


@cache
def outcomes(file: str, chosen: tuple[str, ...]) -> tuple[dict[str, tuple[list[str], list[str]]], str]:
    """Of each case that ran, whatever its parameters: what failed and what was skipped. And what was printed."""
    mode = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        plugins = ("-p", "no:cacheprovider", "-p", "no:xdist")
        ids = [f"{HERE / file}::{case.partition('::')[2]}" for case in chosen]
        done = run("-m", "pytest", "-q", *plugins, f"--junitxml={report}", "-m", "", *ids, **mode)
        text = done.stdout[-3000:] + done.stderr[-1000:]
        whole = done.returncode in (0, 1) and report.exists()  # else it ended before its end
        return (_told(file, ElementTree.parse(report).getroot()) if whole else {}), text


def _told(file: str, report: ElementTree.Element) -> dict[str, tuple[list[str], list[str]]]:
    told: dict[str, tuple[list[str], list[str]]] = {}
    for one in report.iter("testcase"):
        name = one.get("name", "")
        failed, skipped = told.setdefault(f"{file}::{name.partition('[')[0]}", ([], []))
        for part in one:
            if part.tag in ("failure", "error"):
                failed.append(f"{name}: {part.get('message')}\n{part.text}")
            elif part.tag == "skipped":
                skipped.append(f"{name}: {part.get('message')}")
    return told


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """This Python, from the repository's root, without this pytest's settings."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | environment
    command: Sequence[str] = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
