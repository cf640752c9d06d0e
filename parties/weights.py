"""A stored model's weights at a party: read, decrypted and expanded one by one as they are first used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from hush.mpc.compiler.program import Program
from hush.mpc.errors import AbortReason, PartyError
from hush.mpc.secret import Shared
from hush.parties import shares
from hush.parties.vault import Reader, VaultError

FIRST = 2  # the section of the first weight: the announcement and the program come before


class StoredWeights(Mapping[str, Shared | Tensor]):
    """Weights by name, from a file. What was used stays in memory until `drop`: shared numbers take 16 bytes each.

    With `seeds` components that came as seeds stay seeds, and nothing stays in memory: who asks places it elsewhere.
    `broken` is told of a weight that cannot be read; whoever asked for it gets PartyError(STORAGE). Safe for threads.
    """

    def __init__(
        self,
        party: int,
        program: Program,
        dtypes: Sequence[str],
        vault: Reader,
        broken: Callable[[VaultError], None],
        *,
        seeds: bool = False,
    ) -> None:
        self._seeds = seeds
        self._party, self._program, self._dtypes, self._vault = party, program, list(dtypes), vault
        self._broken = broken
        self._index = {spec.name: i for i, spec in enumerate(program.weight_specs)}
        self._ready: dict[str, Shared | Tensor] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Shared | Tensor:
        index = self._index[name]
        with self._lock:
            if self._seeds:
                return self._load(index)
            if name not in self._ready:
                self._ready[name] = self._load(index)
            return self._ready[name]

    def _load(self, index: int) -> Shared | Tensor:
        try:
            frame = self._vault.read(FIRST + index)
        except VaultError as error:
            self._broken(error)
            raise PartyError(self._party, AbortReason.STORAGE, f"its stored weights: {error}") from None
        return shares.unpack_weight(self._party, self._program, self._dtypes, index, frame, seeded=self._seeds)

    def __contains__(self, name: object) -> bool:
        return name in self._index  # the mapping's own would load the weight

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"StoredWeights({len(self)})"

    @property
    def missing(self) -> int:
        """Bytes of memory that the weights not yet loaded will take."""
        if self._seeds:
            return max(self._sizes(), default=0)
        with self._lock:
            return sum(
                n for n, s in zip(self._sizes(), self._program.weight_specs, strict=True) if s.name not in self._ready
            )

    def _sizes(self) -> list[int]:
        return sizes_in_memory(self._party, self._program, self._dtypes, seeds=self._seeds)

    def drop(self) -> None:
        """Let go of what is in memory; it is loaded again when it is used again."""
        with self._lock:
            self._ready.clear()


def sizes_in_memory(party: int, program: Program, dtypes: Sequence[str], *, seeds: bool = False) -> list[int]:
    """Bytes that each weight takes in memory once it is in use: both components of a shared one; a public one as it
    came and as ring elements. With `seeds` each as it came."""
    element, sizes = program.ring.dtype.itemsize, shares.weight_sizes(party, program, dtypes)
    if seeds:
        return sizes
    if program.weights_mode == "public":
        return [n + element * shares.numel(s.shape) for n, s in zip(sizes, program.weight_specs, strict=True)]
    return [2 * element * shares.numel(s.shape) for s in program.weight_specs]
