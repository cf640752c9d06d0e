"""How much of a GPU's memory a party may take, and what of it is taken."""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable, Sequence

import torch

from hush.mpc.compiler.program import Program
from hush.mpc.errors import AbortReason, ConfigError, PartyError
from hush.mpc.ring import backends
from hush.parties.footprint import Footprint, footprint

GIB = 1 << 30
_UNITS = {"": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": GIB, "TIB": 1 << 40}
_UNITS |= {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_CONTEXT = GIB  # what CUDA itself takes of a card for each process, at most
_MARGIN = 8  # one part in so many is never promised to limbs: allocators waste some, and the work is an estimate

Amount = int | str
"""Bytes, "40 GiB", or "1/3": of what is free when the party starts, divided among so many processes."""


def checked(amount: Amount) -> Amount:
    """The amount itself; ValueError if it is none."""
    within(amount, 0)
    return amount


def within(amount: Amount | None, free: int) -> int:
    """Bytes of an amount, on a card of which so many are free; all of those for None."""
    if amount is None:
        return free
    text = str(amount).strip()
    if part := re.fullmatch(r"1/([1-9]\d{0,2})", text):
        parts = int(part[1])
        return max(0, free - (parts - 1) * _CONTEXT) // parts
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text)
    if found is None or found[2].upper() not in _UNITS or float(found[1]) == 0:
        raise ValueError(f'{text!r} is no amount of memory: say bytes, "40 GiB", or "1/3" of what is free')
    return int(float(found[1]) * _UNITS[found[2].upper()])


class Claim:
    """Memory that a session was promised, for as long as somebody holds this."""

    def __init__(self, party: int, nbytes: int) -> None:
        self.party, self.nbytes = party, nbytes


class Card:
    """A process's part of a GPU's memory, in equal parts for the parties in it. Safe for threads.

    `keep` is told how many bytes no session was promised: for limbs of weights, which only save time.
    """

    def __init__(
        self, name: str, most: int, parties: int = 1, keep: Callable[[int], None] = lambda nbytes: None
    ) -> None:
        self.each = most // parties
        self._name, self._most, self._keep = name, most, keep
        self._claims = weakref.WeakSet[Claim]()
        self._known = dict[str, Footprint]()
        self._lock = threading.Lock()

    def claim(self, party: int, program: Program) -> Claim:
        """Room for a session with a program. PartyError(LIMIT) names the sizes if the party's part has none left."""
        need = self._footprint(program)
        with self._lock:
            taken = sum(claim.nbytes for claim in self._claims if claim.party == party)
            if taken + need.whole > self.each:
                raise PartyError(party, AbortReason.LIMIT, self._refusal(need, taken))
            made = Claim(party, need.whole)
            self._claims.add(made)
            left = self._most - sum(claim.nbytes for claim in self._claims)
        self._keep(max(0, left - self._most // _MARGIN))
        return made

    def _footprint(self, program: Program) -> Footprint:
        digest = program.digest
        if digest not in self._known:
            self._known[digest] = footprint(program)
        return self._known[digest]

    def _refusal(self, need: Footprint, taken: int) -> str:
        size = f"{shown(need.weights)} of weights and about {shown(need.work)} for an inference"
        room = f"its device_memory on {self._name} is {shown(self.each)}"
        if taken:
            return f"the model takes {size}; {room}, of which open sessions have {shown(taken)}: try later, or raise it"
        return f"the model takes {size}; {room}: raise it, use fewer parties on one GPU, shorter inputs, or the CPU"


def card(backend: str | None, amount: Amount | None, parties: int = 1, *, enforce: bool = False) -> Card | None:
    """The part of the GPU that kernels of this name compute on; None for main memory.

    With `enforce` the allocator is held to it: for a process that does nothing else. ConfigError if it is not free.
    """
    kernels = backends.get(backend)
    device = kernels.device
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    most = within(amount, free)
    if not 0 < most <= free:
        raise ConfigError(
            f"device_memory is {shown(most)}, and {shown(free)} are free on {device}: say less, or free some"
        )
    if enforce:
        torch.cuda.set_per_process_memory_fraction(most / total, device)
    keep: Callable[[int], None] = getattr(kernels, "keep", lambda nbytes: None)
    return Card(str(device), most, parties, keep)


def cards(backends_: Sequence[str | None], amount: Amount | None) -> list[Card | None]:
    """`card` of each of a process's parties: those on one GPU have one together."""
    devices = [backends.get(name).device for name in backends_]
    made = {d: card(name, amount, devices.count(d)) for d, name in zip(devices, backends_, strict=True)}
    return [made[d] for d in devices]


def shown(nbytes: int) -> str:
    """Bytes for people: "1.5 GiB"."""
    unit, name = (GIB, "GiB") if nbytes >= GIB // 10 else (1 << 20, "MiB")
    return f"{nbytes / unit:.1f} {name}"
