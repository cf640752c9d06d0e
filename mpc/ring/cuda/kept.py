"""What was made of tensors that come again, kept on the device while they live: limbs of weights."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(slots=True)
class _Entry:
    owners: list[weakref.ref[Tensor]]
    versions: tuple[int, ...]
    asked: int
    made: Tensor | None  # None: there was no room


class Kept:
    """Tensors made of others, kept by what they are of and how they are used. Safe for threads: parties in one process
    share it, and so do sessions.

    Programs make views (a weight transposed, some columns) anew in each run. So a view is known by the tensor that it
    is of and by how it lies there, and what is made of it lives until that tensor dies or changes.

    At most so many bytes. A run takes all weights in turn: were the one used last always let in for the one used least
    recently, then of weights that are slightly too many none would ever be found. So what comes for the first time
    takes only free room, and what comes again takes that of tensors which were not used in between.
    """

    def __init__(self, most: int) -> None:
        self._most, self._bytes, self._turn = most, 0, 0
        self._found: OrderedDict[Hashable, _Entry] = OrderedDict()  # used least recently first
        self._lock = threading.RLock()  # a tensor may die, and call back, while its own thread holds it

    def limit(self, most: int) -> None:
        """Keep so many bytes from now on."""
        with self._lock:
            self._most = most
            for key in list(self._found):
                if self._bytes <= most:
                    break
                self._drop(key)

    def __call__(self, of: Sequence[Tensor], use: tuple[Hashable, ...], make: Callable[[], Tensor]) -> Tensor:
        """What `make` makes of some tensors, or made of them before for the same use."""
        if any(v.is_inference() for v in of):  # such tensors do not count their changes
            return make()
        key, owners, versions = _named(of, use)
        with self._lock:
            entry = self._known(key, owners, versions)
            if entry is not None and entry.made is not None:
                return entry.made
        made = make()
        with self._lock:
            self._keep(key, owners, versions, made)
        return made

    def holds(self, of: Sequence[Tensor], use: tuple[Hashable, ...]) -> bool:
        """Whether something made of them for this use is here."""
        if any(v.is_inference() for v in of):
            return False
        with self._lock:
            entry = self._known(*_named(of, use))
            return entry is not None and entry.made is not None

    def _known(self, key: Hashable, owners: Sequence[Tensor], versions: tuple[int, ...]) -> _Entry | None:
        """The entry of tensors as they are now."""
        entry = self._found.get(key)
        if entry is None or entry.versions != versions:
            return None
        if any(ref() is not owner for ref, owner in zip(entry.owners, owners, strict=True)):
            return None
        if entry.made is not None:
            self._touch(key, entry)
        return entry

    def _touch(self, key: Hashable, entry: _Entry) -> None:
        self._turn += 1
        entry.asked = self._turn
        self._found.move_to_end(key)

    def _keep(self, key: Hashable, owners: Sequence[Tensor], versions: tuple[int, ...], made: Tensor) -> None:
        if not 0 < made.nbytes <= self._most:
            return
        before = self._known(key, owners, versions)
        since = 0 if before is None else before.asked
        self._drop(key)
        refs = [weakref.ref(v, lambda _: self._drop(key)) for v in owners]
        self._found[key] = entry = _Entry(refs, versions, 0, None)
        self._touch(key, entry)
        if self._room(made.nbytes, since):
            entry.made = made
            self._bytes += made.nbytes

    def _room(self, nbytes: int, since: int) -> bool:
        """Whether there is room, once what was not used since some turn is gone, which it then is."""
        idle, spare = [], self._most - self._bytes
        for key, entry in list(self._found.items()):  # a tensor may die meanwhile
            if spare >= nbytes or entry.asked >= since:
                break
            if entry.made is not None:
                idle.append(key)
                spare += entry.made.nbytes
        if spare < nbytes:
            return False
        for key in idle:
            self._drop(key)
        return True

    def _drop(self, key: Hashable) -> None:
        with self._lock:
            entry = self._found.pop(key, None)
            if entry is not None and entry.made is not None:
                self._bytes -= entry.made.nbytes


def _named(of: Sequence[Tensor], use: tuple[Hashable, ...]) -> tuple[Hashable, list[Tensor], tuple[int, ...]]:
    """The key of something made of tensors, whose they are, and as of when."""
    owners = [v if v._base is None else v._base for v in of]
    return (*map(_place, of, owners), *use), owners, tuple(v._version for v in owners)


def _place(view: Tensor, owner: Tensor) -> Hashable:
    return id(owner), view.dtype, view.storage_offset(), view.size(), view.stride()
