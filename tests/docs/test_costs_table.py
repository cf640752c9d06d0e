"""docs/costs.md says what the code costs today."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from hush.mpc.cost import Traffic, total
from hush.mpc.protocol import Protocol

ROOT = Path(__file__).parents[2]
LOCAL = {"unchecked", "constant", "add", "sub", "neg", "add_public", "scale", "rescale", "wrap", "matmul_int"}
LOCAL |= {"xor", "invert", "affine"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("protocol_costs", ROOT / "benchmarks" / "protocol_costs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(script: ModuleType) -> str:
    made: str = script.page()
    return made


def test_the_committed_page_is_what_the_script_makes(page: str) -> None:
    assert (ROOT / "docs" / "costs.md").read_text() == page, "run `python benchmarks/protocol_costs.py --write`"


def test_every_interactive_primitive_is_on_it(page: str) -> None:
    primitives = {name for name in vars(Protocol) if not name.startswith("_") and callable(getattr(Protocol, name))}
    assert primitives >= LOCAL
    for name in primitives - LOCAL:
        assert page.count(f"`{name}`") >= 2  # in both rings


def test_every_elementwise_function_is_on_it(script: ModuleType, page: str) -> None:
    for name in script.default.functions():
        assert f"| `{name}` |" in page


def test_bits_are_those_of_all_parties_without_headers(script: ModuleType) -> None:
    """Party 2 waits for nobody in the second round, so what it sends lengthens no chain; party 1's does."""
    first = Traffic(((10, 0), (0, 20), (0, 0)))
    apart, after = Traffic(((0, 0), (0, 0), (30, 0))), Traffic(((0, 0), (30, 0), (0, 0)))
    assert total([first, after]).bytes_sent == (26, 82, 0)
    assert script.spent([first, after], 4) == ("120", "2")
    assert script.spent([first, apart], 7) == ("68.6", "1")
