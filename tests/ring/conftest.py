"""Every backend that this machine has, each instruction set on its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

from hush.mpc.ring import backends
from hush.mpc.ring.kernels import Kernels
from hush.mpc.ring.torch_backend import TorchKernels

settings.register_profile("ring", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ring")


def every_backend() -> dict[str, Callable[[], Kernels]]:
    """Name -> how to make it."""
    makers: dict[str, Callable[[], Kernels]] = {
        "torch": TorchKernels,
        "torch limbs": lambda: TorchKernels(limbs=True),
    }
    if not backends.available()["cpu"].startswith("absent"):
        from hush.mpc.ring import _cpu
        from hush.mpc.ring.cpu_backend import CpuKernels

        makers |= {f"cpu {isa}": lambda isa=isa: CpuKernels(isa) for isa in _cpu.supported()}
    return makers


@pytest.fixture(scope="module", params=list(every_backend()))
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return every_backend()[request.param]()
