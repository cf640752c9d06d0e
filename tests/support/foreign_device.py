"""A device that is not there: what runs on it without an error, and where it waits, holds for a GPU as well.

A `Foreign` tensor says that it lies on the device "foreign" and holds main memory, which nothing but this file reads.
With `foreign()` a backend of that name computes on such tensors: the GPU's own kernels, in Triton's interpreter, so
TRITON_INTERPRET=1 must be set before anything of Hush is imported. `WAITS` counts where the host would wait.

It refuses, as CUDA does: operands here and there in one operation (but for numbers without dimensions, where kernels
take them), `.numpy()`, products of integer matrices by torch, and kernels that are given main memory. It counts as a
wait, by the file and function of Hush that it is in: a copy to the host; one from it that is not queued, or is of more
bytes than CUDA takes a copy of (`beside.SMALL`); a number that is read (`int(x)`, `if x`); what makes a shape of values
(`nonzero`, a boolean index); a list or a tensor in main memory as an index; and what a round sends.

Keystreams are made by the CPU's kernels, the same bits in a hundredth of the time.

It cannot show: what Triton's compiler makes of the kernels; races between streams, or reads of pinned buffers that are
written again too early; memory, and time; operations that CUDA lacks and this file does not name. Of a copy that is
queued it takes on trust that CUDA does as its manual says.
"""

from __future__ import annotations

import os
import pkgutil
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from hush.mpc.beside import SMALL
from hush.mpc.copies import Copies, Copy
from hush.mpc.ring import backends
from hush.parties import engine

NAME = "foreign"
_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(NAME, 0)

Site = tuple[str, str]
"""A file of Hush, and a function in it."""
WAITS: Counter[Site] = Counter()

_LOCK = threading.Lock()
_ROOT = Path(__file__).parents[2]
_ATEN = torch.ops.aten
_INDEXED = {_ATEN.index.Tensor, _ATEN.index_put_.default, _ATEN.index_put.default, _ATEN._index_put_impl_.default}
_OF_VALUES = {
    _ATEN._local_scalar_dense.default,
    _ATEN._unique2.default,
    _ATEN.argwhere.default,
    _ATEN.bincount.default,
    _ATEN.equal.default,
    _ATEN.is_nonzero.default,
    _ATEN.masked_select.default,
    _ATEN.nonzero.default,
    _ATEN.repeat_interleave.Tensor,
}
"""What needs values to know what comes next."""
_JOINS = {_ATEN.cat.default, _ATEN.gather.default, _ATEN.stack.default}
"""What takes no numbers from main memory."""
_PRODUCTS = {
    getattr(_ATEN, name).default
    for name in ["addmm", "addmv", "baddbmm", "bmm", "convolution", "dot", "im2col", "mm", "mv", "unfold_backward"]
}


class Foreign(Tensor):
    """A tensor on the device; `held` has its elements."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Foreign:
        made: Foreign = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"Foreign({tuple(self.shape)}, {self.dtype})"

    def __getitem__(self, index: Any) -> Any:
        return Tensor.__getitem__(self, _index(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        Tensor.__setitem__(self, _index(index), value)

    def tolist(self) -> Any:
        _wait()
        return self.held.tolist()


class _Everywhere(TorchDispatchMode):
    """Of this thread, operations without a `Foreign` operand too: they may make one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _wait() -> None:
    """Count the innermost function of Hush that is running, but for what only copies for others."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(os.path.realpath(frame.f_code.co_filename))
        inside = path.is_relative_to(_ROOT) and path.relative_to(_ROOT).parts[0] in ("mpc", "protocols", "parties")
        if inside and path.name != "beside.py":
            function = frame.f_code.co_qualname.partition(".<locals>")[0]
            with _LOCK:
                WAITS[str(path.relative_to(_ROOT)), function] += 1
            return
        frame = frame.f_back  # type: ignore[assignment]


def _index(index: Any) -> Any:
    """A list is a copy that is waited for."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    if isinstance(index, list):
        _wait()
        return Foreign(torch.tensor(index, dtype=None if index and isinstance(index[0], bool) else torch.int64))
    return index


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Foreign) else value


