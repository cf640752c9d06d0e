"""Public weights as ring elements, encoded once: encoding costs more passes over a weight than its product does."""

from __future__ import annotations

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from hush.mpc.fixed_point import encode
from hush.mpc.ring import Ring


class Encoded:
    """The encodings of public tensors, kept while the tensors live and made again where one was changed in place."""

    def __init__(self) -> None:
        self._kept = WeakTensorKeyDictionary()

    def __call__(self, value: Tensor, ring: Ring, frac: int) -> Tensor:
        """round(value * 2^frac) in the ring."""
        if value.is_inference():  # such tensors do not count their changes
            return encode(value, ring, frac)
        known: dict[tuple[int, Ring, int], Tensor] = self._kept.setdefault(value, {})  # type: ignore[no-untyped-call]
        kind = (value._version, ring, frac)
        if kind not in known:
            for stale in [old for old in known if old[0] != value._version]:
                del known[stale]
            known[kind] = encode(value, ring, frac)
        return known[kind]
