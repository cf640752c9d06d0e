"""Every view of a protocol, by running it once on every combination of share randomness and draws.

A protocol runs on a tensor, one element per state: state number s is cut into digits, and every component of a sharing
and every draw from a pairwise key takes the next digit as its value. Over all states each combination of values occurs
equally often, so counting what a party saw gives the exact distribution of its view: no sampling, no statistics.

A view is (own components of the inputs, own draws, messages received); own outputs are a function of it. A protocol
hides its secrets if each party's view has the same distribution for all of them.

Where the whole space is too large, `slices` fixes what the watched party itself knows (its input components and its
draws) to some assignments, and enumerates everything that it does not know: an exact check of the distribution
conditional on each of these assignments. Tests say which of the two they do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hush.mpc.ring import RING64, Ring, backends
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.session import simulate
from hush.mpc.step import Received, Step
from hush.protocols.replicated.party import Party
from tests.privacy.enumeration import WORD, Column, Holder, Key, Table, Tape, unpack

CHUNK = 1 << 17  # states run at once
COUNTED_BITS = 26  # a view with more bits would need too large a table: use slices
Secret = Any  # what an `Input` cuts into components: an integer, or as the kind of input says
Program = Callable[..., Step[Any]]  # (party, *inputs) -> step
Check = Callable[["Run"], None]


class Leak(AssertionError):  # noqa: N818
    """A party's view tells two secrets apart."""


# ---------------------------------------------------------------------- secret inputs
class Input(ABC):
    """How a secret is cut into three components, and what each party holds of them."""

    held = 2  # party i holds components i .. i+held-1

    @abstractmethod
    def random(self, source: Tape | Table) -> Tensor:
        """A uniform component."""

    @abstractmethod
    def last(self, secret: Secret, first: Tensor, second: Tensor) -> Tensor:
        """The component that completes two others to a secret."""

    @abstractmethod
    def handle(self, components: list[Tensor], party: int) -> Any:
        """What a party is given."""

    @abstractmethod
    def columns(self, component: Tensor) -> list[Column]:
        """A component's values."""

    def components(self, secret: Secret, own: Tape | Table, party: int) -> list[Tensor]:
        """The three: those that the party holds are uniform, from `own`; the third makes the secret."""
        first, second = self.random(own), self.random(own)
        found = (first, second, self.last(secret, first, second))
        return [found[(i - party) % 3] for i in range(3)]


@dataclass
class Arithmetic(Input):
    """A replicated sharing of a ring element."""

    ring: Ring
    frac: int = 0

    def random(self, source: Tape | Table) -> Tensor:
        return self.ring.reduce(source.take(self.ring.bits))

    def last(self, secret: int, first: Tensor, second: Tensor) -> Tensor:
        return self.ring.reduce(secret - first - second)

    def handle(self, components: list[Tensor], party: int) -> Any:
        return Shared((components[party], components[(party + 1) % 3]), self.frac, self.ring)

    def columns(self, component: Tensor) -> list[Column]:
        return [(self.ring.bits, component.to(torch.int64))]


class Additive(Arithmetic):
    """Summands z_0 + z_1 + z_2, one at each party, as local products leave them: they may be correlated with anything.

    So the secret is (sum, the next party's summand), and a party must learn neither; only its own summand is averaged
    over. (Were all of them uniform, an unmasked summand would not show.)
    """

    held = 1

    def components(self, secret: Secret, own: Tape | Table, party: int) -> list[Tensor]:
        whole, following = secret
        mine = self.random(own)
        following = torch.full_like(mine, following)
        found = (mine, following, self.last(whole, mine, following))
        return [found[(i - party) % 3] for i in range(3)]

    def handle(self, components: list[Tensor], party: int) -> Any:
        return components[party]


@dataclass
class Bits(Input):
    """A replicated XOR sharing of a bit string, given as an integer."""

    planes: int = 1

    def random(self, source: Tape | Table) -> Tensor:
        return source.take(self.planes)

    def last(self, secret: int, first: Tensor, second: Tensor) -> Tensor:
        return secret ^ first ^ second

    def handle(self, components: list[Tensor], party: int) -> Any:
        own = [components[party], components[(party + 1) % 3]]
        kernels = backends.get()
        return SharedBits(tuple(kernels.to_planes(c, self.planes, RING64) for c in own), own[0].shape)

    def columns(self, component: Tensor) -> list[Column]:
        return [(self.planes, component)]


