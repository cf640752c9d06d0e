"""Parties within their parts of a GPU's memory, on a card that is there in numbers only, and what a model takes."""

from __future__ import annotations

import dataclasses
import gc
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from support.programs import among_three, compiled
from support.trio import Trio
from torch import nn

from hush.mpc.compiler import Program, execute
from hush.mpc.copies import Copies, Copy, Mark
from hush.mpc.errors import AbortReason, ConfigError, PartyError
from hush.mpc.ring import backends
from hush.mpc.session import simulate
from hush.parties import config, device_memory, engine
from hush.parties.cost import predicted
from hush.parties.device_memory import GIB, Card, Tenant, card, cards, checked, shown, within
from hush.parties.footprint import footprint, work
from hush.parties.local import LocalTrio
from hush.parties.threads import ThreadTrio

MIB = 1 << 20


def _config(**more: object) -> config.PartyConfig:
    return config.PartyConfig.model_validate({"index": 0, "parties": ["a:1", "b:2", "c:3"], "insecure": True, **more})


# ---------------------------------------------------------------------- amounts
@pytest.mark.parametrize(
    ("amount", "nbytes"),
    [
        (5, 5),
        ("5", 5),
        ("40 GiB", 40 * GIB),
        ("40GiB", 40 * GIB),
        ("1.5 mib", 3 * MIB // 2),
        ("2 GB", 2 * 10**9),
        ("1/1", 78 * GIB),
        ("1/3", 26 * GIB),  # of the card, less what CUDA takes for three
        ("2/5", 78 * GIB * 2 // 5),
        (None, 80 * GIB),
    ],
)
def test_an_amount_is_bytes_a_size_or_a_part_of_what_is_free(amount: int | str | None, nbytes: int) -> None:
    assert within(amount, 80 * GIB, 81 * GIB) == nbytes


@pytest.mark.parametrize("amount", ["", "GiB", "-1", "0", "4 GiBs", "4/3", "1/0", "0/3", "1 / 3", "half", "1e9"])
def test_nothing_else_is_an_amount(amount: str) -> None:
    with pytest.raises(ValueError, match="is no amount of memory: say bytes"):
        checked(amount)
    with pytest.raises(ValidationError, match="device_memory"):
        _config(device_memory=amount)


def test_thirds_leave_room_for_what_cuda_takes_of_a_card() -> None:
    for total in (0, GIB, 24 * GIB, 80 * GIB):
        assert 3 * within("1/3", total, total) <= max(0, total - 3 * GIB)


def test_a_party_that_starts_anew_beside_the_others_has_its_third_again() -> None:
    first = within("1/3", 81 * GIB, 81 * GIB)
    assert within("1/3", 81 * GIB - 2 * (first + GIB), 81 * GIB) == first
    assert within("1/3", 5 * GIB, 81 * GIB) == 5 * GIB  # what is free is all there is


def test_a_file_and_a_command_line_say_how_much() -> None:
    assert _config().device_memory is None
    file = _config(device="cuda:1", device_memory="40 GiB")
    assert config.replaced(file, device=None, device_memory=None) is file
    changed = config.replaced(file, device=None, device_memory="1/3")
    assert (changed.device, changed.device_memory) == ("cuda:1", "1/3")
    assert config.replaced(changed, device="cpu").device_memory == "1/3"
    with pytest.raises(ConfigError, match=r"`device_memory`.*is no amount of memory"):
        config.replaced(file, device_memory="much")


def test_main_memory_has_no_card() -> None:
    assert card(None, "40 GiB", enforce=True) is None
    assert cards([None, "torch", "cpu"], None) == [None] * 3


# ---------------------------------------------------------------------- a card that is there in numbers
class _Gpu:
    """What is asked of torch, and of the kernels, about cards of 24 GiB with 20 GiB free."""

    def __init__(self) -> None:
        self.fractions: list[tuple[float, str]] = []
        self.kept: list[int] = []

    def kernels(self, name: str | None) -> SimpleNamespace:
        """Those of a name."""
        device = "cpu" if name in (None, "cpu", "torch") else "cuda:0" if name == "cuda" else name
        return SimpleNamespace(device=torch.device(str(device)), keep=self.kept.append, seeds=device != "cpu")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> _Gpu:
    made = _Gpu()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (17 * GIB, 24 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 4 * GIB)  # kept by torch for this process, of
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: GIB)  # which one GiB is in use
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda part, device: made.fractions.append((part, str(device)))
    )
    monkeypatch.setattr(device_memory.backends, "get", made.kernels)
    return made


