"""Products by residues on a GPU: as `test_cuda.py`, on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
CASES = Path(__file__).with_name("residue_cases.py")
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton")]
NAMES = [f"test_{text.partition('(')[0]}" for text in CASES.read_text().split("\ndef test_")[1:]]


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | environment
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=own, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_on_the_device_or_in_the_interpreter(name: str) -> None:
    """Each case of `residue_cases.py`."""
    mode = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    done = _run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"{CASES}::{name}", "-m", "", **mode)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.parametrize("capability", [80, 90])
def test_every_kernel_compiles_for_a_gpu(capability: int) -> None:
    """To machine code, by Triton's own assembler, without a GPU."""
    done = _run(str(CASES), str(capability))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "8 kernels" in done.stdout
