"""Profiles: they add up to what the run cost, change no message, hold no value, and are given only where allowed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from parties_harness import at_once
from support.decoder import CONTEXT, Decoder, Next, Prefill
from torch import Tensor, nn

from hush.mpc.compiler import Program, compile_generator, compile_module
from hush.mpc.compiler.itemise import itemise
from hush.mpc.compiler.probe import named
from hush.mpc.copies import Copies, Copy
from hush.mpc.cost import FRAME_HEADER
from hush.mpc.errors import AbortReason, PartyError
from hush.mpc.prg import Stream
from hush.mpc.session import Ledger
from hush.mpc.transport import Buffer, Neighbour, Transport, memory_trio
from hush.parties import recorder, shares
from hush.parties.client import connect, deploy
from hush.parties.engine import CHECKS, Engine
from hush.parties.local import LocalTrio
from hush.parties.profile import Kind, Profile, by_operator, parse
from hush.parties.report import RunReport
from hush.parties.request import ALONE, Request
from hush.parties.threads import ThreadTrio
from hush.parties.wire import frame_bytes
from hush.proto import party_pb2 as pb
from hush.protocols.replicated.cost import ReplicatedCost

ASKED = Request(profile=True)


class Net(nn.Module):
    """Layers with and without messages, two of which run side by side."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right, self.norm = nn.Linear(6, 6), nn.Linear(6, 6), nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.nn.functional.gelu(self.left(x)) + self.right(x).reshape(x.shape))


X = torch.linspace(-2, 2, 18).reshape(3, 6)


@pytest.fixture(scope="module")
def program() -> Program:
    return compile_module(Net(), (X,), ranges={"x": 4.0})


@pytest.fixture(scope="module")
def threads(program: Program) -> Iterator[ThreadTrio]:
    with ThreadTrio(program) as made:
        yield made


def payload(report: RunReport) -> list[int]:
    cost = report.cost
    return [sent - FRAME_HEADER * count for sent, count in zip(cost.bytes_sent, cost.messages, strict=True)]