def test_a_process_of_its_own_is_held_to_its_part(gpu: _Gpu) -> None:
    made = card("cuda:1", "6 GiB", enforce=True)
    assert made is not None
    assert made.most == 6 * GIB
    assert gpu.fractions == [(0.25, "cuda:1")]
    whole = card("cuda", None, enforce=True)
    assert whole is not None
    assert (whole.most, gpu.fractions[-1]) == (20 * GIB, (20 / 24, "cuda:0"))


@pytest.mark.parametrize("amount", ["21 GiB", "24 GiB"])
def test_memory_that_is_not_free_is_refused_at_the_start(gpu: _Gpu, amount: str) -> None:
    with pytest.raises(ConfigError, match=r"device_memory is .*20.0 GiB are free on cuda:0: say less, or free some"):
        card("cuda", amount, enforce=True)
    assert not gpu.fractions


def test_threads_on_one_gpu_share_it_and_nobody_limits_the_process(gpu: _Gpu) -> None:
    first, host, second = cards(["cuda", None, "cuda:0"], "8 GiB")
    assert first is not None
    assert first is second
    assert (first.most, host, gpu.fractions) == (8 * GIB, None, [])
    apart = cards(["cuda:0", "cuda:1", "cuda:2"], None)
    assert [c.most for c in apart if c is not None] == [20 * GIB] * 3


# ---------------------------------------------------------------------- sessions
def _program() -> Program:
    return compiled(nn.Linear(256, 256), (torch.zeros(4, 256),))


def _card(most: int, keep: Callable[[int], None] = lambda nbytes: None) -> Card:
    kernels: Any = SimpleNamespace(device=torch.device("cuda:0"), seeds=True)
    return Card(kernels, most, keep)


def test_a_model_that_does_not_fit_is_refused_with_sizes_and_the_way_out() -> None:
    program, need = _program(), footprint(_program())
    assert need.weights == 16 * (256 * 256 + 256)
    assert not _card(need.whole).claim(1, program, Tenant()).placed.streams
    with pytest.raises(PartyError) as refused:  # with seeds left it would take more: its one matrix is all there is
        _card(need.whole - 1).claim(1, program, Tenant())
    assert (refused.value.party, refused.value.reason) == (1, AbortReason.LIMIT)
    least = f"{shown(need.with_seeds(1))} of weights and about {shown(need.work + need.scratch)} for an inference"
    assert least in refused.value.detail
    assert "device_memory on cuda:0 is" in refused.value.detail
    assert "raise it, use fewer parties on one GPU, shorter inputs, or the CPU" in refused.value.detail


def test_a_model_that_does_not_fit_expanded_keeps_its_seeds() -> None:
    program, need = _program(), footprint(_program())
    matrix = 8 * 256 * 256
    assert (need.streamed, need.scratch) == (matrix, 3 * matrix)
    assert [need.weights - need.with_seeds(i) for i in range(3)] == [2 * matrix, matrix, matrix]
    few = dataclasses.replace(need, work=0, scratch=0)  # of a model of many matrices, where one is little
    for party in range(3):
        made = _card(few.whole - 1)
        made._known[program.digest] = few
        assert made.claim(party, program, Tenant()).placed.streams
        made = _card(few.with_seeds(party) - 1)
        made._known[program.digest] = few
        with pytest.raises(PartyError, match="device_memory on cuda:0"):
            made.claim(party, program, Tenant())
    assert _card(10 * need.whole).claims([0], program, Tenant(), seeds=True)[0].placed.streams
    with pytest.raises(PartyError, match="device_memory"):
        _card(need.whole - 1).claims([0], program, Tenant(), seeds=False)


def test_the_parties_of_one_process_are_let_in_together() -> None:
    """Party 0 takes less, where seeds are left."""
    program, need = _program(), dataclasses.replace(footprint(_program()), work=1000, scratch=0)
    most = sum(need.with_seeds(party) + need.work for party in range(3))
    for size, fits in ((most, True), (most - 1, False), (3 * need.whole, True)):
        made = _card(size)
        made._known[program.digest] = need
        if not fits:
            with pytest.raises(
                PartyError, match=f"an inference, 3 parties together; device_memory on cuda:0 is {shown(size)}"
            ):
                made.claims(range(3), program, Tenant())
            continue
        rooms = made.claims(range(3), program, Tenant())
        assert [room.placed.streams for room in rooms] == [size == most] * 3


