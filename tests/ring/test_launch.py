"""How GPU kernels are started, whoever runs them."""

from __future__ import annotations

from typing import Any

import pytest

from hush.mpc.ring.cuda.launch import launch


class _Kernel:
    def __init__(self) -> None:
        self.started: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments, **options: self.started.append((grid, arguments, options))


@pytest.mark.parametrize("grid", [(1 << 31,), (1, 65_536), (1, 1, 65_536)])
def test_what_cuda_would_not_start_is_refused_in_the_interpreter_too(grid: tuple[int, ...]) -> None:
    kernel = _Kernel()
    with pytest.raises(ValueError, match="programs"):
        launch(kernel, grid, 1)
    assert not kernel.started


def test_the_largest_grid_is_started() -> None:
    kernel = _Kernel()
    launch(kernel, ((1 << 31) - 1, 65_535, 65_535), 1, num_warps=4)
    assert kernel.started == [(((1 << 31) - 1, 65_535, 65_535), (1,), {"num_warps": 4})]