def test_nothing_is_recorded_unless_it_is_asked_for(threads: ThreadTrio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hush.parties.engine.Recorder", None)  # whoever made one would fail
    assert threads.infer((X,)).report.profiles == ()


def test_bytes_are_those_of_each_operator(threads: ThreadTrio, program: Program) -> None:
    report = threads.infer((X,), None, None, ASKED).report
    due = Counter[tuple[str, int]]()
    for item in itemise(program, ReplicatedCost(program.ring, program.frac, program.schedule)):
        for party in range(3):
            due[item.op, party] += item.bytes_sent[party]
    found = by_operator(report.profiles)
    assert found[CHECKS].bytes_sent == [80, 80, 80]
    sent = {(n, i): s.bytes_sent[i] for n, s in found.items() if any(s.bytes_sent) for i in range(3)}
    assert {key: count for key, count in sent.items() if key[0] != CHECKS} == due
    assert [sum(s.bytes_sent[i] for s in found.values()) for i in range(3)] == payload(report)


def test_rounds_add_up_to_the_runs(threads: ThreadTrio) -> None:
    report = threads.infer((X,), None, None, ASKED).report
    found = by_operator(report.profiles)
    assert sum(s.rounds for s in found.values()) == report.cost.rounds
    assert found[CHECKS].rounds == 2
    assert len({len(profile.rounds) for profile in report.profiles}) == 1


def test_spans_leave_no_gap_and_rounds_lie_between_them(threads: ThreadTrio) -> None:
    report = threads.infer((X,), None, None, ASKED).report
    for profile in report.profiles:
        at = 0
        for span in profile.spans:
            assert span.start == at
            at = span.end
        own = [span for span in profile.spans if span.kind is not Kind.COMPUTE]
        assert own == [span for made in profile.rounds for span in made.spans]
        assert {Kind.COMPUTE, Kind.SEND, Kind.WAIT_NEXT, Kind.WAIT_PREV} == {span.kind for span in profile.spans}
    mean = sum(p.spans[-1].end for p in report.profiles) / 3e9
    assert sum(s.seconds for s in by_operator(report.profiles).values()) == pytest.approx(mean)


def test_ops_that_run_side_by_side_share_a_round(threads: ThreadTrio) -> None:
    profile = threads.infer((X,), None, None, ASKED).report.profiles[0]
    shared = [made for made in profile.rounds if {op.layer for op in made.ops} >= {"left", "right"}]
    assert shared
    assert all(len(made.bytes_sent) == len(made.ops) for made in shared)


def shape_of(profile: Profile) -> Any:
    """All of it but times."""
    return (
        [(span.op, span.kind) for span in profile.spans],
        [(made.ops, made.bytes_sent, made.depth) for made in profile.rounds],
        profile.left_out,
    )


def test_but_for_times_no_input_changes_a_profile(threads: ThreadTrio) -> None:
    reports = [threads.infer((x,), None, None, ASKED).report for x in (X, -X, torch.zeros_like(X))]
    for party in range(3):
        assert len({str(shape_of(report.profiles[party])) for report in reports}) == 1


def test_names_are_the_programs(threads: ThreadTrio, program: Program) -> None:
    known = {named(node) for node in program.graph.nodes} | {(CHECKS, "")}
    for profile in threads.infer((X,), None, None, ASKED).report.profiles:
        assert {(span.op.name, span.op.layer) for span in profile.spans} <= known


# ---------------------------------------------------------------------- the same messages
class Overheard:
    """A transport that keeps a copy of what is sent."""

    def __init__(self, inner: Transport) -> None:
        self.party, self._inner, self.sent = inner.party, inner, list[tuple[Neighbour, bytes]]()

    def send(self, to: Neighbour, buffers: Sequence[Buffer]) -> None:
        self.sent.append((to, b"".join(buffers)))
        self._inner.send(to, buffers)

    def receive(self, source: Neighbour, nbytes: int) -> memoryview:
        return self._inner.receive(source, nbytes)

    def close(self, reason: AbortReason = AbortReason.CLOSED) -> None:
        self._inner.close(reason)


def messages(program: Program, weights: list[Any], frames: list[list[Any]], request: Request) -> list[Any]:
    """What each party sends in one invocation with fixed keys."""
    keys = [bytes([i]) * 32 for i in range(3)]
    links = [Overheard(t) for t in memory_trio(20.0)]
    engines = [Engine(i, Stream(keys[i]), Stream(keys[i - 1]), links[i], program) for i in range(3)]

    def party(i: int) -> Any:
        rest = iter(frames[i])
        inputs = engines[i].receive_inputs(lambda nbytes: frame_bytes(next(rest)), request)
        return engines[i].infer(inputs, weights[i], None, request)

    outcomes = at_once(*(lambda i=i: party(i) for i in range(3)))
    assert not [o for o in outcomes if isinstance(o, Exception)]
    assert [o.report.HasField("profile") for o in outcomes] == [request.profile] * 3
    return [link.sent for link in links]


def test_every_message_is_the_same_to_the_bit(program: Program) -> None:
    dtypes = shares.public_dtypes(program)
    dealt = [[frame_bytes(f) for f in each] for each in shares.weight_frames(program)]
    weights = [shares.unpack_weights(i, program, dtypes, [d[i] for d in dealt]) for i in range(3)]
    spec, (elements,) = program.inputs[0], program.encode_inputs((X,))
    frame = shares.deal_input(spec, elements, program.ring)
    without, asked = (messages(program, weights, [[frame[i]] for i in range(3)], r) for r in (ALONE, ASKED))
    assert without == asked
    assert all(len(sent) > 10 for sent in without)


def test_parties_do_not_compare_who_was_asked_for_a_profile() -> None:
    assert Request.parse(ASKED.message()) == ASKED
    assert ASKED.digest() == ALONE.digest()
    assert Request(True, first=1, profile=True).digest() == Request(True, first=1).digest() != ALONE.digest()


# ---------------------------------------------------------------------- parties on a device that works by itself
class Done:
    """A mark of what is done at once."""

    def wait(self) -> None:
        """Nothing to wait for."""

    def passed(self) -> bool:
        return True


class Device:
    """Main memory that behaves as a GPU's: what is asked for is noted, in order."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.told = list[str]()

    def pinned(self, nbytes: int) -> Tensor:
        return torch.empty(nbytes, dtype=torch.uint8)

    def leave(self, copies: Sequence[Copy]) -> Done:
        self.told.append("leave")
        return self._copy(copies)

    def enter(self, copies: Sequence[Copy]) -> Done:
        self.told.append("enter")
        return self._copy(copies)

    def settle(self) -> None:
        self.told.append("settle")

    def _copy(self, copies: Sequence[Copy]) -> Done:
        for target, source in copies:
            target.copy_(source)
        return Done()


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[Device]:
    """Those of the parties that are made from now on, in their order."""
    made = list[Device]()

    def copies(device: torch.device) -> Copies:
        made.append(Device())
        return Copies(made[-1])

    monkeypatch.setattr("hush.parties.engine.copies_for", copies)
    monkeypatch.setattr("hush.parties.engine.waiting", lambda device: lambda: [d.settle() for d in made[:1]])
    return made


def test_copying_is_told_apart_where_there_is_any(threads: ThreadTrio, program: Program, devices: list[Device]) -> None:
    with ThreadTrio(program) as trio:
        assert len(devices) == 3
        without, report = (trio.infer((X,), None, None, r).report for r in (ALONE, ASKED))
    assert report.cost == without.cost == threads.infer((X,)).report.cost
    on_cpu = threads.infer((X,), None, None, ASKED).report
    for profile, other in zip(report.profiles, on_cpu.profiles, strict=True):
        assert {span.kind for span in profile.spans} == set(Kind)
        assert [(r.ops, r.bytes_sent, r.depth) for r in profile.rounds] == [
            (r.ops, r.bytes_sent, r.depth) for r in other.rounds
        ]
        own = [span for span in profile.spans if span.kind is not Kind.COMPUTE]
        assert own == [span for made in profile.rounds for span in made.spans]
        for made in profile.rounds:
            kinds = [span.kind for span in made.spans]
            assert kinds.count(Kind.COPY) == 1 + sum(kind in WAITS for kind in kinds)
    found, mean = by_operator(report.profiles), sum(p.spans[-1].end for p in report.profiles) / 3e9
    assert sum(s.seconds for s in found.values()) == pytest.approx(mean)
    assert sum(s.copy for s in found.values()) > 0
    assert not any(s.copy for s in by_operator(on_cpu.profiles).values())


WAITS = (Kind.WAIT_NEXT, Kind.WAIT_PREV)


def test_the_device_is_waited_for_at_every_cut_and_only_in_a_profiled_run(
    program: Program, devices: list[Device]
) -> None:
    with ThreadTrio(program) as trio:
        trio.infer((X,))
        assert "settle" not in devices[0].told
        assert {"leave", "enter"} == set(devices[0].told)
        for device in devices:
            device.told.clear()
        report = trio.infer((X,), None, None, ASKED).report
    assert devices[0].told.count("settle") == sum(len(p.spans) for p in report.profiles)


def test_what_was_asked_before_a_cut_is_done_when_the_clock_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that takes its time: the op that asked has the seconds, not the one that waits first."""
    clock, queued = [0], list[int]()

    def settle() -> None:
        clock[0] += sum(queued)
        queued.clear()

    monkeypatch.setattr(recorder.time, "perf_counter_ns", lambda: clock[0])
    for wait, due in ((settle, {"a": 7, "b": 2}), (None, {"a": 0, "b": 0})):
        clock[0] = 0
        made = recorder.Recorder(Ledger(), "start", wait)
        made.enter("a")
        queued.append(7)
        made.enter("b")
        queued.append(2)
        found = parse(0, made.finish())
        queued.clear()
        assert {span.op.name: span.ns for span in found.spans if span.op.name != "start"} == due


def test_main_memory_is_not_waited_for() -> None:
    assert recorder.waiting(torch.device("cpu")) is None


# ---------------------------------------------------------------------- limits
def test_spans_beyond_the_limit_are_counted(threads: ThreadTrio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MOST_SPANS", 50)
    for profile in threads.infer((X,), None, None, ASKED).report.profiles:
        assert len(profile.spans) == 50
        assert profile.left_out > 0
        assert 0 < len(profile.rounds) < 20


def test_a_full_profile_fits_into_the_smallest_message(threads: ThreadTrio) -> None:
    made = pb.Profile()
    count = recorder.MOST_SPANS
    made.span_ops.extend([300] * count)
    made.span_kinds.extend([3] * count)
    made.span_ns.extend([10**7] * count)
    for index in range(count // 4):  # compute, send, two waits
        made.rounds.add(first=count, spans=3, ops=[300, 301], bytes_sent=[10**7, 10**7], depth=index)
    assert made.ByteSize() < 2 << 20


def message(**changes: Any) -> pb.Profile:
    made = pb.Profile(ops=[pb.ProfiledOp(name="a")], span_ops=[0, 0], span_kinds=[0, 1], span_ns=[5, 7])
    made.rounds.add(first=1, spans=1, ops=[0], bytes_sent=[8], depth=1)
    for name, value in changes.items():
        made.ClearField(name)
        getattr(made, name).extend(value)
    return made


BROKEN = [
    {"span_ops": [0]},
    {"span_ops": [0, 1]},
    {"span_kinds": [0, 5]},
    {"ops": []},
    {"rounds": [pb.ProfiledRound(first=1, spans=2, ops=[0], bytes_sent=[8])]},
    {"rounds": [pb.ProfiledRound(first=1, spans=1, ops=[0], bytes_sent=[8, 8])]},
    {"rounds": [pb.ProfiledRound(first=1, spans=1, ops=[1], bytes_sent=[8])]},
    {"rounds": [pb.ProfiledRound(first=1, spans=1)]},
]


@pytest.mark.parametrize("changes", BROKEN)
def test_a_profile_that_makes_no_sense_names_its_party(changes: dict[str, Any]) -> None:
    assert parse(2, message()).rounds[0].spans[0].ns == 7
    with pytest.raises(PartyError, match="an unreadable profile") as caught:
        parse(2, message(**changes))
    assert (caught.value.party, caught.value.reason) == (2, AbortReason.MALFORMED)


# ---------------------------------------------------------------------- generation
def test_a_turn_counts_the_choice_of_its_token() -> None:
    torch.manual_seed(0)
    net = Decoder()
    prompt = torch.tensor([[3, 1, 4, 1]])
    made = compile_generator(Prefill(net), Next(net), (prompt,), context=CONTEXT)
    with ThreadTrio(made) as trio:
        for args, request in (((prompt,), ASKED), ((), Request(True, profile=True))):
            report = trio.infer(args, None, None, request).report
            found = by_operator(report.profiles)
            assert sum(s.rounds for s in found.values()) == report.cost.rounds
            assert found["(choice)"].rounds > 5
            assert [sum(s.bytes_sent[i] for s in found.values()) for i in range(3)] == payload(report)


# ---------------------------------------------------------------------- real parties
@pytest.mark.parametrize("allowed", [False, True])
def test_parties_give_profiles_only_where_their_files_say_so(allowed: bool, program: Program) -> None:
    with LocalTrio(threads=1, profile=allowed) as trio:
        deploy(program, trio.provider_config, "net")
        with connect(trio.config) as client:
            plain = client.run("net", (X,)).report
            assert plain.profiles == ()
            if allowed:
                report = client.session("net").infer((X,), None, None, ASKED).report
                assert (report.cost, len(report.profiles)) == (plain.cost, 3)
                found = by_operator(report.profiles)
                assert sum(s.rounds for s in found.values()) == report.cost.rounds
                return
            with pytest.raises(PartyError, match="`profile = true` in a party's file allows them") as caught:
                client.session("net").infer((X,), None, None, ASKED)
            assert caught.value.reason is AbortReason.INPUT
            assert client.run("net", (X,)).report.cost == plain.cost  # in a new session
