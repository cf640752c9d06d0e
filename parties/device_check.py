"""Whether the kernels that a party was given run where it is, said before anybody trusts it with a session."""

from __future__ import annotations

import torch

from hush.mpc.errors import ConfigError
from hush.mpc.ring import RING64, backends
from hush.mpc.ring.kernels import Kernels
from hush.parties.placement import current

_KEY, _NONCE, _BYTES = bytes(range(32)), bytes(12), 200


def try_kernels(kernels: Kernels) -> None:
    """Compile and run a few on a GPU and compare with the CPU's. ConfigError if they fail, or come out otherwise.

    An old Triton, a missing compiler and a GPU without code for it are found here. Main memory's need no trial.
    """
    if not kernels.seeds:
        return
    host, draw = backends.get(), torch.arange(-400, 400).reshape(20, 40) << 40
    try:
        with current(kernels.device):
            there = draw.to(kernels.device)
            mine = kernels.keystream(_KEY, _NONCE, _BYTES).cpu(), kernels.matmul(there, there.T, RING64).cpu()
    except Exception as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"{kernels.device} cannot run the kernels: {why}; use another GPU or the CPU") from error
    due = host.keystream(_KEY, _NONCE, _BYTES), host.matmul(draw, draw.T, RING64)
    if not all(torch.equal(a, b) for a, b in zip(mine, due, strict=True)):
        raise ConfigError(
            f"{kernels.device} computes wrongly: its kernels and the CPU's differ; use another GPU or the CPU"
        )