def test_the_sessions_of_a_model_share_its_weights() -> None:
    program, need, model = _program(), footprint(_program()), Tenant()
    made = _card(need.weights + 2 * need.work)
    first, second = made.claim(0, program, model), made.claim(0, program, model)
    assert first.placed is second.placed
    taken = shown(need.weights + 2 * need.work)
    with pytest.raises(PartyError, match=f"of which open sessions have {taken}: try later"):
        made.claim(0, program, model)
    first.close()
    first.close()  # once and for all
    third = made.claim(0, program, model)
    assert third.placed is second.placed
    del third
    gc.collect()
    assert made.claim(0, program, model).placed is second.placed


def test_weights_stay_until_others_need_the_room_and_the_longest_unused_go_first() -> None:
    program, need = _program(), footprint(_program())
    models = [Tenant() for _ in range(4)]
    made = _card(3 * need.weights + need.work)
    placed = []
    for model in models[:3]:
        room = made.claim(0, program, model)
        placed.append(room.placed)
        placed[-1]._weights["w"] = torch.zeros(1)
        room.close()
    again = made.claim(0, program, models[0])  # the second is the longest unused now
    assert again.placed is placed[0]
    again.close()
    made.claim(0, program, models[3]).close()
    assert made.claim(0, program, models[0]).placed is placed[0]
    assert set(made._models[0]) == {models[0], models[2], models[3]}
    assert [bool(p._weights) for p in placed] == [True, False, True]


def test_seeds_give_way_to_weights_once_there_is_room_and_nobody_works_with_them() -> None:
    program, need = _program(), dataclasses.replace(footprint(_program()), work=1000, scratch=0)
    made, first, second = _card(2 * need.whole - 1), Tenant(), Tenant()
    made._known[program.digest] = need
    other, squeezed = made.claim(1, program, first), made.claim(1, program, second)
    assert not other.placed.streams
    assert squeezed.placed.streams
    other.close()
    assert made.claim(1, program, second).placed is squeezed.placed  # somebody works with them
    squeezed.close()
    roomy = made.claim(1, program, second)
    assert not roomy.placed.streams


def test_a_room_is_given_back_by_whoever_finds_it_without_waiting() -> None:
    """The collector may find one in a thread that holds a lock which the card's holder waits for."""
    program, need, model = _program(), footprint(_program()), Tenant()
    made = _card(need.whole)
    room, done = made.claim(0, program, model), threading.Event()

    def leave() -> None:
        room.close()
        done.set()

    with made._lock:
        thread = threading.Thread(target=leave)
        thread.start()
        assert done.wait(5.0)
        thread.join()
    assert made._work
    assert made.claim(0, program, model).placed is room.placed


def test_a_model_that_is_no_more_takes_no_memory() -> None:
    program, need, model = _program(), footprint(_program()), Tenant()
    told: list[int] = []
    made = _card(8 * need.whole, keep=told.append)
    made.claim(0, program, model).close()
    assert told[-1] == 7 * need.whole - need.weights
    del model
    another = Tenant()
    room = made.claim(0, program, another)
    assert told[-1] == 6 * need.whole
    room.close()


def test_limbs_take_what_nobody_was_promised() -> None:
    told: list[int] = []
    program, need, model = _program(), footprint(_program()), Tenant()
    made = _card(8 * need.whole, keep=told.append)
    held = [made.claim(party, program, model) for party in (0, 1)]
    assert told == [6 * need.whole, 5 * need.whole]  # one eighth is nobody's
    held[0].close()
    assert told[-1] == 5 * need.whole + need.work


def test_a_lost_gpu_refuses_sessions_and_tells_whoever_watches() -> None:
    program, made, told = _program(), _card(1 << 40), list[str]()
    made.watch(lambda: told.append("lost"))
    room = made.claim(2, program, Tenant())
    with pytest.raises(PartyError, match="no memory left"), room.guarded(2):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")
    made.claim(2, program, Tenant())
    assert not told
    with pytest.raises(PartyError, match="cuda:0 failed: restart the party"), room.guarded(2):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    assert told == ["lost"]
    with pytest.raises(PartyError, match="cuda:0 failed: restart the party") as refused:
        made.claim(2, program, Tenant())
    assert refused.value.reason is AbortReason.INTERNAL


@pytest.mark.usefixtures("gpu")
def test_a_trio_that_does_not_fit_is_refused_before_anything_is_placed() -> None:
    with pytest.raises(PartyError, match="device_memory on cuda:0 is") as refused:
        ThreadTrio(_program(), backend="cuda", device_memory="3 MiB")
    assert (refused.value.party, refused.value.reason) == (0, AbortReason.LIMIT)


