"""x = (x_0 + x_1) + x_2 as a sum of two numbers: its bits, and its top bit for less.

P0 knows v = x_0 + x_1, P1 and P2 know w = x_2. Digits of the two are compared by dealt codes (`digits`), and the
digits' answers (generates a carry, passes one on) are combined by a tree of ANDs. How many digits is chosen by the
number of elements: more digits are fewer bytes and more rounds. "P0" is role 0: the roles rotate over slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import torch
from torch import Tensor

from hush.mpc.beside import row
from hush.mpc.ring import Ring
from hush.mpc.schedule import LAN, Schedule
from hush.mpc.secret import Shared
from hush.mpc.step import Round, Spec, Step, together
from hush.protocols.replicated import rotation
from hush.protocols.replicated.boolean import Parts, and_parts, join_parts
from hush.protocols.replicated.digits import Layout
from hush.protocols.replicated.pairs import share_xor
from hush.protocols.replicated.party import Party


@lru_cache(maxsize=4096)
def layout(
    bits: int, numel: int, *, tops: int = 1, every: bool = False, sums: int = 1, schedule: Schedule = LAN
) -> Layout:
    """The cheapest cut of `bits` bits into digits for so many elements: bits sent, and what a round is worth.

    `sums`: how many numbers w each v is added to.
    """
    if bits == 0:
        return Layout(0, 0, tops=tops, every=every)
    most = bits if every else max(1, bits // 2)  # without `every`, v ^ w is not at hand for digits of one bit
    counts = range(-(-bits // schedule.widest_digit), most + 1)
    price = partial(_price, numel, sums, schedule.round_bits)
    return min((Layout(bits, count, tops=tops, every=every) for count in counts), key=price)


def _price(numel: int, sums: int, round_bits: int, cut: Layout) -> int:
    levels = prefix_levels(cut.count) if cut.every else tree_levels(cut.count)
    ands = sum(levels) + (inner_ands(cut) if cut.every else 0)
    rounds = 2 + len(levels) + (cut.every and inner_ands(cut) > 0)
    return numel * (cut.dealt + sums * (2 * cut.rows + 3 * ands)) + round_bits * rounds


def tree_levels(count: int) -> list[int]:
    """ANDs of each level of `carry_tree` on so many digits: 2(count-1) - ceil(log2 count) in all."""
    levels = []
    while count > 1:
        levels.append(count // 2 * 2 - 1)
        count -= count // 2
    return levels


def prefix_levels(count: int) -> list[int]:
    """ANDs of each level of `carry_prefixes` on so many digits."""
    return [sum(1 + (i >= 2 << level) for i in _uppers(count, level)) for level in range(_depth(count))]


def inner_ands(cut: Layout) -> int:
    """ANDs that take the digits' carries to the positions inside them."""
    return sum(cut.width(digit) - 1 for digit in range(1, cut.count))


def _depth(count: int) -> int:
    """ceil(log2 count)."""
    return max(count - 1, 0).bit_length()


def _uppers(count: int, level: int) -> list[int]:
    """Digits that receive at this level of the prefix network (Sklansky): those whose bit `level` is set."""
    return [i for i in range(count) if i >> level & 1]


def dealt_sum(
    party: Party, x: Shared, cut: Layout, drop: int, addends: Sequence[int] = (0,)
) -> Step[tuple[Parts, Parts]]:
    """Parts of what P0 dealt, as (binary planes v ^ w or only their tops, answers): see `deal_and_answer`.

    v = floor((x_0 + x_1 mod 2^k) / 2^drop), w = floor((x_2 + addend mod 2^k) / 2^drop), each mod 2^(bits + tops) of the
    layout; for several addends, the words of the planes are those of x for the first, then for the second and so on.
    """
    sources = ((0, 1), (1,), (0,))  # role 0 adds both of its parts; x_2 is role 1's second and role 2's first
    steps = []
    for piece in rotation.slices(x.numel):
        role = party.role(piece.rotation)
        flat = [x.parts[i].reshape(-1)[piece.start : piece.stop] for i in sources[role]]
        element = x.ring.settle(flat[0] + flat[1]) if role == 0 else _moved(flat[0], addends, x.ring)
        planes = party.kernels.to_planes(element, cut.bits + cut.tops, x.ring, drop)
        steps.append(deal_and_answer(party, role, planes, cut, len(addends)))
    found = yield from together(*steps)
    return _beside([f[0] for f in found], len(addends)), _beside([f[1] for f in found], len(addends))


