"""Public weights as ring elements, encoded once: encoding costs more passes over a weight than its product does."""

from __future__ import annotations

import threading

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from hush.mpc.fixed_point import encode
from hush.mpc.ring import Ring


class Encoded:
    """The encodings of public tensors, kept while the tensors live and made again where one was changed in place.

    A view (transposed, a slice) is read from the encoding of what it is a view of: programs make views anew each run.
    Safe for threads: sessions of one model share it.
    """

    def __init__(self) -> None:
        self._kept = WeakTensorKeyDictionary()
        self._lock = threading.Lock()

    def __call__(self, value: Tensor, ring: Ring, frac: int) -> Tensor:
        """round(value * 2^frac) in the ring."""
        if value.is_inference():  # such tensors do not count their changes
            return encode(value, ring, frac)
        whole = value._base
        if whole is None:
            return self._encoding(value, value, ring, frac)
        if not whole.is_contiguous() or whole.storage_offset() or whole.nbytes % value.itemsize:
            return encode(value, ring, frac)
        flat = self._encoding(whole, whole.reshape(-1).view(value.dtype), ring, frac)
        return flat.as_strided(value.size(), value.stride(), value.storage_offset())

    def _encoding(self, owner: Tensor, value: Tensor, ring: Ring, frac: int) -> Tensor:
        """Of all of a tensor, kept as long as its owner lives and does not change."""
        kind = (owner._version, value.dtype, ring, frac)
        with self._lock:
            known: dict[tuple[object, ...], Tensor] = self._kept.setdefault(owner, {})  # type: ignore[no-untyped-call]
            if kind not in known:
                for stale in [old for old in known if old[0] != owner._version]:
                    del known[stale]
                known[kind] = encode(value, ring, frac)
            return known[kind]
