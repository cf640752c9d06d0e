"""A tensor that is a keystream, known by its key: nothing of it lies in memory until it is read.

Of a dealt tensor two of the three components are keystreams (`protocols.replicated.sharing`), so a party holds a seed
for one of its components or for both. `Seeded` is a tensor of such a component. Its views (transposed, sliced) are
seeded too: they say at which places of the stream their elements are. Kernels that know it expand it where they
multiply; any other operation of torch expands it first, for itself, and leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from hush.mpc.ring import backends
from hush.mpc.ring.ring import Ring

Source = Callable[[bytes, bytes, int], Tensor]
"""keystream(key, nonce, nbytes): uint8 [nbytes] on a device."""

_ATEN = torch.ops.aten
_VIEWS = (
    _ATEN.alias.default,
    _ATEN.as_strided.default,
    _ATEN.detach.default,
    _ATEN.expand.default,
    _ATEN.permute.default,
    _ATEN.select.int,
    _ATEN.slice.Tensor,
    _ATEN.squeeze.dim,
    _ATEN.t.default,
    _ATEN.transpose.int,
    _ATEN.unsqueeze.default,
    _ATEN.view.default,
)


class Seeded(Tensor):
    """Ring elements at places of a keystream: element [i, j...] is that at offset + i stride_0 + j stride_1 + ...

    The stream has `whole` elements. What is read is made by `source` on its device, all of the stream at once. It
    cannot be written to, copied to bytes or pickled, and its repr shows no key.
    """

    key: bytes
    nonce: bytes
    ring: Ring
    whole: int
    source: Source | None

    @staticmethod
    def __new__(
        cls,
        key: bytes,
        nonce: bytes,
        ring: Ring,
        places: Tensor,
        whole: int,
        device: torch.device,
        source: Source | None = None,
    ) -> Self:
        """`places`: a tensor without memory, laid out in the stream as this one is."""
        made: Self = torch.Tensor._make_wrapper_subclass(
            cls,
            places.shape,
            strides=places.stride(),
            storage_offset=places.storage_offset(),
            dtype=ring.dtype,
            device=device,
        )
        made.key, made.nonce, made.ring, made.whole, made.source = key, nonce, ring, whole, source
        return made

    def __init__(self, *_: object) -> None:
        """All is done by `__new__`."""

    @classmethod
    def of(cls, key: bytes, nonce: bytes, ring: Ring, shape: Sequence[int]) -> Self:
        """Elements of a shape from the start of the stream on, in main memory."""
        places = torch.empty(tuple(shape), dtype=ring.dtype, device="meta")
        return cls(key, nonce, ring, places, places.numel(), torch.device("cpu"))

    def on(self, device: torch.device, source: Source) -> Seeded:
        """The same, made elsewhere."""
        return Seeded(self.key, self.nonce, self.ring, self._places(), self.whole, device, source)

    def expanded(self) -> Tensor:
        """The elements, in all of the stream."""
        source = self.source or backends.get().keystream
        flat = self.ring.settle(source(self.key, self.nonce, self.whole * self.itemsize).view(self.dtype))
        return flat.as_strided(self.size(), self.stride(), self.storage_offset())

    def _places(self) -> Tensor:
        flat = torch.empty(self.whole, dtype=self.dtype, device="meta")
        return flat.as_strided(self.size(), self.stride(), self.storage_offset())

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Seeded(shape={tuple(self.shape)}, ring=2^{self.ring.bits}, device={self.device})"

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError("a seeded tensor holds a key: it is never pickled")

    def __deepcopy__(self, memo: object) -> Self:
        raise TypeError("a seeded tensor holds a key: it is never copied")

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _VIEWS:
            of: Seeded = args[0]
            places = func(of._places(), *args[1:], **kwargs)
            return Seeded(of.key, of.nonce, of.ring, places, of.whole, of.device, of.source)
        _refuse_to_write(func, args, kwargs)
        return func(*[expanded(a) for a in args], **{name: expanded(a) for name, a in kwargs.items()})


def expanded(value: Any) -> Any:
    """A value, or those of a list, with what is seeded expanded."""
    if isinstance(value, Seeded):
        return value.expanded()
    if isinstance(value, (list, tuple)):
        return type(value)(expanded(v) for v in value)
    return value


def _refuse_to_write(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The operation would write to what was expanded for it, and nobody would see that."""
    for i, argument in enumerate(func._schema.arguments):
        value = kwargs.get(argument.name, args[i] if i < len(args) else None)
        if isinstance(value, Seeded) and argument.alias_info is not None and argument.alias_info.is_write:
            raise TypeError(f"{func} would write to a seeded tensor: clone it first")
