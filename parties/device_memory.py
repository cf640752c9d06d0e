"""How much of a GPU's memory a party may take, and what of it is taken."""

from __future__ import annotations

import re
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch

from hush.mpc.compiler.program import Program
from hush.mpc.cost import PARTIES
from hush.mpc.errors import AbortReason, ConfigError, PartyError
from hush.mpc.ring import backends
from hush.mpc.ring.kernels import Kernels
from hush.parties.footprint import Footprint, footprint
from hush.parties.placement import Placed, guarded
from hush.parties.streamed import streamed

GIB = 1 << 30
_UNITS = {"": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": GIB, "TIB": 1 << 40}
_UNITS |= {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_CONTEXT = GIB  # what CUDA itself takes of a card for each process, at most
_MARGIN = 8  # one part in so many is never promised to limbs: allocators waste some, and the work is an estimate

Amount = int | str
"""Bytes, "40 GiB", or "1/3": a part of the card."""


def checked(amount: Amount) -> Amount:
    """The amount itself; ValueError if it is none."""
    within(amount, 0, 0)
    return amount


def within(amount: Amount | None, free: int, total: int) -> int:
    """Bytes of an amount, on a card of so many bytes of which so many are free; all of those for None.

    A part is one of the whole card, so that a process that starts anew finds as much as before; less what CUDA takes
    for three processes, and never more than is free.
    """
    if amount is None:
        return free
    text = str(amount).strip()
    part = re.fullmatch(r"([1-9]\d{0,2})/([1-9]\d{0,2})", text)
    if part is not None and int(part[1]) <= int(part[2]):
        return min(free, max(0, total - PARTIES * _CONTEXT) * int(part[1]) // int(part[2]))
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text)
    if found is None or found[2].upper() not in _UNITS or float(found[1]) == 0:
        raise ValueError(f'{text!r} is no amount of memory: say bytes, "40 GiB", or "1/3" of the card')
    return int(float(found[1]) * _UNITS[found[2].upper()])


class Tenant:
    """A model that takes memory. What was placed for it is let go when it is no more."""


class Room:
    """What a session was promised, until `close`: memory for its work, and its model's weights on the device."""

    def __init__(
        self, device: torch.device, placed: Placed, leave: Callable[[], None], lost: Callable[[str], None]
    ) -> None:
        self.placed, self._device, self._lost = placed, device, lost
        self._leave = weakref.finalize(self, leave)

    def guarded(self, party: int) -> AbstractContextManager[None]:
        """`placement.guarded` by its card."""
        return guarded(party, self._device, self._lost)

    def close(self) -> None:
        """Give it back."""
        self._leave()


@dataclass(eq=False, slots=True)
class _Model:
    """Weights of a model at a party, and who works with them."""

    placed: Placed
    nbytes: int
    sessions: int = 0
    used: int = 0


class Card:
    """A process's part of a GPU's memory, for all parties in it. Safe for threads.

    The sessions of a model share its weights, which stay when they end, until others need the room. Where a model does
    not fit otherwise, its large weights stay seeds at whom they came to as seeds (`parties.streamed`). `keep` is told
    how many bytes nobody was promised: for limbs of weights, which only save time.
    """

    def __init__(self, kernels: Kernels, most: int, keep: Callable[[int], None] = lambda nbytes: None) -> None:
        self.most = most
        self._kernels, self._name, self._keep = kernels, str(kernels.device), keep
        self._models: list[WeakKeyDictionary[Tenant, _Model]] = [WeakKeyDictionary() for _ in range(PARTIES)]
        self._work: dict[object, int] = {}
        self._left = deque[tuple[object, _Model]]()
        self._known = dict[str, Footprint]()
        self._clock, self._lost = 0, ""
        self._watchers: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def watch(self, told: Callable[[], None]) -> None:
        """Call this when the GPU is lost."""
        self._watchers.append(told)

    def claim(self, party: int, program: Program, tenant: Tenant) -> Room:
        """Room for a party's session of a model. PartyError(LIMIT) names the sizes if there is none left."""
        return self.claims([party], program, tenant)[0]

    def claims(
        self, parties: Sequence[int], program: Program, tenant: Tenant, *, seeds: bool | None = None
    ) -> list[Room]:
        """Room for the parties of a session that are here, which take it together.

        `seeds`: whether weights that may stay seeds do, if the model is not there yet; by default where it must be so.
        """
        need = self._footprint(program)
        with self._lock:
            self._settle()
            if self._lost:
                raise PartyError(parties[0], AbortReason.INTERNAL, self._lost)
            models = self._here(parties, tenant, need, seeds) or self._fitting(parties, program, need, seeds)
            works = [need.work + (need.scratch if model.placed.streams else 0) for model in models]
            weights = sum(model.nbytes for model in models)
            if self._busy(models) + weights + sum(works) > self.most:
                detail = self._refusal(weights, sum(works), len(parties), self._busy([]))
                raise PartyError(parties[0], AbortReason.LIMIT, detail)
            self._make_room(self.most - weights - sum(works), models)
            for party, model in zip(parties, models, strict=True):
                self._models[party][tenant] = model
            return [self._enter(model, work) for model, work in zip(models, works, strict=True)]

    def _here(self, parties: Sequence[int], tenant: Tenant, need: Footprint, seeds: bool | None) -> list[_Model]:
        """The model's weights, if all of these parties have them; not those that were left as seeds when others had the
        room, once it is free and nobody works with them, unless they are asked for."""
        found = [self._models[party][tenant] for party in parties if tenant in self._models[party]]
        if len(found) < len(parties):
            return []
        idle = seeds is None and all(model.placed.streams and not model.sessions for model in found)
        return [] if idle and self._busy([]) + len(parties) * need.whole <= self.most else found

    def _fitting(self, parties: Sequence[int], program: Program, need: Footprint, seeds: bool | None) -> list[_Model]:
        """With all weights expanded, or with seeds if that does not fit."""
        fits = self._busy([]) + len(parties) * need.whole <= self.most
        if fits if seeds is None else not seeds:
            return [_Model(Placed(self._kernels), need.weights) for _ in parties]
        names = streamed(program)
        return [_Model(Placed(self._kernels, names), need.with_seeds(party)) for party in parties]

    def _busy(self, apart: Sequence[_Model]) -> int:
        """Bytes that sessions work with, but for the weights of some models."""
        models = [m for held in self._models for m in held.values()]
        return sum(self._work.values()) + sum(m.nbytes for m in models if m.sessions and m not in apart)

    def _make_room(self, most: int, apart: Sequence[_Model]) -> None:
        """Let go of weights that nobody works with, the longest unused first, until no more than so many are taken."""
        held = [(models, tenant, m) for models in self._models for tenant, m in models.items()]
        idle = [entry for entry in held if not entry[2].sessions and entry[2] not in apart]
        taken = self._busy(apart) + sum(m.nbytes for _, _, m in idle)
        for models, tenant, model in sorted(idle, key=lambda entry: entry[2].used):
            if taken <= most:
                return
            del models[tenant]
            model.placed.clear()
            taken -= model.nbytes

    def _enter(self, model: _Model, work: int) -> Room:
        ticket = object()

        def leave() -> None:
            self._left.append((ticket, model))
            if self._lock.acquire(blocking=False):  # the collector may be here, in a thread that holds this or another
                try:
                    self._settle()
                finally:
                    self._lock.release()

        self._work[ticket] = work
        model.sessions += 1
        self._tell()
        return Room(self._kernels.device, model.placed, leave, self._lose)

    def _settle(self) -> None:
        """Take back what was given back."""
        if not self._left:
            return
        while self._left:
            ticket, model = self._left.popleft()
            del self._work[ticket]
            self._clock += 1
            model.sessions, model.used = model.sessions - 1, self._clock
        self._tell()

    def _tell(self) -> None:
        held = sum(m.nbytes for models in self._models for m in models.values())
        self._keep(max(0, self.most - held - sum(self._work.values()) - self.most // _MARGIN))

    def _lose(self, why: str) -> None:
        with self._lock:
            self._lost = why
        for told in self._watchers:
            told()

    def _footprint(self, program: Program) -> Footprint:
        digest = program.digest
        if digest not in self._known:
            self._known[digest] = footprint(program)
        return self._known[digest]

    def _refusal(self, weights: int, work: int, parties: int, taken: int) -> str:
        size = f"{shown(weights)} of weights and about {shown(work)} for an inference"
        size += f", {parties} parties together" if parties > 1 else ""
        room = f"device_memory on {self._name} is {shown(self.most)}"
        if taken:
            return f"the model takes {size}; {room}, of which open sessions have {shown(taken)}: try later, or raise it"
        return f"the model takes {size}; {room}: raise it, use fewer parties on one GPU, shorter inputs, or the CPU"


def card(backend: str | None, amount: Amount | None, *, enforce: bool = False) -> Card | None:
    """The part of the GPU that kernels of this name compute on; None for main memory.

    With `enforce` the allocator is held to it: for a process that does nothing else. ConfigError if it is not free.
    """
    kernels = backends.get(backend)
    device = kernels.device
    if device.type != "cuda":
        return None
    try:
        free, total = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(
            device
        )  # torch keeps it for this process
    except RuntimeError as error:
        raise ConfigError(f"{device} cannot be used: {str(error).splitlines()[0]}") from None
    most = within(amount, free, total)
    if not 0 < most <= free:
        raise ConfigError(
            f"device_memory is {shown(most)}, and {shown(free)} are free on {device}: say less, or free some"
        )
    if enforce:
        torch.cuda.set_per_process_memory_fraction(most / total, device)
    keep: Callable[[int], None] = getattr(kernels, "keep", lambda nbytes: None)
    return Card(kernels, most, keep)


def cards(backends_: Sequence[str | None], amount: Amount | None) -> list[Card | None]:
    """`card` of each of a process's parties: those on one GPU have one together."""
    devices = [backends.get(name).device for name in backends_]
    made = {d: card(name, amount) for d, name in zip(devices, backends_, strict=True)}
    return [made[d] for d in devices]


def shown(nbytes: int) -> str:
    """Bytes for people: "1.5 GiB"."""
    unit, name = (GIB, "GiB") if nbytes >= GIB // 10 else (1 << 20, "MiB")
    return f"{nbytes / unit:.1f} {name}"
