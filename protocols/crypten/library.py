"""CrypTen itself: imported here and nowhere else, when it is first needed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

from hush.mpc.errors import UserError

VERSION = "0.4.1"
_OLD = "torch.onnx._internal.registration"
_NEW = "torch.onnx._internal.torchscript_exporter.registration"


@dataclass(frozen=True, slots=True)
class Library:
    """What Hush uses of the package. `Arithmetic` and `Binary` are its shared tensors, `to_binary` its A2B, `beaver`
    its protocols on triples, `communicator` the module that knows the other party, `settings` its configuration."""

    crypten: Any
    Arithmetic: Any
    Binary: Any
    beaver: Any
    to_binary: Any
    communicator: Any
    settings: Any


def installed() -> bool:
    """Whether the package is there. Imports nothing; a folder of that name on the path is not it."""
    spec = importlib.util.find_spec("crypten")
    return spec is not None and spec.origin is not None


def require() -> None:
    """UserError, which says how to install it, if CrypTen is not there. Imports nothing."""
    if not installed():
        raise UserError(
            "CrypTen is not installed: it is the extra `crypten`, for an environment of its own; there, say "
            f'pip install "torch==<the version you have>" "hush[crypten]" (crypten {VERSION}; docs/crypten.md has more)'
        )


@cache
def library() -> Library:
    """The package. UserError if it is not installed, or is another version than the one this was written for."""
    require()
    _mend_torch()
    import crypten
    import crypten.communicator
    from crypten.config import cfg
    from crypten.mpc.primitives import ArithmeticSharedTensor, BinarySharedTensor, beaver
    from crypten.mpc.primitives.converters import _A2B

    if crypten.__version__ != VERSION:
        raise UserError(
            f"crypten {crypten.__version__} is installed, and {VERSION} is the version that is known to serve"
        )
    return Library(crypten, ArithmeticSharedTensor, BinarySharedTensor, beaver, _A2B, crypten.communicator, cfg)


def _mend_torch() -> None:
    """CrypTen's reader of ONNX files imports a private module of torch by the name it had before torch 2.9. Hush reads
    no such files; the module only has to be there under the old name while CrypTen is imported."""
    if _OLD not in sys.modules and importlib.util.find_spec(_OLD) is None:
        sys.modules[_OLD] = importlib.import_module(_NEW)
