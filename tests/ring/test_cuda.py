"""The GPU's kernels against the reference, bit for bit: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from case_files import HERE, cases, check, outcomes, run, title

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton"),
    pytest.mark.timeout(1200),  # the first case of a file waits for all
]
FILES = [f"{name}_cases.py" for name in ["cuda", "product", "residue", "kept", "row", "convolve", "choice", "full"]]


@pytest.mark.parametrize("case", cases(*FILES), ids=title)
def test_on_the_device_or_in_the_interpreter(case: str, request: pytest.FixtureRequest) -> None:
    """Each case."""
    check(case, request)


@pytest.mark.parametrize("capability", [80, 90])
def test_every_kernel_compiles_for_a_gpu(capability: int) -> None:
    """To machine code, by Triton's own assembler, without a GPU; of all modules, each as it is launched."""
    done = run(str(HERE / "cuda_compile.py"), str(capability))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "23 kernels, 49 ways" in done.stdout, done.stdout


@pytest.mark.long
@pytest.mark.parametrize("capability", [80, 90])
def test_every_tile_worth_trying_compiles(capability: int) -> None:
    done = run(str(HERE / "cuda_compile.py"), str(capability), "tiles")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "3 kernels" in done.stdout


def test_without_a_gpu_the_backend_says_what_is_missing() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    code = "from hush.mpc.ring import backends; backends.get('cuda')"
    done = run("-c", code)
    assert "ConfigError" in done.stderr
    assert "built without CUDA" in done.stderr or "no GPU" in done.stderr


def test_nothing_imports_triton_unless_a_gpu_is_asked_for() -> None:
    code = "import sys, hush, hush.parties.server, hush.parties.cli; assert 'triton' not in sys.modules"
    assert run("-c", code).returncode == 0


def test_a_case_that_fails_or_does_not_run_is_told(tmp_path: Path) -> None:
    """By the runner itself, of one that fails for one of its parameters, passes, is skipped, or is not there."""
    file = tmp_path / "some_cases.py"
    lines = "import pytest", "@pytest.mark.parametrize('n', [1, 2])", "def test_a(n): assert n == 1, 'no'"
    file.write_text("\n".join((*lines, "def test_b(): pass", "def test_c(): pytest.skip('why')", "")))
    names = cases(str(file))
    told, _ = outcomes(str(file), tuple(names))
    assert list(told) == names == [f"{file}::test_{letter}" for letter in "abc"]
    (failed,), skipped = told[names[0]]
    assert failed.startswith("test_a[2]: AssertionError: no")
    assert not skipped
    assert told[names[1]] == ([], [])
    assert told[names[2]] == ([], ["test_c: why"])
    told, text = outcomes(str(file), (f"{file}::test_d",))
    assert not told
    assert "not found" in text
