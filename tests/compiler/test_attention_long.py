"""A GPT-2 layer of 1,024 tokens on shares: right, at the predicted cost, in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "long_prompts.py"


@pytest.mark.long
def test_a_layer_of_1024_tokens_keeps_within_memory() -> None:
    """Three parties in one process of their own: 0.8 GB each beside weights and inputs. In one piece 2.0 GB."""
    command = [sys.executable, str(SCRIPT), "--chunk-bits", "21"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found = json.loads(done.stdout)
    assert found["max_abs_err"] < 2e-3
    assert found["predicted"] == {key: found[key] for key in found["predicted"]}
    assert found["peak_bytes_of_three"] < 3 * 0.8e9
