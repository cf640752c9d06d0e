"""Three replicated parties in one process, for tests: share, run in lockstep, reveal, compare with the predicted cost.

trio = Trio()
x = trio.share(torch.randn(4))
y = trio.run(lambda p, a: p.mul(a, a), x)
trio.reveal(y), trio.traffic, trio.predict(lambda p, a: p.mul(a, a), x)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hush.mpc import fixed_point
from hush.mpc.cost import Cost, Traffic, total
from hush.mpc.points import Points
from hush.mpc.prg import KEY_BYTES, Randomness, Stream
from hush.mpc.protocol import Protocol
from hush.mpc.ring import RING64, Ring, backends
from hush.mpc.ring.kernels import Kernels
from hush.mpc.schedule import LAN, Schedule
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.session import simulate
from hush.mpc.step import Step, done
from hush.protocols.replicated import lookup
from hush.protocols.replicated.cost import ReplicatedCost
from hush.protocols.replicated.party import Party
from hush.protocols.replicated.protocol import Replicated

Secret = list[Shared]  # one handle per party
SecretBits = list[SharedBits]
Program = Callable[..., Any]  # (protocol, *handles or public values) -> a step, or a value if it is local


class Trio:
    """Three `Replicated` parties with ChaCha20 streams: under `keys` (keys[i] is shared by parties i and i+1), or keys
    made from `seed` to repeat a run, or fresh ones.

    `traffic` holds the rounds of the last run. A secret is a list of three handles, one per party; any other argument
    of `run` is public and handed to every party as it is.
    """

    def __init__(
        self,
        ring: Ring = RING64,
        frac: int = 18,
        kernels: Kernels | None = None,
        seed: int | None = None,
        keys: Sequence[bytes] | None = None,
        schedule: Schedule = LAN,
    ) -> None:
        self.ring, self.frac, self.schedule = ring, frac, schedule
        self.kernels = backends.get() if kernels is None else kernels
        self._dealer = torch.Generator().manual_seed(int.from_bytes(os.urandom(7), "big") if seed is None else seed)
        self.keys = [self._bytes(KEY_BYTES) for _ in range(3)] if keys is None else list(keys)
        self.parties = [Party(i, self._stream(i), self._stream((i - 1) % 3), self.kernels) for i in range(3)]
        self.protocols = [Replicated(party, ring, frac, schedule) for party in self.parties]
        self.traffic: list[Traffic] = []

    # ------------------------------------------------------------------ sharing and revealing
    def share(self, value: Tensor | float, *, frac: int | None = None, ring: Ring | None = None) -> Secret:
        """A fresh sharing of real values."""
        scale, kind = self.frac if frac is None else frac, self.ring if ring is None else ring
        return self.share_elements(fixed_point.encode(value, kind, scale), frac=scale, ring=kind)

    def share_elements(self, element: Tensor, *, frac: int = 0, ring: Ring | None = None) -> Secret:
        """A fresh sharing of ring elements."""
        kind = self.ring if ring is None else ring
        element = kind.reduce(element)
        a, b = (self._uniform(element.shape, kind) for _ in range(2))
        return self.deal((a, b, kind.reduce(element - a - b)), frac=frac, ring=kind)

    def deal(self, components: Sequence[Tensor], *, frac: int = 0, ring: Ring | None = None) -> Secret:
        """The handles of three given components."""
        kind = self.ring if ring is None else ring
        return [Shared((components[i], components[(i + 1) % 3]), frac, kind) for i in range(3)]

    def share_bits(self, bits: Tensor) -> SecretBits:
        """A fresh XOR sharing of bits [planes, *shape] (0 or 1)."""
        packed = torch.cat([self.kernels.to_planes(plane.to(torch.int64), 1, RING64) for plane in bits])
        a, b = (self._uniform(packed.shape, RING64) for _ in range(2))
        parts = (a, b, packed ^ a ^ b)
        return [SharedBits((parts[i], parts[(i + 1) % 3]), bits.shape[1:]) for i in range(3)]

    def deal_places(self, places: Tensor, classes: int) -> list[Points]:
        """Fresh keys of places."""
        return [Points(keys, classes) for keys in lookup.deal(places, classes)]

    def elements(self, secret: Secret) -> Tensor:
        """The ring elements of a secret, after checking that both copies of each component agree."""
        parts = self._components(secret)
        return secret[0].ring.reduce(parts[0] + parts[1] + parts[2])

    def reveal(self, secret: Secret) -> Tensor:
        """The float64 values of a secret."""
        return fixed_point.decode(self.elements(secret), secret[0].ring, secret[0].frac)

    def reveal_bits(self, secret: SecretBits) -> Tensor:
        """int64 [planes, *shape] of 0 and 1; bits past the last element are not read."""
        spread = [replace(s, parts=tuple(self._spread(p, s) for p in s.parts)) for s in secret]
        a, b, c = self._components(spread)
        return (a ^ b ^ c).reshape(secret[0].planes, *secret[0].shape)

    # ------------------------------------------------------------------ running
    def run(self, program: Program, *args: Any) -> Any:
        """Run a program at all three parties in lockstep.

        Returns one list of three per result: a list for a program that returns one value, a tuple of lists for one that
        returns a tuple.
        """
        steps = [party_step(self, program, i, args) for i in range(3)]
        results, self.traffic = simulate(steps)
        self._check_streams()
        if isinstance(results[0], tuple):
            return tuple(list(r) for r in zip(*results, strict=True))
        return results

    @property
    def cost(self) -> Cost:
        """Measured cost of the last run."""
        return total(self.traffic)

    def predict(self, program: Program, *args: Any) -> list[Traffic]:
        """The rounds that the cost model foresees for the program on arguments of these shapes."""
        model = ReplicatedCost(self.ring, self.frac, self.schedule)
        step = _step(program, model, [_meta(_for_party(a, 0)) for a in args])
        rounds: list[Traffic] = []
        for traffic in step:
            rounds.append(traffic)
        return rounds

    # ------------------------------------------------------------------ inside
    def _components(self, secret: Sequence[Shared] | Sequence[SharedBits]) -> list[Tensor]:
        for i in range(3):
            if not torch.equal(secret[i].parts[1], secret[(i + 1) % 3].parts[0]):
                raise AssertionError(f"parties {i} and {(i + 1) % 3} disagree on component {(i + 1) % 3}")
        return [s.parts[0] for s in secret]

    def _check_streams(self) -> None:
        for i, party in enumerate(self.parties):
            mine, theirs = party.with_next, self.parties[(i + 1) % 3].with_prev
            if isinstance(mine, Stream) and isinstance(theirs, Stream) and mine.position != theirs.position:
                raise AssertionError(f"parties {i} and {(i + 1) % 3} drew unequally: {mine} and {theirs}")

    def _stream(self, index: int) -> Randomness:
        return Stream(self.keys[index])

    def _bytes(self, count: int) -> bytes:
        return bytes(torch.randint(256, (count,), generator=self._dealer).tolist())

    def _uniform(self, shape: torch.Size, ring: Ring) -> Tensor:
        low = torch.randint(1 << 32, shape, generator=self._dealer)
        return ring.reduce((torch.randint(1 << 32, shape, generator=self._dealer) << 32) | low)

    def _spread(self, packed: Tensor, like: SharedBits) -> Tensor:
        return self.kernels.spread(packed, like.numel, RING64)


def party_step(trio: Trio, program: Program, index: int, args: Sequence[Any]) -> Step[Any]:
    """One party's step of a program, to be run by hand (over a transport, say)."""
    return _step(program, trio.protocols[index], [_for_party(a, index) for a in args])


def _for_party(arg: Any, index: int) -> Any:
    """A party's handle of a secret; a public argument as it is; lists and tuples of secrets element by element."""
    if isinstance(arg, list) and len(arg) == 3 and all(isinstance(a, Shared | SharedBits | Points) for a in arg):
        return arg[index]
    if isinstance(arg, list | tuple):
        return type(arg)(_for_party(a, index) for a in arg)
    return arg


def _meta(arg: Any) -> Any:
    if isinstance(arg, Shared | SharedBits | Points):
        return replace(arg, parts=tuple(p.to("meta") for p in arg.parts))
    if isinstance(arg, list | tuple):
        return type(arg)(_meta(a) for a in arg)
    return arg


def _step(program: Program, protocol: Protocol, args: list[Any]) -> Step[Any]:
    made = program(protocol, *args)
    return made if hasattr(made, "send") else done(made)
