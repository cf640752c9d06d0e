"""Hush: PyTorch transformers on prompts no server ever sees.

    program = hush.compile(module, (example,))      # torch.export graph -> program over secret shares
    hush.compare(module, (example,))                # plaintext beside secure, with errors and costs
    client = hush.connect("client.toml")            # private inference on three running parties
    client.infer("minilm", ids, mask)

Everything is imported on first use, so that `import hush` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hush.api import compile, compile_generator, load
    from hush.mpc.compiler import Program
    from hush.mpc.errors import (
        ConfigError,
        HushError,
        HushWarning,
        ModelError,
        PartyError,
        ProgramError,
        ProtocolError,
        RangeError,
        ShapeError,
        UnsupportedOp,
        UserError,
    )
    from hush.parties.client import AsyncClient, Client, connect, connect_async, deploy
    from hush.parties.compare import Comparison, compare

__version__ = "0.1.0"

_ERRORS = (
    "ConfigError",
    "HushError",
    "HushWarning",
    "ModelError",
    "PartyError",
    "ProgramError",
    "ProtocolError",
    "RangeError",
    "ShapeError",
    "UnsupportedOp",
    "UserError",
)
_HOMES = {
    "compile": "hush.api",
    "compile_generator": "hush.api",
    "load": "hush.api",
    "Program": "hush.mpc.compiler",
    "AsyncClient": "hush.parties.client",
    "Client": "hush.parties.client",
    "connect": "hush.parties.client",
    "connect_async": "hush.parties.client",
    "deploy": "hush.parties.client",
    "Comparison": "hush.parties.compare",
    "compare": "hush.parties.compare",
} | dict.fromkeys(_ERRORS, "hush.mpc.errors")

__all__ = [
    "AsyncClient",
    "Client",
    "Comparison",
    "ConfigError",
    "HushError",
    "HushWarning",
    "ModelError",
    "PartyError",
    "Program",
    "ProgramError",
    "ProtocolError",
    "RangeError",
    "ShapeError",
    "UnsupportedOp",
    "UserError",
    "compare",
    "compile",
    "compile_generator",
    "connect",
    "connect_async",
    "deploy",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hush' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
