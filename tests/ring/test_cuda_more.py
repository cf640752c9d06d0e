"""The GPU's convolutions and selections, as `test_cuda.py` tries the rest.

python tests/ring/test_cuda_more.py 80    # compile their kernels for a compute capability, which needs no GPU
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
FILES = [Path(__file__).with_name(name) for name in ("convolve_cases.py", "choice_cases.py")]
CASES = [
    f"{path}::test_{text.partition('(')[0]}" for path in FILES for text in path.read_text().split("\ndef test_")[1:]
]
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton")]


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | environment
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=own, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rpartition("::test_")[2])
def test_on_the_device_or_in_the_interpreter(case: str) -> None:
    """Each case of the two files."""
    mode = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    done = _run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", case, "-m", "", **mode)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.parametrize("capability", [80, 90])
def test_every_kernel_compiles_for_a_gpu(capability: int) -> None:
    """To machine code, by Triton's own assembler, without a GPU."""
    done = _run(__file__, str(capability))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "7 kernels" in done.stdout


def _compile(capability: int) -> None:
    """`cuda_compile.main` on these kernels; the product in each of its ways."""
    import cuda_compile

    from hush.mpc.ring.cuda import choices, convolve

    cuda_compile.KERNELS[:] = [*_convolutions(convolve, cuda_compile.limbs), *_choices(choices)]
    cuda_compile.main(capability)


def _convolutions(convolve: Any, limbs: Any) -> list[tuple[Any, ...]]:
    numbers = "D H W OD OH OW KH KW SZ SY SX PZ PY PX GZ GY GX"
    spans = dict.fromkeys(f"PIXELS ROWS C PLACES GROUPS x_limb w_limb n {numbers}".split(), "i32")
    flat = dict.fromkeys(("D", "OD", "SZ", "PZ", "GZ"), "constexpr")
    tiles = [dict(zip(("BM", "BN", "BK"), tile, strict=False)) for tile in (limbs.INT8_TILE, limbs._SMALL_TILE)]
    operands = {"x": "*i8", "w": "*i8"} | spans
    wide = {"LIMBS": 8, "MOST": 255} | tiles[0], {"LIMBS": 4, "MOST": 1023} | tiles[1]
    two = dict.fromkeys(("D", "OD", "SZ", "GZ"), 1) | {"PZ": 0}
    return [
        (convolve._convolve, operands | {"out": "*i64"}, wide[0] | {"ALIGNED": True}),
        (convolve._convolve, operands | {"out": "*i64"} | flat, wide[0] | two | {"ALIGNED": False}),
        (convolve._convolve, operands | {"out": "*i32"}, wide[1] | {"ALIGNED": True}),
        (
            convolve._direct,
            dict.fromkeys(("x0", "x1", "w0", "w1", "out"), "*i64") | spans,
            {"TWO": True, "BLOCK": convolve._BLOCK},
        ),
    ]


def _choices(choices: Any) -> list[tuple[Any, ...]]:
    block, n = {"BLOCK": 1024}, {"n": "i32"}
    factors = dict.fromkeys(("f0", "f1", "f2", "f3", "constant"), "i64")
    dealt = ("b0", "b1", "x0", "x1", "draw0", "draw1", "bit", "chosen")
    chosen = ("known0", "known1", "other", "a", "d", "total", "out")
    return [
        (
            choices._blend,
            dict.fromkeys(("x0", "x1", "x2", "x3", "out"), "*i64") | n | factors,
            {"COUNT": 4, "BITS": 64} | block,
        ),
        (choices._deal_choice, dict.fromkeys(dealt, "*i64") | n, {"BITS": 45} | block),
        (
            choices._choose,
            {"c": "*i64"} | dict.fromkeys(chosen, "*i32") | n,
            {"BITS": 32, "TWO": True} | block,
        ),
    ]


if __name__ == "__main__":
    _compile(int(sys.argv[1]))
