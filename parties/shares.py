"""Shares as frames: what clients and providers send a party, and what a party sends back.

Sizes follow from the program and the party's index alone, so nothing that a sender claims is believed. A shared tensor
is one frame: the party's two components one after the other, each a seed of 32 bytes (components 0 and 1) or its
elements (component 2). A public weight is one frame. An output is two frames, a component each.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from hush.mpc import fixed_point
from hush.mpc.compiler import InputSpec, Program, WeightSpec
from hush.mpc.compiler import Kind as InputKind
from hush.mpc.compiler import parse as parse_program
from hush.mpc.errors import AbortReason, PartyError, ProgramError
from hush.mpc.points import Points
from hush.mpc.prg import KEY_BYTES
from hush.mpc.ring import Ring
from hush.mpc.secret import Shared
from hush.mpc.transport import Buffer
from hush.proto.party_pb2 import Copies, Deploy
from hush.protocols.replicated import lookup
from hush.protocols.replicated.dpf import key_bytes
from hush.protocols.replicated.sharing import Component, Dealt, deal, expand

Kind = tuple[tuple[int, ...], int]  # shape and fraction bits of a shared tensor
Seeds = Callable[[int, WeightSpec, Tensor], tuple[bytes, bytes]]
"""seeds(index, spec, elements): those of components 0 and 1 of a weight."""
_FULL = 2  # the component that travels in full; the others are seeds
_PIECE = 1 << 18  # elements that are encoded at once
PUBLIC_DTYPES = {"float32": torch.float32, "float64": torch.float64}
"""Of public weights, as they travel."""


def numel(shape: Sequence[int]) -> int:
    """Elements of a shape."""
    return math.prod(shape)


# ---------------------------------------------------------------------- shared tensors
def share(elements: Tensor, frac: int, ring: Ring, seeds: tuple[bytes, bytes] | None = None) -> list[list[Buffer]]:
    """Deal ring elements under fresh seeds, or those given; for each party the buffers of its frame."""
    dealt = deal(elements, frac, ring, seeds)
    return [[p if isinstance(p, bytes) else raw(p) for p in d.components] for d in dealt]


def share_size(party: int, shape: Sequence[int], ring: Ring) -> int:
    """Size of the frame that a party gets for a shared tensor."""
    full = numel(shape) * ring.dtype.itemsize
    return sum(full if c == _FULL else KEY_BYTES for c in _components(party))


def parse(party: int, kind: Kind, ring: Ring, frame: Buffer) -> Dealt:
    """A party's package of a shared tensor from its frame, which has the size of `share_size`."""
    shape, frac = kind
    rest, parts = memoryview(frame), list[Component]()
    for component in _components(party):
        if component == _FULL:
            size = numel(shape) * ring.dtype.itemsize
            parts.append(tensor_of(rest[:size], shape, ring.dtype))
        else:
            size = KEY_BYTES
            parts.append(bytes(rest[:size]))
        rest = rest[size:]
    return Dealt((parts[0], parts[1]), tuple(shape), frac, ring)


def _components(party: int) -> tuple[int, int]:
    return party, (party + 1) % 3


# ---------------------------------------------------------------------- inputs and outputs
def deal_input(spec: InputSpec, encoded: Tensor, ring: Ring) -> list[list[Buffer]]:
    """For each party the buffers of the frame of one input: shares, or keys of places."""
    if spec.kind is InputKind.POINT:
        return [[raw(key) for key in pair] for pair in lookup.deal(encoded, int(spec.bound))]
    return share(encoded, spec.frac, ring)


def input_size(party: int, spec: InputSpec, ring: Ring) -> int:
    """Size of that frame: two keys a place, or as `share_size`."""
    if spec.kind is InputKind.POINT:
        return 2 * numel(spec.shape) * key_bytes(int(spec.bound))
    return share_size(party, spec.shared_shape, ring)


def read_input(party: int, spec: InputSpec, ring: Ring, frame: Buffer) -> Shared | Points:
    """A party's handle of an input from its frame."""
    if spec.kind is not InputKind.POINT:
        return expand(parse(party, (tuple(spec.shared_shape), spec.frac), ring, frame))
    shape = (*spec.shape, key_bytes(int(spec.bound)))
    half = len(frame) // 2
    keys = (tensor_of(memoryview(frame)[i * half : (i + 1) * half], shape, torch.uint8) for i in range(2))
    return Points(tuple(keys), int(spec.bound))


def output_frames(outputs: Iterable[Shared]) -> list[Buffer]:
    """A party's copies of the outputs."""
    return [raw(part) for value in outputs for part in value.parts]