def test_local_parties_on_one_gpu_take_a_third_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(LocalTrio, "_start", lambda self: None)
    for backend, amount, due in (
        ("cuda", None, "1/3"),
        ("cuda:1", 5, 5),
        (None, None, None),
        (None, "2 GiB", "2 GiB"),
        ("cuda", ("1/5", "2/5", "2/5"), "1/5"),
    ):
        with LocalTrio(backend=backend, device_memory=amount) as trio:
            path = tmp_path / "party0.toml"
            path.write_text(trio._toml(0))
            assert config.load_party(path).device_memory == due


# ---------------------------------------------------------------------- what a model takes
def _peak(program: Program, args: tuple[torch.Tensor, ...]) -> float:
    """Bytes that a party of three in lockstep holds at most beside weights and inputs, the messages among them."""
    trio = Trio(program.ring, program.frac, schedule=program.schedule)
    pairs = zip(program.encode_inputs(args), program.inputs, strict=True)
    inputs = [among_three(trio, element, spec) for element, spec in pairs]
    assert program.weights is not None
    shared = {s.name: trio.share(program.weights[s.name], frac=s.frac) for s in program.weight_specs}
    steps = [
        execute(program, trio.protocols[i], {n: s[i] for n, s in shared.items()}, [x[i] for x in inputs])
        for i in range(3)
    ]
    with torch.autograd.profiler.profile(profile_memory=True, use_kineto=True) as profile:
        simulate(steps)
    events = [e for e in profile.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most / 3


class _Branches(nn.Module):
    """Values that wait for each other, views of them, and operators side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 256), nn.Linear(64, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 64] -> [N, 64, 4]."""
        a, b = torch.sigmoid(self.first(x)), torch.tanh(self.second(x))
        return (a * b).reshape(-1, 64, 4) + x.unsqueeze(-1)


CASES = {
    "linear": (nn.Linear(256, 256), (torch.rand(256, 256),)),
    "mlp": (nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)), (torch.rand(256, 64),)),
    "softmax": (nn.Softmax(-1), (torch.rand(128, 256),)),
    "convolution": (nn.Conv2d(8, 16, 3, padding=1), (torch.rand(1, 8, 48, 48),)),
    "wide convolution": (nn.Conv2d(3, 16, 7, padding=3, stride=2), (torch.rand(1, 3, 64, 64),)),
    "depthwise convolution": (nn.Conv2d(32, 32, 3, padding=1, groups=32), (torch.rand(1, 32, 48, 48),)),
    "branches": (_Branches(), (torch.rand(128, 64),)),
    "norm": (nn.LayerNorm(128), (torch.rand(512, 128),)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_measure_is_no_less_than_a_run_takes_and_no_more_than_a_few_times_that(case: str) -> None:
    module, args = CASES[case]
    program = compiled(module, args)
    peak, measure = _peak(program, args), work(program)
    assert peak <= measure <= 4 * peak, (peak, measure)


def test_the_measure_grows_with_the_input_and_no_further_than_a_chunk_for_what_is_cut() -> None:
    small, large = (work(compiled(nn.Linear(64, 64), (torch.zeros(n, 64),))) for n in (256, 2560))
    assert 9.5 < large / small < 10.5
    one, four = (work(compiled(nn.Tanh(), (torch.zeros(n << 20),))) for n in (2, 8))
    assert four - one < 6 * MIB * 100


# ---------------------------------------------------------------------- an inference through copies
class _Now:
    """`Lanes` of main memory, which copy at once."""

    device = torch.device("cpu")

    def pinned(self, nbytes: int) -> torch.Tensor:
        """Any memory."""
        return torch.empty(nbytes, dtype=torch.uint8)

    def leave(self, copies: list[Copy]) -> Mark:
        """At once."""
        for target, source in copies:
            target.copy_(source)
        return SimpleNamespace(wait=lambda: None, passed=lambda: True)

    enter = leave


def test_parties_whose_messages_are_copied_answer_as_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Copies | None] = []

    def copies_for(device: torch.device) -> Copies | None:
        made.append(Copies(_Now()) if len(made) < 2 else None)  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(engine, "copies_for", copies_for)
    net = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 3)).eval()
    x = torch.rand(4, 8)
    program = compiled(net, (x,))
    with ThreadTrio(program) as trio:
        runs = [trio.infer((x,)) for _ in range(2)]
        pinned = [copies.pinned for copies in made if copies is not None]
        trio.infer((x,))
        assert pinned == [copies.pinned for copies in made if copies is not None]
    for done in runs:
        assert float((done.output - net(x)).detach().abs().max()) < 1e-3
        assert done.report.cost == predicted(program)
    assert backends.get().device.type == "cpu"