# ---------------------------------------------------------------------- running
@dataclass
class Run:
    """One pass over some states: the secrets, every party's results, and what each party saw."""

    secrets: tuple[Secret, ...]
    states: Tensor
    results: list[Any]
    components: list[list[Tensor]]  # [input][component]
    keys: list[Key]  # keys[i] is shared by parties i and i+1
    received: list[list[Received]]
    inputs: Sequence[Input] = field(repr=False, default=())

    @property
    def numel(self) -> int:
        """Number of states."""
        return self.states.numel()

    def view(self, party: int) -> list[Column]:
        """Own input components, own draws, messages received."""
        columns: list[Column] = []
        for kind, parts in zip(self.inputs, self.components, strict=True):
            for offset in range(kind.held):
                columns += kind.columns(parts[(party + offset) % 3])
        for key in (self.keys[party], self.keys[(party - 1) % 3]):
            columns += [column for draw in key.draws for column in draw]
        return columns + self.messages(party)

    def messages(self, party: int) -> list[Column]:
        """What the party received, in order, bit by bit."""
        heard = [m for got in self.received[party] for m in (*got.from_next, *got.from_prev)]
        return [column for message in heard for column in unpack(message, self.numel)]

    def outputs(self, party: int) -> list[Column]:
        """The party's components of the result."""
        result: Shared | SharedBits = self.results[party]
        if isinstance(result, SharedBits):
            return [column for part in result.parts for column in unpack(part, self.numel)]
        return [(result.ring.bits, row.long()) for part in result.parts for row in part.reshape(-1, self.numel)]

    def elements(self) -> Tensor:
        """The result's ring elements; both copies of each component must agree."""
        results: list[Shared] = self.results
        _agree(results)
        return results[0].ring.reduce(results[0].parts[0] + results[1].parts[0] + results[2].parts[0])

    def bits(self) -> Tensor:
        """The result's bit strings as integers."""
        results: list[SharedBits] = self.results
        _agree(results)
        planes = results[0].parts[0] ^ results[1].parts[0] ^ results[2].parts[0]
        return backends.get().from_planes(planes, results[0].numel, RING64)


def _agree(results: Sequence[Shared] | Sequence[SharedBits]) -> None:
    for i in range(3):
        assert torch.equal(results[i].parts[1], results[(i + 1) % 3].parts[0]), f"component {(i + 1) % 3} differs"


def _listen(step: Step[Any], heard: list[Received]) -> Step[Any]:
    """The step itself, writing down what it is answered."""
    answer: Any = None
    while True:
        try:
            wanted = step.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = yield wanted
        heard.append(Received(tuple(t.clone() for t in answer.from_next), tuple(t.clone() for t in answer.from_prev)))