def read_outputs(program: Program, frames: Iterator[memoryview]) -> list[Shared]:
    """A party's copies of the outputs from their frames; `output_sizes` says how large."""
    values = []
    for shape, frac in output_kinds(program):
        parts = [tensor_of(next(frames), shape, program.ring.dtype) for _ in range(2)]
        values.append(Shared((parts[0], parts[1]), frac, program.ring))
    return values


def output_sizes(program: Program) -> list[int]:
    """Sizes of the frames of `output_frames`."""
    return [numel(shape) * program.ring.dtype.itemsize for shape, _ in output_kinds(program) for _ in range(2)]


def output_kinds(program: Program) -> list[Kind]:
    """Shape and scale of each secret leaf of the result; of a turn's token and logits, if the program generates."""
    if program.generation is not None:
        logits = program.logits
        token: Kind = (tuple(logits.shape[:-1]), 0)
        return [token, (tuple(logits.shape), logits.frac)] if program.generation.reveals == "logits" else [token]
    return [(tuple(s.shape), s.frac) for s in program.outputs if s.kind is not None]


# ---------------------------------------------------------------------- programs and weights
def read_program(party: int, data: bytes, digest: bytes) -> Program:
    """A program from its bytes; PartyError(DIGEST) if they are not the announced ones, (MALFORMED) if not a program."""
    if not hmac.compare_digest(hashlib.sha256(data).digest(), digest):
        raise PartyError(party, AbortReason.DIGEST, "the program's bytes do not have the announced digest")
    try:
        return parse_program(data)
    except ProgramError:
        raise PartyError(party, AbortReason.MALFORMED, "not a program of this version of Hush") from None


def public_dtypes(program: Program) -> list[str]:
    """The dtypes of a program's weights as they travel if they are public; none if they are shared."""
    if program.weights_mode != "public":
        return []
    return [_public_dtype(_bound(program, index)) for index in range(len(program.weight_specs))]


def _public_dtype(tensor: Tensor) -> str:
    return "float64" if tensor.dtype is torch.float64 else "float32"


def weight_frames(program: Program, seeds: Seeds | None = None, start: int = 0) -> Iterator[list[list[Buffer]]]:
    """For each weight in the program's order, from number `start` on, the buffers of each party's frame.

    Made and dealt one by one: a model is large. `seeds`: where they come from, if not fresh from the system.
    """
    for index in range(start, len(program.weight_specs)):
        yield _frames(program, index, seeds)  # and hold on to nothing of it


def _frames(program: Program, index: int, seeds: Seeds | None) -> list[list[Buffer]]:
    spec, clear = program.weight_specs[index], clear_weight(program, index)
    if program.weights_mode == "public":
        return [[raw(clear)]] * 3
    return share(clear, spec.frac, program.ring, None if seeds is None else seeds(index, spec, clear))


def clear_weight(program: Program, index: int) -> Tensor:
    """A weight as it is handed out, if public, or its ring elements to be shared."""
    tensor = _bound(program, index)
    if program.weights_mode == "public":
        return tensor.to(PUBLIC_DTYPES[_public_dtype(tensor)])
    return _encoded(tensor, program, program.weight_specs[index])


def dealt_prefix(program: Program, header: Deploy, seeds: Seeds) -> Iterator[Copies]:
    """After 0, 1, 2... weights, hashes over both seeds of each (own: component 0's, next: 1's) and what is public.

    What a provider deals again looks like this; `matches` compares it with what a party holds.
    """
    copying = Copying(0, program, header)
    yield copying.copies()
    for index, spec in enumerate(program.weight_specs):
        tensor = _bound(program, index)
        if program.weights_mode == "public":
            copying.add(spec, raw(tensor.to(PUBLIC_DTYPES[header.dtypes[index]])))
        else:
            copying.add(spec, b"".join(seeds(index, spec, _encoded(tensor, program, spec))))
        yield copying.copies()


def matches(held: Copies, party: int, dealt: Copies) -> bool:
    """Whether the hashes that a party gave of what it holds (`Copying.seeds`) are those of `dealt_prefix`."""
    of = {0: dealt.own, 1: dealt.next}
    sides = zip(_components(party), (held.own, held.next), strict=True)
    return held.common == dealt.common and all(told == of.get(component, b"") for component, told in sides)


def _bound(program: Program, index: int) -> Tensor:
    """One of the provider's tensors."""
    if program.weights is None:
        raise ProgramError("the program holds no weights: bind it to the model first (program.bind(module))")
    return program.weights[program.weight_specs[index].name]


