"""Which kernel backends this installation has, and the best of them."""

from __future__ import annotations

import warnings
from functools import cache

from hush.mpc.errors import ConfigError, HushWarning
from hush.mpc.ring.kernels import Kernels
from hush.mpc.ring.torch_backend import TorchKernels


def available() -> dict[str, str]:
    """Backend name -> what serves under it (with its instruction set), or why it is absent ("absent: ...")."""
    return {"torch": "reference, plain torch operations", "cpu": _cpu()[1]}


@cache
def get(name: str | None = None) -> Kernels:
    """The backend of a name ("cpu", "torch"), or the best there is: `cpu`, else `torch` with a warning once."""
    if name == "torch":
        return TorchKernels()
    kernels, about = _cpu()
    if name not in (None, "cpu"):
        raise ConfigError(f"no kernel backend {name!r}: there are {', '.join(available())}")
    if kernels is not None:
        return kernels
    if name == "cpu":
        raise ConfigError(f"the kernel backend 'cpu' is {about}; install Hush with a C++ compiler, or use 'torch'")
    warnings.warn(f"the C++ kernels are {about}; the slower torch reference serves", HushWarning, stacklevel=2)
    return TorchKernels()


@cache
def _cpu() -> tuple[Kernels | None, str]:
    try:
        from hush.mpc.ring.cpu_backend import CpuKernels
    except ImportError as error:
        return None, f"absent: {error}"
    kernels = CpuKernels()
    return kernels, kernels.about
