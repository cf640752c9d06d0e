"""Keys of distributed point functions: unit vectors for every place, sizes that tell nothing, lookups by them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.programs import among_three, run_fixed, run_shares
from support.trio import Trio
from torch import Tensor, nn

from hush.mpc.compiler import InputSpec, Kind, Program, compile_module, predict
from hush.mpc.errors import RangeError, UserError
from hush.mpc.points import Points
from hush.mpc.session import simulate
from hush.parties.threads import ThreadTrio
from hush.protocols.replicated import dpf, lookup
from hush.protocols.replicated.cost import ReplicatedCost

CLASSES = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 33, 100, 257]


# ---------------------------------------------------------------------- keys
@pytest.mark.parametrize("classes", CLASSES)
def test_both_sides_add_up_to_the_unit_vector_of_every_place(classes: int) -> None:
    places = torch.arange(classes)
    first, second = dpf.deal(places, classes)
    whole = dpf.expand(first, classes, 0) + dpf.expand(second, classes, 1)
    assert torch.equal(whole, torch.eye(classes, dtype=torch.int64))


def test_at_gpt2s_vocabulary_with_keys_of_logarithmic_size() -> None:
    classes = 50_257
    places = torch.tensor([0, 1, 50_256, 25_000, 32_767, 32_768])
    first, second = dpf.deal(places, classes)
    assert first.shape == second.shape == (6, 301)
    whole = dpf.expand(first, classes, 0) + dpf.expand(second, classes, 1)
    assert torch.equal(whole, torch.nn.functional.one_hot(places, classes))


@pytest.mark.parametrize("classes", [2, 9, 257])
def test_sizes_depend_on_the_number_of_classes_alone(classes: int) -> None:
    sizes = {dpf.deal(torch.tensor([place]), classes)[side].shape for place in range(classes) for side in range(2)}
    assert sizes == {(1, dpf.key_bytes(classes))}


def test_keys_are_fresh_and_one_side_alone_looks_the_same_for_every_place() -> None:
    """Bits of keys and of expansions are even, for the first place as for the last: 4,096 keys each."""
    count, classes = 4096, 64
    levels = range(16, 16 + 17 * dpf.depth(classes), 17)
    for place in (0, classes - 1):
        keys = dpf.deal(torch.full((count,), place), classes)
        for side, key in enumerate(keys):
            assert len({bytes(row) for row in key.numpy()}) == count
            assert _evenly(torch.cat([key[:, 1:16], *(key[:, i + 1 : i + 16] for i in levels), key[:, -64:]], 1))
            control = key[:, 32 : 16 + 17 * len(levels) : 17]
            assert control.shape == (count, len(levels)) == (count, 3)
            assert set(control.unique().tolist()) == {0, 1, 2, 3}
            assert abs(float(torch.stack([control & 1, control >> 1]).double().mean()) - 0.5) < 0.02
            spread = dpf.expand(key, classes, side)
            assert _evenly(spread[:, [0, place, classes // 2]].contiguous().view(torch.uint8))


def _evenly(data: Tensor) -> bool:
    """Every bit position is 1 in half of the rows, within six standard deviations."""
    bits = (data[..., None] >> torch.arange(8, dtype=torch.uint8)) & 1
    deviation = (bits.double().mean(0) - 0.5).abs().max()
    return float(deviation) < 6 * 0.5 / data.shape[0] ** 0.5


def test_without_the_last_correction_the_path_shows() -> None:
    """The two expansions agree everywhere but on the path: with one key replaced the sum is no unit vector."""
    first, second = dpf.deal(torch.tensor([5]), 16)
    other = dpf.deal(torch.tensor([5]), 16)[1]
    assert not torch.equal(dpf.expand(first, 16, 0) + dpf.expand(other, 16, 1), torch.eye(16, dtype=torch.int64)[5:6])
    assert bool((dpf.expand(first, 16, 0) == -dpf.expand(second, 16, 1)).sum() == 15)


@pytest.mark.parametrize("place", [-1, 16])
def test_places_outside_are_refused(place: int) -> None:
    with pytest.raises(ValueError, match=r"0\.\.15"):
        dpf.deal(torch.tensor([place]), 16)


# ---------------------------------------------------------------------- the step
def _look_up(ids: Tensor, table: Tensor, classes: int, *, secret: bool) -> tuple[Tensor, Trio]:
    trio = Trio()
    spec = InputSpec("ids", Kind.POINT, tuple(ids.shape), "int64", float(classes), 0, ("ids",))
    points = among_three(trio, ids, spec)
    shared = trio.share(table)
    steps = [trio.protocols[i].lookup(points[i], shared[i] if secret else table) for i in range(3)]
    results, trio.traffic = simulate(steps)
    trio._check_streams()
    model = ReplicatedCost(trio.ring, trio.frac)
    blank = Points((torch.empty((*ids.shape, 1), device="meta"),), classes)
    held: Any = model.constant(torch.zeros(()), frac=trio.frac).expand(*table.shape) if secret else table
    assert trio.traffic == list(model.lookup(blank, held))
    return trio.reveal(results), trio


@pytest.mark.parametrize("secret", [True, False])
@pytest.mark.parametrize("shape", [(0,), (1,), (2, 5), (3, 1, 4)])
def test_rows_come_back_exactly_in_one_round(secret: bool, shape: tuple[int, ...], monkeypatch: Any) -> None:
    monkeypatch.setattr(lookup, "CHUNK", 90)  # three ids at a time
    generator = torch.Generator().manual_seed(1)
    table = (torch.randn(30, 4, generator=generator, dtype=torch.float64) * 2**18).round() / 2**18
    ids = torch.randint(0, 30, shape, generator=generator)
    rows, trio = _look_up(ids, table, 30, secret=secret)
    assert torch.equal(rows, table[ids])
    assert trio.cost.rounds == (1 if ids.numel() else 0)


def test_a_lookups_message_is_uniform() -> None:
    """Party 0's component of one looked-up element, over many runs under fresh keys: every byte evenly."""
    table = torch.ones(4, 4096, dtype=torch.float64)
    trio = Trio()
    spec = InputSpec("ids", Kind.POINT, (1,), "int64", 4.0, 0, ("ids",))
    shared, points = trio.share(table), among_three(trio, torch.tensor([2]), spec)
    results, _ = simulate([trio.protocols[i].lookup(points[i], shared[i]) for i in range(3)])
    for result in results:
        for part in result.parts:
            assert _evenly(part.reshape(-1, 1).contiguous().view(torch.uint8))


