"""Parties on a GPU: here the kernels run in Triton's interpreter, in a process of their own, on a tiny network."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from hush.mpc.compiler import compile_module
from hush.mpc.errors import AbortReason, ConfigError, PartyError
from hush.mpc.ring import backends
from hush.parties import device_check, placement, threads
from hush.parties.config import PartyConfig
from hush.parties.device_check import try_kernels
from hush.parties.placement import guarded
from hush.parties.threads import ThreadTrio

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
    with pytest.raises(PartyError, match="our own"), guarded(2, gpu):
        raise PartyError(0, AbortReason.INPUT, "our own, of CUDA")


@pytest.mark.parametrize(
    ("error", "reason", "told", "is_lost"),
    [
        (RuntimeError("CUDA error: out of memory"), AbortReason.LIMIT, "no memory left", False),  # of pinned memory too
        (RuntimeError("Triton Error [CUDA]: out of memory"), AbortReason.LIMIT, "no memory left", False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), AbortReason.LIMIT, "no memory left", False),
        (
            RuntimeError("CUDA error: no kernel image is available"),
            AbortReason.INTERNAL,
            "cannot run the kernels",
            False,
        ),
        (RuntimeError("Failed to find C compiler"), AbortReason.INTERNAL, "cannot run the kernels", False),
        (RuntimeError("CUDA error: device-side assert triggered"), AbortReason.INTERNAL, "failed: restart", True),
    ],
)
def test_what_is_wrong_with_a_gpu_is_told_apart_and_its_words_are_logged(
    error: Exception, reason: AbortReason, told: str, is_lost: bool, caplog: pytest.LogCaptureFixture
) -> None:
    lost: list[str] = []
    with pytest.raises(PartyError, match=told) as raised, guarded(2, torch.device("cuda", 0), lost.append):
        raise error
    assert raised.value.reason is reason
    assert bool(lost) == is_lost
    assert [record.error for record in caplog.records] == [str(error)]  # type: ignore[attr-defined]


def test_an_operation_that_is_not_there_for_a_gpu_is_not_the_gpus_fault() -> None:
    lost: list[str] = []
    with pytest.raises(NotImplementedError), guarded(0, torch.device("cuda", 0), lost.append):
        raise NotImplementedError("Could not run 'aten::foo' with arguments from the 'CUDA' backend")
    assert not lost


@needs_triton
def test_errors_of_triton_are_the_devices() -> None:
    from triton.runtime.errors import OutOfResources

    with pytest.raises(PartyError, match="cannot run the kernels"), guarded(1, torch.device("cuda", 0)):
        raise OutOfResources(300_000, 232_448, "shared memory")


# ---------------------------------------------------------------------- before a party starts
def _kernels(**other: object) -> Any:
    made = backends.get()
    methods = {"device": torch.device("cuda", 1), "seeds": True, "keystream": made.keystream, "matmul": made.matmul}
    return SimpleNamespace(**(methods | {"device": torch.device("cpu")} | other))


def test_kernels_are_tried_before_a_party_serves() -> None:
    try_kernels(_kernels())
    try_kernels(backends.get())  # of main memory: no trial

    def failing(*_: object) -> torch.Tensor:
        raise RuntimeError("no kernel image is available for execution on the device\nand more")

    with pytest.raises(ConfigError, match="cannot run the kernels: no kernel image is available for execution on the"):
        try_kernels(_kernels(matmul=failing))
    with pytest.raises(ConfigError, match="computes wrongly"):
        try_kernels(_kernels(keystream=lambda key, nonce, nbytes: torch.zeros(nbytes, dtype=torch.uint8)))


@pytest.mark.parametrize("make", ["trial", "trio"])
def test_whatever_is_started_is_started_on_the_partys_own_gpu(make: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread begins with GPU 0 as its own: outside `current` a kernel of cuda:1 would run there."""
    made, inside, launched = backends.get(), [False], list[bool]()

    @contextmanager
    def current(device: torch.device) -> Iterator[None]:
        before, inside[0] = inside[0], True
        yield
        inside[0] = before

    def keystream(*arguments: Any) -> torch.Tensor:
        launched.append(inside[0])
        return made.keystream(*arguments)

    for module in (placement, device_check):
        monkeypatch.setattr(module, "current", current)
    if make == "trial":
        try_kernels(_kernels(keystream=keystream))
        assert launched == [True]
        return
    kernels = type("Counted", (type(made),), {"seeds": True, "keystream": staticmethod(keystream)})()
    monkeypatch.setattr(threads.backends, "get", lambda name=None: made if name is None else kernels)
    net = nn.Sequential(nn.Linear(8, 4), nn.ReLU())
    with ThreadTrio(compile_module(net, (torch.rand(1, 8),)), backend="mine") as trio:
        dealt = len(launched)
        trio.infer((torch.rand(1, 8),))
    assert dealt == 8  # two weights, four seeds of each
    assert len(launched) > dealt
    assert all(launched)


def test_an_old_gpu_is_refused_by_its_own_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_why_no_cuda", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 6) if index == 0 else (7, 5))
    pytest.importorskip("triton")
    with pytest.raises(ConfigError, match=r"'cuda:1': its compute capability is 7.5, and 8.0 is the least"):
        backends._cuda("cuda:1")
    assert backends._cuda("cuda:0").device == torch.device("cuda:0")
    with pytest.raises(ConfigError, match="this machine has 2"):
        backends._cuda("cuda:2")


@needs_triton
def test_cudas_own_words_say_why_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nPlease update it.")

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    assert "driver on your system is too old (found version 11040).; update the NVIDIA driver" in str(
        backends._why_no_cuda()
    )


def test_a_party_without_its_gpu_does_not_start() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="cuda"):
        backends.get(_config(device="cuda:0").kernels)
