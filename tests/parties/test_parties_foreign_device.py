"""Parties on a device that main memory must not be mixed with, and what they wait for there (`foreign_device`)."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton"),
    pytest.mark.timeout(1200),  # the first one waits for all
]

ALWAYS = {
    ("mpc/copies.py", "Copies.outgoing"): "a round's messages leave when they are made; once a round",
    ("parties/placement.py", "placed"): "inputs arrive and outputs leave",
    ("protocols/replicated/invocation.py", "_compare"): "digests and counters are compared, once each",
    ("protocols/replicated/invocation.py", "agree_on_inputs"): "the inputs' digests are the CPU's",
}
TREES = {
    ("mpc/ring/cuda/backend.py", "CudaKernels.at_cells"): "trees are grown by the CPU, which has instructions for AES",
    ("protocols/replicated/pick.py", "_deal"): "trees",
    ("protocols/replicated/pick.py", "_share"): "trees",
}
SOMETIMES = {
    ("mpc/ring/cuda/backend.py", "CudaKernels.turned_sums"): "unary codes are turned by the CPU",
    ("protocols/replicated/unary.py", "_bytes"): "unary codes",
    ("protocols/replicated/unary.py", "_counts"): "unary codes",
    ("protocols/replicated/contribute.py", "contribute"): "noise is the system's, on the CPU",
    ("protocols/replicated/lookup.py", "_rows"): "keys of places are expanded by the CPU",
}
"""Wherever a run waits for the device, and why it must."""


SHORT = (
    "mlp",
    "weights as seeds",
    "weights as seeds, many rows",
    "layer",
    "normalisation",
    "softmax far apart",
    "causal attention",
    "activations",
    "lines",
    "logic",
    "argmax",
    "largest",
    "top k",
    "convolution",
    "adaptive pooling",
    "interpolation",
    "one-hot embedding",
    "embedding by equality",
    "embedding by keys",
    "public embedding",
    "public embedding by keys",
    "keys and a number",
    "picked",
    "masked rows",
    "secret places",
    "written",
    "layout",
    "products",
    "greedy generation",
    "sampled generation",
    "large public tensors",
)
LONG = (
    "layer far apart",
    "layer of public weights",
    "convolution of public weights",
    "functions",
    "hidden mask",
    "largest of many",
    "lstm",
    "statistics",
    "generation sampled from a few",
)
_INEXACT = {"activations": 1e-2, "lstm": 2e-3}


@pytest.mark.parametrize("net", [*SHORT, *(pytest.param(name, marks=pytest.mark.long) for name in LONG)])
def test_networks_run_there_and_wait_only_where_they_must(net: str, request: pytest.FixtureRequest) -> None:
    """Their outputs are the network's own, and every place where a party waits is in the lists above."""
    told = _told(request)[net]
    assert isinstance(told["error"], float), told["error"]
    assert told["error"] < _INEXACT.get(net, 1e-3)
    waits = {(file, function) for file, function in told["waits"]}
    assert waits <= {*ALWAYS, *TREES, *SOMETIMES}, "a hidden wait for the device"
    if net == "layer":
        assert waits == {*ALWAYS, *TREES}


def test_all_networks_are_tried() -> None:
    assert sorted(json.loads(_run("--names"))) == sorted([*SHORT, *LONG])


def _told(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What a process of their own found of all networks that this session was asked for."""
    items = [item for item in request.session.items if Path(item.path) == Path(__file__)]
    asked = [item.callspec.params["net"] for item in items if hasattr(item, "callspec")]
    lines = _run(*dict.fromkeys(asked)).splitlines()
    return {one["name"]: one for one in map(json.loads, lines)}


@cache
def _run(*arguments: str) -> str:
    """Triton's interpreter is chosen when kernels are imported, so it would not do for the process that pytest is."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "support.foreign_nets", *arguments]
    done = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