def test_keys_that_fit_no_place_change_no_message_size_and_stop_nobody() -> None:
    """A client may deal anything of the right size: it gets a meaningless row."""
    trio, table = Trio(), torch.zeros(30, 4, dtype=torch.float64)
    shared = trio.share(table)
    junk = [
        Points(tuple(torch.randint(256, (5, dpf.key_bytes(30))).to(torch.uint8) for _ in range(2)), 30)
        for _ in range(3)
    ]
    traffic = []
    for points in (junk, trio.deal_places(torch.arange(5), 30)):
        results = trio.run(lambda p, places, held: p.lookup(places, held), points, shared)
        traffic.append(trio.traffic)
        assert trio.elements(results).shape == (5, 4)
    assert traffic[0] == traffic[1]


# ---------------------------------------------------------------------- programs
class Bag(nn.Module):
    """Sum of embedded tokens, of two tables."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Embedding(classes, 8), nn.Embedding(classes + 3, 8)

    def forward(self, ids: Tensor) -> Tensor:
        """[B, T] -> [B, 8]."""
        turned = ids.reshape(-1, 1).flip(0)
        return self.first(ids).sum(1) + self.second(turned)[:, 0].reshape(*ids.shape, 8).sum(1)


def _program(lookup: str, classes: int = 20, weights: str = "secret") -> tuple[Bag, Program]:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        module = Bag(classes).eval()
    example = torch.randint(0, classes, (1, 6), generator=torch.Generator().manual_seed(0))
    program = compile_module(module, (example,), lookup=lookup, weights=weights)
    return module, predict(program, ReplicatedCost(program.ring, program.frac))


KINDS = {"onehot": Kind.ONEHOT, "dpf": Kind.POINT, "equality": Kind.ID}


@pytest.mark.parametrize("weights", ["secret", "public"])
@pytest.mark.parametrize("how", KINDS)
def test_all_three_ways_give_the_same_rows_at_the_predicted_cost(how: str, weights: str) -> None:
    module, program = _program(how, weights=weights)
    assert [spec.kind for spec in program.inputs] == [KINDS[how]]
    ids = torch.tensor([[0, 19, 3, 3, 7, 11]])
    secure, cost = run_shares(program, (ids,))
    with torch.no_grad():
        plain = module(ids)
    assert (secure - plain).abs().max() < 1e-4
    assert (run_fixed(program, (ids,)) - plain).abs().max() < 1e-4
    assert cost == program.cost


def test_the_compiler_deals_keys_where_they_are_shorter() -> None:
    assert _program("auto", 20)[1].inputs[0].kind is Kind.ONEHOT
    assert _program("auto", 600)[1].inputs[0].kind is Kind.POINT


class Marked(nn.Module):
    """Also gives the one-hot rows, which an op would have to make of numbers by equality tests."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(600, 4)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """[T] -> [T, 4] and [T, 600]."""
        return self.table(ids), nn.functional.one_hot(ids, 600)


def test_ids_may_change_their_integer_type_on_the_way_to_a_table() -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(600, 4)

        def forward(self, ids: Tensor) -> Tensor:
            return self.table(ids.int().unsqueeze(0)) + self.table(ids.flip(0).int())

    module, ids = Cast().eval(), torch.tensor([1, 3, 599])
    program = compile_module(module, (ids,))
    assert program.inputs[0].kind is Kind.POINT
    with torch.no_grad():
        assert (run_fixed(program, (ids,)) - module(ids)).abs().max() < 1e-4


def test_rows_are_dealt_where_an_op_wants_them() -> None:
    program = compile_module(Marked().eval(), (torch.tensor([1, 3, 3]),))
    assert program.inputs[0].kind is Kind.ONEHOT
    assert any("ids as one-hot rows of 600 classes" in line for line in program.passes)


@pytest.mark.parametrize("secure", [True, False])
def test_keys_give_the_number_too_once_for_all_who_ask(secure: bool) -> None:
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(600, 4)

        def forward(self, ids: Tensor) -> tuple[Tensor, ...]:
            return self.table(ids), ids, ids * 2 + 1, (ids == 3).sum(), (ids == ids.flip(0)), ids.unsqueeze(0)

    module = Counted().eval()
    program = compile_module(module, (torch.tensor([1, 3, 599]),))
    assert program.inputs[0].kind is Kind.POINT
    numbers = [node for node in program.graph.nodes if "number" in node.name]
    assert len(numbers) == 3, "of the ids, of the flipped ids, of the result that they are rearranged to"
    ids = torch.tensor([3, 0, 3])
    with torch.no_grad():
        plain = module(ids)
    found, cost = (
        run_shares(predict(program, ReplicatedCost()), (ids,)) if secure else (run_fixed(program, (ids,)), None)
    )
    assert (found[0] - plain[0]).abs().max() < 1e-4
    assert all(torch.equal(a, b) for a, b in zip(found[1:], plain[1:], strict=True))
    assert cost is None or cost == program.cost


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("wrong", [-1, 20])
def test_ids_outside_the_vocabulary_are_refused_by_the_client(how: str, wrong: int) -> None:
    _, program = _program(how)
    with pytest.raises(RangeError, match=r"outside the declared 0\.\.19.*vocabulary"):
        program.encode_inputs((torch.tensor([[0, 1, 2, 3, 4, wrong]]),))


def test_what_a_party_receives_does_not_tell_ids_apart() -> None:
    _, program = _program("dpf")
    with ThreadTrio(program) as trio:
        reports = [trio.infer((torch.full((1, 6), place),)).report for place in (0, 19)]
    assert reports[0].cost == reports[1].cost
    assert reports[0].client_bytes == reports[1].client_bytes
    assert reports[0].client_bytes == 6 * 6 * dpf.key_bytes(20) + 3 * 2 * 8 * 8


def test_unknown_way_is_refused() -> None:
    with pytest.raises(UserError, match="lookup='guess'"):
        _program("guess")


def test_points_show_nothing() -> None:
    keys = dpf.deal(torch.tensor([3]), 20)
    assert repr(Points(keys, 20)) == "Points(shape=(1,), classes=20)"