def _encoded(tensor: Tensor, program: Program, spec: WeightSpec) -> Tensor:
    """Ring elements of a weight, made piece by piece: what lies between takes no memory to speak of."""
    flat, out = tensor.reshape(-1), torch.empty(tensor.numel(), dtype=program.ring.dtype)
    for start in range(0, len(flat), _PIECE):
        piece = slice(start, start + _PIECE)
        out[piece] = fixed_point.encode(flat[piece], program.ring, spec.frac)
    return out.reshape(tensor.shape)


def weight_sizes(party: int, program: Program, dtypes: Sequence[str]) -> list[int]:
    """Sizes of the frames of a program's weights; PartyError(MALFORMED) if the dtypes do not fit it."""
    if program.weights_mode != "public":
        return [share_size(party, s.shape, program.ring) for s in program.weight_specs]
    if len(dtypes) != len(program.weight_specs) or not set(dtypes) <= set(PUBLIC_DTYPES):
        raise PartyError(party, AbortReason.MALFORMED, "dtypes of public weights do not fit the program")
    return [numel(s.shape) * PUBLIC_DTYPES[d].itemsize for s, d in zip(program.weight_specs, dtypes, strict=True)]


def unpack_weight(
    party: int, program: Program, dtypes: Sequence[str], index: int, frame: Buffer, *, seeded: bool = False
) -> Shared | Tensor:
    """A party's handle of one weight from its frame; shares are expanded, or with `seeded` stay seeds until used."""
    spec = program.weight_specs[index]
    if program.weights_mode == "public":
        return tensor_of(frame, spec.shape, PUBLIC_DTYPES[dtypes[index]])
    return expand(parse(party, (spec.shape, spec.frac), program.ring, frame), seeded=seeded)


def unpack_weights(
    party: int, program: Program, dtypes: Sequence[str], frames: Sequence[Buffer]
) -> dict[str, Shared | Tensor]:
    """A party's weights by name, shares expanded."""
    pairs = zip(program.weight_specs, frames, strict=True)
    return {s.name: unpack_weight(party, program, dtypes, i, f) for i, (s, f) in enumerate(pairs)}


class Copying:
    """SHA-256 over a party's copy of each component (as sent: a seed stands for its keystream) and over the rest,
    weight after weight as they arrive."""

    def __init__(self, party: int, program: Program, header: Deploy) -> None:
        self._party, self._public, self._ring = party, program.weights_mode == "public", program.ring
        head = repr((header.model, header.program, list(header.dtypes))).encode()
        self._common, self._sides = hashlib.sha256(head), (hashlib.sha256(), hashlib.sha256())

    def add(self, spec: WeightSpec, frame: Buffer) -> None:
        """The next weight's frame."""
        if self._public:
            self._common.update(frame)
            return
        rest = memoryview(frame)
        for side, component in zip(self._sides, _components(self._party), strict=True):
            size = numel(spec.shape) * self._ring.dtype.itemsize if component == _FULL else KEY_BYTES
            side.update(rest[:size])
            rest = rest[size:]

    def copies(self) -> Copies:
        """The hashes so far."""
        own, following = self._sides
        return Copies(own=own.digest(), next=following.digest(), common=self._common.digest())

    def seeds(self) -> Copies:
        """Those that a provider can have made again without dealing: of seeds, and of what is public."""
        found = self.copies()
        own, following = _components(self._party)
        found.own = b"" if own == _FULL else found.own
        found.next = b"" if following == _FULL else found.next
        return found


def common_copies(held: Copies, party: int, asker: int) -> Copies:
    """What another party may see of a party's copies: the hash of the one component that both hold.

    Component 2 is the weights less two keystreams that party 0 can make: its hash would let that party try guesses.
    """
    theirs, (own, following) = _components(asker), _components(party)
    shown = Copies(common=held.common)
    if own in theirs:
        shown.own = held.own
    if following in theirs:
        shown.next = held.next
    return shown


# ---------------------------------------------------------------------- bytes
def raw(tensor: Tensor) -> memoryview:
    """A tensor's bytes, little-endian and row-major, without a copy where it is contiguous."""
    if not tensor.numel():
        return memoryview(b"")
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def tensor_of(data: Buffer, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The tensor whose bytes they are; over them where they may be written to."""
    if not numel(shape):
        return torch.empty(tuple(shape), dtype=dtype)
    view = memoryview(data)
    own = bytearray(view) if view.readonly else view
    return torch.frombuffer(own, dtype=torch.uint8).view(dtype).reshape(tuple(shape))