def _moved(w: Tensor, addends: Sequence[int], ring: Ring) -> Tensor:
    """[sums * n]: w plus each addend, n filled up to whole words of a plane if there are several."""
    if tuple(addends) == (0,):
        return w
    whole = torch.nn.functional.pad(w, (0, -w.shape[0] % rotation.WORD)) if len(addends) > 1 else w
    units = row(tuple(addends), w.device, ring.dtype)
    return ring.settle(whole + units[:, None]).reshape(-1)


def _beside(slices: list[Parts], sums: int) -> Parts:
    """Planes [p, sums * words] of slices, put together for each sum."""
    if sums == 1 or len(slices) == 1:
        return join_parts(slices, 1)
    grouped = [[part.view(part.shape[0], sums, -1) for part in parts] for parts in slices]
    first, second = (torch.cat(parts, 2).flatten(1) for parts in zip(*grouped, strict=True))
    return first, second


def deal_and_answer(party: Party, role: int, planes: Tensor, cut: Layout, sums: int = 1) -> Step[tuple[Parts, Parts]]:
    """From v, planes [bits + tops, words] (role 0), and one w or several side by side, [bits + tops, sums * words]
    (roles 1 and 2): parts of (v ^ w, the layout's answers), their words in the order of w's.

    v ^ w has all planes if the layout asks for `every` position, else only the tops.

    1. P0 deals v's code S: S_0 is drawn from k_20, P0 -> P1: S_1 = S ^ S_0.
    2. P1 and P2 look w's entries up in the tables of their shares: t1, t2. P1 -> P2: t1 ^ a_1, P2 -> P1: t2 ^ a_0 with
       a_0 from k_20, a_1 from k_01 (`pairs.share_xor`).

    Views: P1 sees S_1 and t2 ^ a_0, under two draws of k_20; P2 sees t1 ^ a_1, under k_01; P0 sees nothing. Rounds 2;
    bits dealt + 2 rows a sum, an element, in all; exact; no leakage.
    """
    length = planes.shape[1] if role == 0 else planes.shape[1] // sums
    if role == 0:
        mask = party.with_prev.planes(cut.dealt, length)
        share = cut.deal(planes) ^ mask
        yield Round(to_next=(share,))
        found, term = (_dealt(mask, cut, sums), _dealt(share, cut, sums)), None
    elif role == 1:
        got = yield Round(from_prev=(Spec((cut.dealt, length), torch.int64),))
        share = got.from_prev[0]
        found, term = (_dealt(share, cut, sums), _known(planes, cut)), _answers(share, planes, cut, sums, ones=True)
    else:
        share = party.with_next.planes(cut.dealt, length)
        yield Round()
        found, term = (_known(planes, cut), _dealt(share, cut, sums)), _answers(share, planes, cut, sums, ones=False)
    if not cut.rows:
        return found, (planes[:0], planes[:0])
    return found, (yield from share_xor(party, role, term, cut.rows, sums * length))


def _answers(share: Tensor, planes: Tensor, cut: Layout, sums: int, *, ones: bool) -> Tensor:
    return cut.answer(share if sums == 1 else share.repeat(1, sums), planes, ones=ones)


def _dealt(share: Tensor, cut: Layout, sums: int) -> Tensor:
    bits = cut.binary(share) if cut.every else cut.top(share)
    return bits if sums == 1 else bits.repeat(1, sums)


def _known(planes: Tensor, cut: Layout) -> Tensor:
    return planes if cut.every else planes[cut.bits :]


def carry_out(party: Party, rows: Parts, sums: Parts, cut: Layout) -> Step[Parts]:
    """One plane: the carry out of all digits, from a layout's answers. ceil(log2 count) rounds."""
    carry = yield from carry_tree(party, *_digit_answers(_stack(rows, sums), cut))
    return carry[0], carry[1]


