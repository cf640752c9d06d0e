"""Parties on a GPU: here the kernels run in Triton's interpreter, in a process of their own, on a tiny network."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from hush.mpc.errors import AbortReason, ConfigError, PartyError
from hush.parties.config import PartyConfig
from hush.parties.placement import guarded

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton")
RUN = """
import torch
from torch import nn
from hush.mpc.compiler import compile_module
from hush.parties.threads import ThreadTrio

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(8, 4), nn.GELU(), nn.Linear(4, 3)).eval()
x = torch.randn(1, 8)
with ThreadTrio(compile_module(net, (x,)), backend={kinds!r}) as trio:
    runs = [trio.infer((x,)) for _ in range({runs})]
for made in runs:
    error = float((made.output - net(x)).abs().max())
    assert error < 1e-3, error
    assert made.report.cost == runs[0].report.cost
print(runs[0].report.cost)
"""


def _run(kinds: tuple[str | None, ...], runs: int = 1) -> str:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    code = RUN.format(kinds=kinds, runs=runs)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@needs_triton
@pytest.mark.cuda
def test_gpu_parties_a_mixed_trio_and_cpu_parties_answer_alike_at_one_cost() -> None:
    """The kernels are bit-exact, so all trios can work together, and send the same number of bytes."""
    costs = {_run(("cuda", None, "torch"), 2), _run(("cuda",) * 3), _run((None,) * 3)}
    assert len(costs) == 1


def _config(**more: object) -> PartyConfig:
    return PartyConfig.model_validate({"index": 0, "parties": ["a:1", "b:2", "c:3"], "insecure": True, **more})


def test_a_device_is_chosen_by_the_file_and_nothing_else_is_taken_for_one() -> None:
    assert _config().kernels is None
    assert _config(device="cuda:1").kernels == "cuda:1"
    assert _config(device="cpu", backend="torch").kernels == "torch"
    if not torch.cuda.is_available():
        assert _config(device="auto", backend="torch").kernels == "torch"
    with pytest.raises(ValidationError, match="device"):
        _config(device="tpu")


def test_a_gpu_that_is_full_or_lost_ends_the_session_with_a_reason() -> None:
    gpu = torch.device("cuda", 0)
    with pytest.raises(PartyError, match="no memory left") as full, guarded(1, gpu):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")
    assert (full.value.party, full.value.reason) == (1, AbortReason.LIMIT)
    with pytest.raises(PartyError, match="failed: restart") as lost, guarded(2, gpu):
        raise RuntimeError("CUDA error: unspecified launch failure")
    assert lost.value.reason is AbortReason.INTERNAL
    with pytest.raises(RuntimeError, match="our own"), guarded(2, gpu):
        raise RuntimeError("our own")


def test_a_party_without_its_gpu_does_not_start() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    from hush.mpc.ring import backends

    with pytest.raises(ConfigError, match="cuda"):
        backends.get(_config(device="cuda:0").kernels)
