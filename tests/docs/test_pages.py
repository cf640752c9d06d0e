"""What the documentation names is there: files, links, tests, configuration keys and defaults, reasons, limits."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from hush.mpc.errors import AbortReason
from hush.mpc.functions.coefficients import CUT
from hush.parties.config import ClientConfig, Limits, PartyConfig
from hush.parties.logs import _FIELDS
from hush.parties.shaping import NETS

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
LINK = re.compile(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)")
PATH = re.compile(r"`((?:mpc|protocols|parties|models|proto|tests|benchmarks|docs)/[\w./]+?)/?`")
TEST = re.compile(r"`(test_\w+)`")
pages = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


def read(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


@pages
def test_files_that_are_named_exist(page: Path) -> None:
    for path in PATH.findall(page.read_text()):
        assert (ROOT / path).exists(), path


@pages
def test_tests_that_are_named_exist(page: Path) -> None:
    every = "\n".join(p.read_text() for p in (ROOT / "tests").rglob("test_*.py"))
    files = {p.stem for p in (ROOT / "tests").rglob("test_*.py")}
    for name in TEST.findall(page.read_text()):
        assert f"def {name}(" in every or name in files, name


def test_configuration_examples_are_valid(tmp_path: Path) -> None:
    party, client = re.findall(r"^```toml\n(.*?)^```$", read("running-parties.md"), re.MULTILINE | re.DOTALL)
    assert PartyConfig.model_validate(tomllib.loads(party)).limits == Limits()
    assert ClientConfig.model_validate(tomllib.loads(client)).deadline_s == 60


def test_every_configuration_key_is_listed_with_its_default() -> None:
    page = read("running-parties.md")
    for prefix, model in (("", PartyConfig), ("limits.", Limits), ("", ClientConfig)):
        for name, field in model.model_fields.items():
            if name in ("tls", "limits"):
                continue
            assert f"`{prefix}{name}`" in page
            if isinstance(field.default, int | float) and not isinstance(field.default, bool):
                assert f"| `{prefix}{name}` | {field.default} |" in page


def test_every_reason_is_explained_once() -> None:
    page = read("running-parties.md")
    for reason in AbortReason:
        assert page.count(f"| `{reason.name}` | {reason.value} |") == 1


def test_networks_and_log_fields_are_the_real_ones() -> None:
    page = read("running-parties.md")
    for name, net in NETS.items():
        rate = f"{net.bandwidth / 1e9:g} Gbit/s" if net.bandwidth >= 1e9 else f"{net.bandwidth / 1e6:g} Mbit/s"
        assert f"| `{name}` | {rate} | {net.round_trip * 1e3:g} ms |" in page
    for field in _FIELDS:
        assert f"`{field}`" in page


def test_cuts_of_the_polynomials_are_the_real_ones() -> None:
    page = read("functions.md")
    for name, cut in CUT.items():
        row = next(line for line in page.splitlines() if line.startswith("|") and re.search(rf"\b{name}\b", line))
        assert f"below -{cut:g} " in row