def _there(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """One operation: refused, or done on what the operands hold."""
    if func is _ATEN._to_copy.default:
        return _moved(args[0], kwargs)
    if func is _ATEN.copy_.default:
        return _copied(*args, **kwargs)
    operands = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    own = [t for t in operands if isinstance(t, Foreign)]
    if own:
        _check(func, args, operands, own)
    made_there = _there(kwargs["device"]) if kwargs.get("device") is not None else bool(own)
    kwargs = {k: v for k, v in kwargs.items() if k != "pin_memory"}
    if kwargs.get("device") is not None and made_there:
        kwargs["device"] = torch.device("cpu")
    plain_args, plain_kwargs = tree_map(_held, (list(args), kwargs))
    out = func(*plain_args, **plain_kwargs)
    if isinstance(out, Tensor) and own:  # written in place: the very operand
        for given, plain in zip(
            tree_leaves((list(args), kwargs)), tree_leaves((plain_args, plain_kwargs)), strict=True
        ):
            if out is plain:
                return given
    return tree_map(lambda t: Foreign(t) if made_there and isinstance(t, Tensor) else t, out)


def _moved(value: Tensor, kwargs: dict[str, Any]) -> Tensor:
    """`.to(...)`: of device, dtype, or both."""
    source = isinstance(value, Foreign)
    target = source if kwargs.get("device") is None else _there(kwargs["device"])
    if source != target:
        _copy(value, source, bool(kwargs.get("non_blocking")))
    more = {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking", "pin_memory")}
    if not source and not target and kwargs.get("device") is not None:
        more["device"] = kwargs["device"]
    out: Tensor = _ATEN._to_copy.default(_held(value), **more)
    return Foreign(out) if target else out


def _copied(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    there, here = isinstance(target, Foreign), not isinstance(source, Foreign)
    if there == here:
        _copy(source, not here, non_blocking)
    _held(target).copy_(_held(source))
    return target


def _copy(value: Tensor, to_host: bool, queued: bool) -> None:
    if to_host or not queued or value.nbytes > SMALL:
        _wait()


def _check(func: Any, args: Sequence[Any], operands: list[Tensor], own: list[Foreign]) -> None:
    """Refuse what CUDA refuses; count what it waits for."""
    here = [t for t in operands if not isinstance(t, Foreign)]
    if func in _PRODUCTS and not own[0].is_floating_point():
        raise RuntimeError(f"{func} of {own[0].dtype} is not there on a GPU")
    if func in _OF_VALUES:
        _wait()
    if func in _INDEXED and isinstance(args[0], Foreign):
        places = [i for i in args[1] if i is not None]
        if any(i.dtype == torch.bool or not isinstance(i, Foreign) for i in places):
            _wait()
        here = [t for t in args[2:3] if not isinstance(t, Foreign)]
        if here:
            _wait()
    written = isinstance(args[0], Tensor) and not isinstance(args[0], Foreign) and func._schema.is_mutable
    if here and (func in _JOINS or written or any(t.ndim for t in here)):
        shapes = [tuple(t.shape) for t in own], [tuple(t.shape) for t in here]
        raise RuntimeError(f"{func} of tensors {shapes[0]} on a device and {shapes[1]} in main memory")


class _Lanes:
    """Copies that are done at once, and waits that are counted."""

    device = DEVICE

    def pinned(self, nbytes: int) -> Tensor:
        return torch.full((nbytes,), 0xAB, dtype=torch.uint8)

    def leave(self, copies: Sequence[Copy]) -> _Lanes:
        for target, source in copies:
            _held(target).copy_(_held(source))
        return self

    enter = leave

    def wait(self) -> None:
        _wait()

    def passed(self) -> bool:
        return True


@contextmanager
def foreign() -> Iterator[None]:
    """`backend="foreign"` meanwhile."""
    import hush.mpc.ring.cuda as package
    from hush.mpc.ring.cuda import chacha
    from hush.mpc.ring.cuda.backend import CudaKernels
    from hush.mpc.ring.cuda.launch import launch as started

    found, copies, infer, make = backends.get, engine.copies_for, engine.Engine.infer, torch.tensor
    with _disable_current_modes():
        kernels = CudaKernels(DEVICE, kept=1 << 20)

    def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        here = [tuple(t.shape) for t in arguments if isinstance(t, Tensor) and not isinstance(t, Foreign)]
        if here:
            raise RuntimeError(f"{kernel} is given tensors {here} in main memory")
        with _disable_current_modes():
            started(kernel, grid, *map(_held, arguments), **options)

    def keystream(key: bytes, nonce: bytes, nbytes: int, device: torch.device) -> Tensor:
        drawn = found().keystream(key, nonce, nbytes)
        return Foreign(drawn) if device == DEVICE else drawn.to(device)

    def tensor(data: Any, **kwargs: Any) -> Tensor:
        device = kwargs.pop("device", None)
        made = make(data, **kwargs) if _there(device) else make(data, device=device, **kwargs)
        return made.to(DEVICE) if _there(device) else made

    def everywhere(self: engine.Engine, *args: Any, **kwargs: Any) -> Any:
        with _Everywhere():
            return infer(self, *args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(patch.object(backends, "get", lambda name=None: kernels if name == NAME else found(name)))
        stack.enter_context(patch.object(engine.Engine, "infer", everywhere))
        stack.enter_context(patch.object(torch, "tensor", tensor))
        stack.enter_context(patch.object(chacha, "keystream", keystream))
        lanes = patch.object(engine, "copies_for", lambda d: Copies(_Lanes()) if d == DEVICE else copies(d))
        stack.enter_context(lanes)
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if hasattr(import_module(module.name), "launch") and not module.name.endswith(".launch"):
                stack.enter_context(patch.object(import_module(module.name), "launch", launch))
        stack.enter_context(_Everywhere())
        yield
