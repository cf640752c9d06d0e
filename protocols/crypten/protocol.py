"""`CrypTen`: the primitives at one of CrypTen's two parties."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hush.mpc.fixed_point import encode
from hush.mpc.points import Points
from hush.mpc.protocol import ConvShape, Public
from hush.mpc.ring import RING64, Ring, backends
from hush.mpc.schedule import UNDEALT
from hush.mpc.secret import Shared, SharedBits
from hush.mpc.step import Step, done
from hush.protocols.crypten import bits as conversions
from hush.protocols.crypten import order, truncate
from hush.protocols.crypten.beat import talk
from hush.protocols.crypten.library import library
from hush.protocols.crypten.products import arithmetic, beaver
from hush.protocols.crypten.wide import widened
from hush.protocols.replicated import linear
from hush.protocols.replicated.local import LocalPrimitives


class CrypTen(LocalPrimitives):
    """Additive shares of two parties in 2^64, as seen by party `rank`, which has joined the other (`world.join`).

    `Shared.parts` is this party's share, int64 in every ring (`wide.Wide`); `SharedBits.parts` its XOR share;
    `Points.parts` its share of one-hot rows. Truncations are to the floor or one more, never off by more. Where a step
    talks, CrypTen sends and receives by itself: every step is a beat, and steps side by side do not share rounds.
    `division`: truncate as CrypTen does, for free and now and then wrongly; to measure what the truncations cost.
    """

    name = "crypten"

    def __init__(self, rank: int, ring: Ring = RING64, frac: int = 18, *, division: bool = False) -> None:
        super().__init__(widened(ring), frac, UNDEALT, zeroth=0 if rank == 0 else None)
        self.rank, self.division, self.kernels = rank, division, backends.get()

    def _matmul(self, part: Tensor, matrix: Tensor, ring: Ring) -> Tensor:
        return torch.matmul(part, matrix)

    # ------------------------------------------------------------------ local
    def constant(self, value: Tensor | float, *, frac: int | None = None, ring: Ring | None = None) -> Shared:
        """A public value as party 0's share, the other zero."""
        kind = self.ring if ring is None else widened(ring)
        return linear.constant(value, self._frac(frac), kind, self.zeroth, parts=1)

    def wrap(self, x: Shared) -> Shared:
        """`truncate.wrapped`: local in its interface only, CrypTen sends messages. Nothing in 2^64."""
        return x if x.ring.bits == 64 else x.local(lambda t: truncate.wrapped(t, x.ring.bits))

    # ------------------------------------------------------------------ products
    def mul(self, x: Shared, y: Shared, *, frac: int | None = None, ring: Ring | None = None) -> Step[Shared]:
        """`products.beaver`, then `truncate.nearly`."""
        return talk(lambda: self._multiply("mul", x, y, frac, ring))

    def matmul(self, x: Shared, y: Shared, *, frac: int | None = None, ring: Ring | None = None) -> Step[Shared]:
        """`products.beaver`, then `truncate.nearly`."""
        return talk(lambda: self._multiply("matmul", x, y, frac, ring))

    def conv(self, x: Shared, w: Shared, geometry: ConvShape, *, frac: int | None = None) -> Step[Shared]:
        """`products.beaver`, then `truncate.nearly`."""

        def work() -> Shared:
            product = beaver(_conv(w.ndim), x.parts[0], w.parts[0], **_options(geometry))
            return self._settle(product, x.frac + w.frac, frac, x.ring)

        return talk(work)

    def mul_public(
        self, x: Shared, value: Public, *, frac: int | None = None, scale: int | None = None
    ) -> Step[Shared]:
        """A product of each share, then `truncate.nearly`."""
        return self.combine([x], [value], frac=frac, scale=scale)

    def matmul_public(
        self, x: Shared, matrix: Tensor, *, frac: int | None = None, scale: int | None = None
    ) -> Step[Shared]:
        """A product of each share, then `truncate.nearly`."""
        weight = encode(matrix, x.ring, self._frac(scale))
        return talk(lambda: self._settle(x.parts[0] @ weight, x.frac + self._frac(scale), frac, x.ring))

    def conv_public(
        self, x: Shared, w: Tensor, geometry: ConvShape, *, frac: int | None = None, scale: int | None = None
    ) -> Step[Shared]:
        """A product of each share, then `truncate.nearly`."""
        kernel = encode(w, x.ring, self._frac(scale))

        def work() -> Shared:
            product = getattr(torch, _conv(w.ndim))(x.parts[0], kernel, **_options(geometry))
            return self._settle(product, x.frac + self._frac(scale), frac, x.ring)

        return talk(work)

    def combine(
        self,
        xs: Sequence[Shared],
        factors: Sequence[Public],
        bias: Public = 0.0,
        *,
        frac: int | None = None,
        scale: int | None = None,
    ) -> Step[Shared]:
        """Products of each share, a sum, then `truncate.nearly`."""
        first, fine = xs[0], self._frac(scale)
        terms = [self.scale(x, encode(f, x.ring, fine)) for x, f in zip(xs, factors, strict=True)]
        total = terms[0]
        for term in terms[1:]:
            total = self.add(total, term)
        total = self.add_public(total.with_frac(first.frac + fine), bias)
        return talk(lambda: self._settle(total.parts[0], total.frac, frac, first.ring))

    def truncate(self, x: Shared, frac: int, *, ring: Ring | None = None, exact: bool = False) -> Step[Shared]:
        """`truncate.nearly`, or `truncate.exactly`."""
        linear.coarser(x, frac)
        if exact and frac < x.frac:
            kind = widened(ring or x.ring)
            return talk(lambda: Shared((truncate.exactly(x.parts[0], x.frac - frac),), frac, kind))
        return talk(lambda: self._settle(x.parts[0], x.frac, frac, ring or x.ring))

    def lookup(self, points: Points, table: Shared | Tensor, *, frac: int | None = None) -> Step[Shared]:
        """One-hot rows times the table: `products.beaver`, or a product of each share with a public one."""
        rows = points.parts[0]
        if not isinstance(table, Shared):
            fine = self._frac(frac)
            return done(Shared((rows[..., : table.shape[0]] @ encode(table, self.ring, fine),), fine, self.ring))
        part = table.parts[0]

        def work() -> Shared:
            flat = rows[..., : part.shape[0]].reshape(-1, part.shape[0])
            return table.local(lambda t: beaver("matmul", flat, t).reshape(*points.shape, t.shape[1]))

        return talk(work)

    # ------------------------------------------------------------------ bits
    def negative(self, x: Shared, *, bound: float, drop: int = 0) -> Step[SharedBits]:
        """The top bit of `bits.to_words`, exact whatever `bound` and `drop`."""
        return talk(lambda: self._plane(conversions.to_words(x.parts[0]), 63, x.shape))

    def below(self, x: Shared, thresholds: Sequence[float], *, bound: float, drop: int = 0) -> Step[list[SharedBits]]:
        """As `negative`, all in the rounds of one."""

        def work() -> list[SharedBits]:
            gaps = [self.add_public(x, -t).parts[0] for t in thresholds]
            words = conversions.to_words(torch.stack(gaps)).reshape(len(gaps), -1)
            return [self._plane(own, 63, x.shape) for own in words]

        return talk(work)

    def is_zero(self, x: Shared, *, bound: float) -> Step[SharedBits]:
        """`bits.equal_zero`."""
        return talk(lambda: self._plane(conversions.equal_zero(x.parts[0], self.rank), 0, x.shape))

    def to_bits(self, x: Shared, *, planes: int) -> Step[SharedBits]:
        """`bits.to_words`, sliced."""

        def work() -> SharedBits:
            words = conversions.to_words(x.parts[0])
            return SharedBits((self.kernels.to_planes(words, planes, RING64),), x.shape)

        return talk(work)

    def xor(self, a: SharedBits, b: SharedBits) -> SharedBits:
        """a ^ b."""
        return replace(a, parts=(a.parts[0] ^ b.parts[0],))

    def invert(self, a: SharedBits) -> SharedBits:
        """~a, at party 0."""
        return replace(a, parts=(~a.parts[0],)) if self.rank == 0 else a

    def both(self, a: SharedBits, b: SharedBits) -> Step[SharedBits]:
        """`bits.both`."""
        return talk(lambda: replace(a, parts=(conversions.both(a.parts[0], b.parts[0]),)))

    def from_bits(self, a: SharedBits, *, ring: Ring | None = None) -> Step[Shared]:
        """`bits.to_numbers`."""

        def work() -> Shared:
            numbers = conversions.planes_to_numbers(self.kernels, a.parts[0], a.numel)
            return Shared((numbers.reshape(a.planes, *a.shape),), 0, widened(ring or self.ring))

        return talk(work)

    def select(self, bit: SharedBits, x: Shared) -> Step[Shared]:
        """`select_sum` of one."""
        return self.select_sum([bit], [x])

    def select_sum(
        self, bits: Sequence[SharedBits], xs: Sequence[Shared], *, frac: int | None = None, ring: Ring | None = None
    ) -> Step[Shared]:
        """`bits.to_numbers`, then `products.beaver`, all selections at once; then `truncate.nearly`."""
        first = xs[0]

        def work() -> Shared:
            planes = torch.cat([b.parts[0] for b in bits])
            numbers = conversions.planes_to_numbers(self.kernels, planes, first.numel)
            values = torch.stack([x.parts[0].reshape(-1) for x in xs])
            total = beaver("mul", numbers, values).sum(0).reshape(first.shape)
            return self._settle(total, first.frac, first.frac if frac is None else frac, ring or first.ring)

        return talk(work)

    # ------------------------------------------------------------------ order of elements
    def shuffle(self, x: Shared) -> Step[Shared]:
        """`order.shuffle`."""
        return talk(lambda: x.local(lambda t: order.shuffle(t, self.rank)))

    def contribute(
        self,
        make: Callable[[], Tensor],
        shape: tuple[int, ...],
        *,
        dealer: int,
        frac: int | None = None,
        ring: Ring | None = None,
    ) -> Step[Shared]:
        """CrypTen's sharing of a party's tensor, without a message. Dealers 1 and 2 are both party 1."""
        kind, fine, source = widened(ring or self.ring), self._frac(frac), min(dealer, 1)
        mine = encode(make().reshape(shape), kind, fine) if self.rank == source else None
        shared = library().Arithmetic(mine, size=torch.Size(shape), precision=0, src=source)
        return done(Shared((shared.share,), fine, kind))

    def open(self, x: Shared) -> Step[Tensor]:
        """CrypTen's opening: 1 round, 8 bytes an element."""
        return talk(lambda: self._opened(x.parts[0]))

    # ------------------------------------------------------------------ helpers
    def _opened(self, share: Tensor) -> Tensor:
        revealed: Tensor = arithmetic(share).reveal() if share.numel() else share
        return revealed

    def _plane(self, words: Tensor, place: int, shape: torch.Size) -> SharedBits:
        return SharedBits((self.kernels.to_planes(words, 1, RING64, place),), shape)

    def _multiply(self, op: str, x: Shared, y: Shared, frac: int | None, ring: Ring | None) -> Shared:
        return self._settle(beaver(op, x.parts[0], y.parts[0]), x.frac + y.frac, frac, ring or x.ring)

    def _truncated(self, share: Tensor, shift: int) -> Tensor:
        return truncate.by_division(share, shift) if self.division else truncate.nearly(share, shift, self.rank)

    def _settle(self, share: Tensor, have: int, frac: int | None, ring: Ring) -> Shared:
        """A share at `have` fraction bits brought to `frac` (default: the protocol's), coarser or finer."""
        due = self._frac(frac)
        if have > due and share.numel():
            share = self._truncated(share, have - due)
        elif have < due:
            share = share << (due - have)
        return Shared((share,), due, widened(ring))


def _conv(dimensions: int) -> str:
    return "conv1d" if dimensions == 3 else "conv2d"


def _options(geometry: ConvShape) -> dict[str, object]:
    return {
        "stride": geometry.stride,
        "padding": geometry.padding,
        "dilation": geometry.dilation,
        "groups": geometry.groups,
    }