@dataclass(frozen=True)
class Experiment:
    """A protocol, its inputs, and how to look at it.

    `check` is run on all states. `party`: whose view is counted (None: all three at once, for inputs that are shared).
    `slices`: 2^slices assignments of what that party knows, from a seeded generator; 0 enumerates that too.
    `forced[(pair, draw)]` breaks a draw: see `Key`.
    """

    program: Program
    inputs: tuple[Input, ...]
    check: Check
    party: int | None = None
    slices: int = 0
    forced: dict[tuple[int, int], int | None] = field(default_factory=dict)

    def watched(self) -> range:
        """The parties whose views are counted."""
        return range(3) if self.party is None else range(self.party, self.party + 1)

    def run(self, secrets: tuple[Secret, ...], states: Tensor) -> tuple[Run, int]:
        """The protocol on some states; also how many bits of the state it used."""
        tape = Tape(states)
        own = Table(tape, self.slices) if self.slices else tape
        lead = self.party or 0
        components = [kind.components(s, own, lead) for kind, s in zip(self.inputs, secrets, strict=True)]
        keys = [self._key(pair, tape if pair == (lead + 1) % 3 else own, states.numel()) for pair in range(3)]
        heard: list[list[Received]] = [[], [], []]
        steps, holders = [], []
        for i in range(3):
            streams = Holder(keys[i]), Holder(keys[(i - 1) % 3])
            holders.append(streams)
            handles = [kind.handle(parts, i) for kind, parts in zip(self.inputs, components, strict=True)]
            step = self.program(Party(i, *streams, backends.get()), *handles)
            steps.append(_listen(step, heard[i]))
        results, _ = simulate(steps)
        for i in range(3):
            assert holders[i][0].drawn == holders[(i + 1) % 3][1].drawn, "the two holders of a key drew unequally often"
        return Run(secrets, states, results, components, keys, heard, self.inputs), tape.used

    def _key(self, pair: int, source: Tape | Table, numel: int) -> Key:
        forced = {draw: to for (where, draw), to in self.forced.items() if where == pair}
        return Key(source, numel, forced)

    def runs(self, secrets: tuple[Secret, ...]) -> Iterator[Run]:
        """The protocol on all states, in chunks."""
        _, bits = self.run(secrets, torch.arange(WORD))
        for start in range(0, 1 << bits, CHUNK):
            yield self.run(secrets, torch.arange(start, start + max(min(CHUNK, 1 << bits), WORD)))[0]

    def draws(self, secrets: tuple[Secret, ...]) -> dict[tuple[int, int], list[int]]:
        """(pair, number) of every draw that the protocol makes, and its columns' widths."""
        run, _ = self.run(secrets, torch.arange(WORD))
        return {
            (pair, number): [bits for bits, _ in columns]
            for pair in range(3)
            for number, columns in enumerate(run.keys[pair].draws)
        }

    def distribution(self, secrets: tuple[Secret, ...]) -> dict[int, Tensor]:
        """How often each view occurs, for every watched party. Runs `check` on every state."""
        if self.party is None and any(isinstance(kind, Additive) for kind in self.inputs):
            raise ValueError("summands are seen from one party at a time: name it")
        counts = {party: Counter() for party in self.watched()}
        for run in self.runs(secrets):
            self.check(run)
            for party, counter in counts.items():
                shown = run.messages(party) if self.slices else run.view(party)
                if self.slices:  # own components and draws are a function of the slice
                    shown = [(self.slices, run.states & ((1 << self.slices) - 1)), *shown]
                counter.add(shown)
        return {party: counter.total() for party, counter in counts.items()}


class Counter:
    """How often each combination of values occurs, over all combinations that fit the widths."""

    def __init__(self) -> None:
        self._codes: list[Tensor] = []
        self._counts = torch.zeros(0, dtype=torch.int64)

    def add(self, columns: list[Column]) -> None:
        """Count one run's states."""
        bits = sum(width for width, _ in columns)
        assert bits <= COUNTED_BITS, f"a view of {bits} bits is too large to count: use slices or a smaller width"
        if not self._counts.numel():
            self._counts = torch.zeros(1 << bits, dtype=torch.int64)
        assert self._counts.numel() == 1 << bits, "the size of a view varies"
        code = torch.zeros((), dtype=torch.int64)
        for width, value in columns:
            code = (code << width) | value
        self._codes.append(code)
        if len(self._codes) * code.numel() >= self._counts.numel():  # counting costs the table's size each time
            self._flush()

    def total(self) -> Tensor:
        """The counts, indexed by the combination."""
        self._flush()
        return self._counts

    def _flush(self) -> None:
        if self._codes:
            self._counts += torch.bincount(torch.cat(self._codes), minlength=self._counts.numel())
            self._codes.clear()


def assert_private(experiment: Experiment, secrets: Sequence[tuple[Secret, ...]]) -> None:
    """Every watched party's view has one distribution for all secrets, else `Leak`."""
    first = experiment.distribution(secrets[0])
    for other in secrets[1:]:
        for party, counts in experiment.distribution(other).items():
            if not torch.equal(counts, first[party]):
                share = int((counts - first[party]).abs().sum()) / (2 * int(counts.sum()))
                raise Leak(f"party {party} tells {secrets[0]} from {other}: statistical distance {share:.3g}")


def assert_fresh(
    experiment: Experiment,
    secrets: tuple[Secret, ...],
    known: Callable[[Run, int], list[Column]] = lambda run, party: [],
) -> None:
    """Each party's own output components, together with `known`, take all values equally often."""
    counters = [Counter() for _ in range(3)]
    for run in experiment.runs(secrets):
        for party, counter in enumerate(counters):
            counter.add(known(run, party) + run.outputs(party))
    for party, counter in enumerate(counters):
        counts = counter.total()
        if int(counts.min()) != int(counts.max()):
            raise Leak(f"party {party}'s output components are not fresh")
