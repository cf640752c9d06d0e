"""Products by residues on a GPU, and the ways of products by limbs, as `test_cuda.py` tries the rest."""

from __future__ import annotations

import importlib.util

import pytest
from case_files import cases, check, title

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton"),
    pytest.mark.timeout(1200),  # the first case of a file waits for all
]


@pytest.mark.parametrize("case", cases("residue_cases.py", "product_cases.py"), ids=title)
def test_on_the_device_or_in_the_interpreter(case: str, request: pytest.FixtureRequest) -> None:
    """Each case."""
    check(case, request)
