"""The package's face: what `import hush` offers, and nothing that does not resolve."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

import hush
from hush.mpc.cost import Cost


def test_all_is_what_resolves() -> None:
    assert sorted(hush.__all__) == sorted(hush._HOMES)
    assert list(hush.__all__) == sorted(set(hush.__all__))
    for name in hush.__all__:
        assert getattr(hush, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hush.nothing


def test_signatures_are_the_contract() -> None:
    common = ["module", "args", "kwargs", "public", "weights", "approx", "ranges"]
    assert list(inspect.signature(hush.compile).parameters) == [*common, "lookup", "schedule"]
    assert list(inspect.signature(hush.compare).parameters) == [*common, "link", "protocol", "device", "lookup"]
    assert list(inspect.signature(hush.connect).parameters) == ["config"]


def test_every_error_is_a_hush_error() -> None:
    for name in hush.__all__:
        found = getattr(hush, name)
        if isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, Warning):
            assert issubclass(found, hush.HushError)


def test_compile_save_load_and_compare(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Linear(8, 2))
    args = (torch.randn(3, 4),)
    program = hush.compile(module, args)
    program.save(tmp_path / "net.hush")
    loaded = hush.load(tmp_path / "net.hush")
    assert loaded.digest == program.digest
    assert isinstance(program.cost, Cost)
    assert loaded.cost == program.cost
    assert "rounds" in str(program)
    compared = hush.compare(module, args)
    assert compared.rounds == program.cost.rounds
    assert compared.bytes_sent == program.cost.bytes_sent
    assert compared.predicted == program.cost
    assert compared.max_abs_err < 1e-3
    with pytest.raises(hush.ProgramError):
        hush.load(tmp_path / "absent.hush")
