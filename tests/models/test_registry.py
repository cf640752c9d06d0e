"""Every network of the registry: it compiles, runs on shares within its bound, at the predicted cost, and has the
published number of parameters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from hush.models import registry
from hush.mpc.compiler import Program
from hush.mpc.errors import RangeError
from hush.parties.cli.sources import Source, resolve
from hush.parties.compare import errors
from hush.parties.cost import predicted, predicted_turn
from hush.parties.request import Request
from hush.parties.threads import ThreadTrio

SEQ = 8
PUBLISHED = {
    "minilm": 22_713_216 - 384 * 385,  # all-MiniLM-L6-v2 without the pooler, which it does not use
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
    "roberta-base": 124_645_632,
    "gpt2-base": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "llama-7b": 6_738_415_616,
}
IDS = [entry.id for entry in registry.entries()]
COLLECTED = {entry.id for entry in registry.collection()}


def one_of_each(entries: list[registry.Entry]) -> list[str]:
    """An id of every network: sizes differ at paper size only."""
    return list({type(entry.sizes["tiny"].architecture()): entry.id for entry in entries}.values())


MASKED = one_of_each([entry for entry in registry.entries() if entry.for_text])
GENERATORS = one_of_each([entry for entry in registry.entries() if entry.generator])


def length_of(model: str) -> int:
    """Texts are cut short; what a network takes at one length only has that."""
    entry = registry.get(model)
    size = entry.sizes[entry.default_size]
    return size.seq if size.fixed else SEQ


@pytest.fixture(scope="module", params=IDS)
def source(request: pytest.FixtureRequest) -> Source:
    return resolve(request.param, seq=length_of(request.param))


@pytest.fixture(scope="module")
def program(source: Source) -> Program:
    return source.compile()


@pytest.fixture(scope="module")
def trio(program: Program) -> Iterator[ThreadTrio]:
    with ThreadTrio(program) as threads:
        yield threads


def test_secure_runs_within_the_bound_at_the_predicted_cost(source: Source, program: Program, trio: ThreadTrio) -> None:
    """Two inputs: each is right, and nothing that a party sends tells them apart by its size."""
    entry = registry.get(source.name)
    reports = []
    further = source.calls[:1] or [entry.example(source.size, source.seq, 1, 2)]
    for call in (source.call, *further):
        with torch.inference_mode():
            plain = source.module(*call)
        done = trio.infer(call)
        assert errors(plain, done.output)[0] <= entry.err_bound
        reports.append(done.report)
    first, second = reports
    assert first.cost == second.cost == predicted(program) == program.cost
    assert [(p.name, p.bytes_sent, p.messages, p.rounds) for p in first.layers] == [
        (p.name, p.bytes_sent, p.messages, p.rounds) for p in second.layers
    ]
    assert first.client_bytes == second.client_bytes


def test_measured_layers_are_the_predicted_ones(source: Source, program: Program, trio: ThreadTrio) -> None:
    report = trio.infer(source.call).report
    measured = {p.name: (p.bytes_sent, p.messages, p.rounds) for p in report.layers}
    assert measured == {n: (c.bytes_sent, c.messages, c.rounds) for n, c in program.layer_costs.items()}


def test_ids_outside_the_vocabulary_are_refused_by_the_client(source: Source, program: Program) -> None:
    if program.inputs[0].kind != "onehot":
        pytest.skip("takes no ids")
    ids, *rest = source.call
    bound = int(program.inputs[0].bound)
    for wrong in (bound, -1):
        with pytest.raises(RangeError, match="ids must come from the vocabulary"):
            program.encode_inputs((torch.full_like(ids, wrong), *rest))


@pytest.mark.parametrize("model", MASKED)
def test_padded_inputs(model: str) -> None:
    """Compiled as for a text: with a mask, on calls of several lengths."""
    entry, source = registry.get(model), resolve(model, seq=SEQ, masked=True)
    program = source.compile()
    assert [spec.kind for spec in program.inputs] == ["onehot", "bool"]
    with ThreadTrio(program) as trio:
        for length in (3, SEQ):
            ids = entry.example("tiny", SEQ, 1, 5)[0]
            call = ids, torch.arange(SEQ)[None] < length
            with torch.inference_mode():
                plain = source.module(*call)
            done = trio.infer(call)
            assert errors(plain, done.output)[0] <= entry.err_bound
            assert done.report.cost == program.cost


@pytest.mark.parametrize("model", GENERATORS)
@pytest.mark.parametrize("padded", [False, True])
def test_turns_of_a_generation(model: str, padded: bool) -> None:
    """A prompt and two tokens after it, at the predicted cost, each with the logits of the whole so far."""
    entry, source = registry.get(model), resolve(model, seq=SEQ)
    program = source.compile_generator(padded=padded, reveals="logits")
    ids, first = source.call[0], 3 if padded else 0
    args, seen = [ids], ids[:, first:]
    if padded:
        args.append(torch.arange(SEQ)[None] >= first)
    with ThreadTrio(program) as trio:
        for turn in range(3):
            done = trio.infer([] if turn else args, None, None, Request(turn > 0))
            with torch.inference_mode():
                plain = source.module(seen)[:, -1]
            assert errors(plain, done.output["logits"])[0] <= entry.err_bound
            assert done.report.cost == predicted_turn(program, held=SEQ + turn - 1 if turn else None)
            seen = torch.cat([seen, done.output["token"].reshape(1, 1)], 1)


@pytest.mark.parametrize("model", IDS)
def test_building_leaves_torchs_generator_alone(model: str) -> None:
    before = torch.get_rng_state()
    module = registry.get(model).build(registry.get(model).default_size, None)
    assert torch.equal(before, torch.get_rng_state())
    again = registry.get(model).build(registry.get(model).default_size, None)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))
    assert not module.training


@pytest.mark.parametrize("model", [name for name in IDS if name not in COLLECTED])
def test_parameters_at_paper_size(model: str) -> None:
    """Those of the collection: `tests/collection`, network by network."""
    assert registry.get(model).sizes["paper"].parameters() == PUBLISHED[model]


@pytest.mark.parametrize("model", IDS)
def test_examples_differ_by_seed_only(model: str) -> None:
    entry = registry.get(model)
    size = entry.default_size
    length = length_of(model)
    a, b, other = (entry.example(size, length, 2, seed) for seed in (0, 0, 1))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(a, other, strict=True))
    for call in (other, *entry.calibration(size, length, 2)):
        assert [t.shape for t in call] == [t.shape for t in a]
        assert [t.dtype for t in call] == [t.dtype for t in a]
