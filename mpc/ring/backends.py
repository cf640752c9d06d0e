"""Which kernel backends this installation has, and the best of them."""

from __future__ import annotations

import importlib.util
import os
import warnings
from functools import cache

import torch

from hush.mpc.errors import ConfigError, HushWarning
from hush.mpc.ring.kernels import Kernels
from hush.mpc.ring.torch_backend import TorchKernels

_CAPABILITY = 8  # compute capability of int8 tensor cores as the kernels use them


def available() -> dict[str, str]:
    """Backend name -> what serves under it (with its instruction set), or why it is absent ("absent: ...")."""
    return {"torch": "reference, plain torch operations", "cpu": _cpu()[1], "cuda": _why_no_cuda() or "NVIDIA, Triton"}


@cache
def get(name: str | None = None) -> Kernels:
    """The backend of a name ("cpu", "torch", "cuda" or "cuda:N"), or the best there is for tensors in main memory:
    `cpu`, else `torch` with a warning once."""
    if name == "torch":
        return TorchKernels()
    if name is not None and name.partition(":")[0] == "cuda":
        return _cuda(name)
    kernels, about = _cpu()
    if name not in (None, "cpu"):
        raise ConfigError(f"no kernel backend {name!r}: there are {', '.join(available())}")
    if kernels is not None:
        return kernels
    if name == "cpu":
        raise ConfigError(f"the kernel backend 'cpu' is {about}; install Hush with a C++ compiler, or use 'torch'")
    warnings.warn(f"the C++ kernels are {about}; the slower torch reference serves", HushWarning, stacklevel=2)
    return TorchKernels()


def _cuda(name: str) -> Kernels:
    """The kernels of a GPU; ConfigError says what is missing."""
    why = _why_no_cuda()
    if why is not None:
        raise ConfigError(f"the kernel backend {name!r} is {why}")
    from hush.mpc.ring.cuda.backend import CudaKernels
    from hush.mpc.ring.cuda.launch import interpreted

    if interpreted():
        return CudaKernels(torch.device("cpu"))
    count, index = torch.cuda.device_count(), name.partition(":")[2] or "0"
    if not index.isdigit() or int(index) >= count:
        raise ConfigError(f"{name!r}: this machine has {count} GPU(s), cuda:0 to cuda:{count - 1}")
    major, minor = torch.cuda.get_device_capability(int(index))
    if major < _CAPABILITY:
        raise ConfigError(f"{name!r}: its compute capability is {major}.{minor}, and {_CAPABILITY}.0 is the least")
    return CudaKernels(torch.device("cuda", int(index)))


def _why_no_cuda() -> str | None:
    """Why there is no GPU to compute on, and the way out; None if there is, or Triton's interpreter was asked for."""
    if importlib.util.find_spec("triton") is None:
        return 'absent: Triton is not installed; pip install "hush[cuda]"'
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    if torch.version.cuda is None:
        return "absent: this torch was built without CUDA; install one for CUDA, or use the backend 'cpu'"
    if torch.cuda.is_available():
        return None
    return f"absent: {_why_no_device()}; update the NVIDIA driver or torch, or use the backend 'cpu'"


def _why_no_device() -> str:
    """CUDA's own words: no GPU, a driver too old for this torch..."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return next(iter(str(error).splitlines()), "no GPU")
    return "no GPU"


@cache
def _cpu() -> tuple[Kernels | None, str]:
    try:
        from hush.mpc.ring.cpu_backend import CpuKernels
    except ImportError as error:
        return None, f"absent: {error}"
    kernels = CpuKernels()
    return kernels, kernels.about
