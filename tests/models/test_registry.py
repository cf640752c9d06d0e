"""Every network of the registry: it compiles, runs on shares within its bound, at the predicted cost, and has the
published number of parameters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from hush.models import registry
from hush.mpc.compiler import Program
from hush.parties.cli.sources import Source, resolve
from hush.parties.compare import errors
from hush.parties.cost import predicted
from hush.parties.threads import ThreadTrio

SEQ = 8
PUBLISHED = {"minilm": 22_713_216 - 384 * 385}  # all-MiniLM-L6-v2 without the pooler, which it does not use
IDS = [entry.id for entry in registry.entries()]


@pytest.fixture(scope="module", params=IDS)
def source(request: pytest.FixtureRequest) -> Source:
    return resolve(request.param, seq=SEQ)


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
    for call in (source.call, *source.calls[:1]):
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


@pytest.mark.parametrize("model", IDS)
def test_parameters_at_paper_size(model: str) -> None:
    assert registry.get(model).sizes["paper"].parameters() == PUBLISHED[model]


@pytest.mark.parametrize("model", IDS)
def test_examples_differ_by_seed_only(model: str) -> None:
    entry = registry.get(model)
    size = entry.default_size
    a, b, other = (entry.example(size, SEQ, 2, seed) for seed in (0, 0, 1))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(a, other, strict=True))
    for call in (other, *entry.calibration(size, SEQ, 2)):
        assert [t.shape for t in call] == [t.shape for t in a]
        assert [t.dtype for t in call] == [t.dtype for t in a]