def carry_tree(party: Party, generate: Tensor, passes: Tensor) -> Step[Tensor]:
    """[2 parts, 1, words]: the carry out of digits 0 .. n-1.

    `generate` [2, n, words]; `passes` [2, n-1, words], from digit 1 on, since digit 0 receives no carry.

    Neighbours combine: (g, p) = (g_hi ^ p_hi g_lo, p_hi p_lo); the lowest of a level needs no p. Rounds ceil(log2 n);
    2(n-1) - ceil(log2 n) ANDs.
    """
    while (count := generate.shape[1]) > 1:
        pairs = count // 2
        even = 2 * pairs
        left = torch.cat([passes[:, 0:even:2], passes[:, 2:even:2]], 1)
        right = torch.cat([generate[:, 0:even:2], passes[:, 1 : even - 1 : 2]], 1)
        found = yield from _and(party, left, right)
        generate = torch.cat([generate[:, 1:even:2] ^ found[:, :pairs], generate[:, even:]], 1)
        passes = torch.cat([found[:, pairs:], passes[:, even - 1 :]], 1)
    return generate


def carry_prefixes(party: Party, generate: Tensor, passes: Tensor) -> Step[Tensor]:
    """[2 parts, n, words]: the carry out of digits 0 .. i, for every i: `carry_tree` as Sklansky's network (1960)."""
    count = generate.shape[1]
    g, p = generate.clone(), passes.clone()
    for level in range(_depth(count)):
        upper = _uppers(count, level)
        lower = [(i >> level << level) - 1 for i in upper]
        inner = [i - 1 for i in upper if i >= 2 << level]  # passes begin at digit 1
        below = [(i + 1 >> level << level) - 2 for i in inner]
        left = _planes(p, [i - 1 for i in upper] + inner)
        right = torch.cat([_planes(g, lower), _planes(p, below)], 1)
        found = yield from _and(party, left, right)
        g[:, row(tuple(upper), g.device)] ^= found[:, : len(upper)]
        p[:, row(tuple(inner), p.device)] = found[:, len(upper) :]
    return g


def all_bits(party: Party, rows: Parts, sums: Parts, cut: Layout) -> Step[Parts]:
    """All planes of v + w from a layout with `every`: v ^ w ^ the carry into each position.

    The carries into the digits come from the prefix network, those inside a digit by one more AND each:
    c_in = generates(low part) ^ passes(low part) & carry into the digit.
    """
    if not cut.count:
        return sums
    planes = _stack(rows, sums)
    prefixes = yield from carry_prefixes(party, *_digit_answers(planes, cut))
    inside = [(d, i) for d in range(cut.count) for i in range(1, cut.width(d))]
    out = planes[:, cut.rows :].clone()
    out[:, row(tuple(cut.start(digit + 1) for digit in range(cut.count)), out.device)] ^= prefixes
    places = row(tuple(cut.start(d) + i for d, i in inside), out.device)
    out[:, places] ^= _planes(planes, [cut.generate_rows[pair] for pair in inside])
    fed = [(d, i) for d, i in inside if d]
    if fed:
        into = _planes(prefixes, [d - 1 for d, _ in fed])
        places = row(tuple(cut.start(d) + i for d, i in fed), out.device)
        out[:, places] ^= yield from _and(party, _passes(planes, cut, fed), into)
    return out[0], out[1]


def _planes(planes: Tensor, chosen: Sequence[int]) -> Tensor:
    """[2 parts, chosen, words]."""
    return planes[:, row(tuple(chosen), planes.device)]


def _stack(rows: Parts, sums: Parts) -> Tensor:
    """[2 parts, rows + sums, words]."""
    return torch.stack([torch.cat([r, s]) for r, s in zip(rows, sums, strict=True)])


def _and(party: Party, a: Tensor, b: Tensor) -> Step[Tensor]:
    return torch.stack((yield from and_parts(party, (a[0], a[1]), (b[0], b[1]))))


def _digit_answers(planes: Tensor, cut: Layout) -> tuple[Tensor, Tensor]:
    """(generates of digits 0.., passes of digits 1..), whole digits."""
    whole = [(digit, cut.width(digit)) for digit in range(cut.count)]
    return _planes(planes, [cut.generate_rows[pair] for pair in whole]), _passes(planes, cut, whole[1:])


def _passes(planes: Tensor, cut: Layout, asked: list[tuple[int, int]]) -> Tensor:
    """[passes] of some (digit, length), digit >= 1; length 1 is v ^ w at the digit's lowest position."""
    rows = (cut.rows + cut.start(d) if length == 1 else cut.pass_rows[d, length] for d, length in asked)
    return _planes(planes, list(rows))
