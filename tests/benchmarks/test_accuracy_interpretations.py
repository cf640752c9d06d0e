"""The four interpretations of a program, on networks small enough to be quick: they agree, and tell what they must."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fidelity import language, networks
from fidelity.interpret import APPROXIMATED, COMPILED, FIXED, SECURE, in_batches, running
from fidelity.language import Amount, Language, _padded, _prompts
from fidelity.part import Work, correlation
from fidelity.train import Schedule
from torch import Tensor, nn

import hush
from hush.models import gpt2
from hush.mpc.compiler import Program

SMALL = replace(
    networks.BERT, vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
)
BATCH, LENGTH = 4, 8


@pytest.fixture(scope="module")
def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return networks.Classifier(SMALL, 3).eval()


def calls(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(0, SMALL.vocab_size, (count, LENGTH), generator=generator)
    mask = torch.arange(LENGTH) < torch.randint(2, LENGTH + 1, (count, 1), generator=generator)
    return ids, mask


@pytest.fixture(scope="module", params=["default", "puma"])
def program(net: nn.Module, request: pytest.FixtureRequest) -> Program:
    ids, mask = calls(3 * BATCH)
    first, *others = zip(torch.split(ids, BATCH), torch.split(mask, BATCH), strict=True)
    return hush.compile(net, first, ranges=others, approx=request.param)


def test_interpretations_agree(net: nn.Module, program: Program) -> None:
    """With any number of rows: the last batch is not full."""
    args = calls(BATCH + 3)
    with torch.inference_mode():
        plain = net(*args).double()
    found = {}
    for interpretation in COMPILED:
        with running(program, interpretation) as run:
            found[interpretation] = in_batches(run, args, BATCH)
            assert run.violations == {}
    bound = 1e-3 if program.approx == "default" else 5e-2
    assert (found[APPROXIMATED] - plain).abs().max() < bound
    assert (found[FIXED] - found[APPROXIMATED]).abs().max() < 1e-3
    assert (found[SECURE] - found[FIXED]).abs().max() < 1e-3
    assert (found[FIXED] - found[APPROXIMATED]).abs().max() > 0  # fixed rounds
    assert (found[SECURE] - found[FIXED]).abs().max() > 0  # and the parties' truncation has coins


def test_values_out_of_range_are_counted(net: nn.Module) -> None:
    """Calibrated on one network, run with weights far larger."""
    program = hush.compile(net, calls(BATCH))
    large = networks.Classifier(SMALL, 3)
    large.load_state_dict({name: 60 * p for name, p in net.state_dict().items()})
    program.bind(large)
    with running(program, FIXED) as run:
        run.infer(calls(BATCH))
        assert run.violations


# ---------------------------------------------------------------------- generation
@pytest.fixture
def small_language(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], Language]:
    config = replace(networks.GPT2, n_embd=16, n_layer=1, n_head=2)
    kind = networks.Generating("GPT-2, tiny", lambda: gpt2.GPT2(config), gpt2.generator)
    monkeypatch.setitem(networks.GENERATING, "gpt2", kind)
    monkeypatch.setattr(language, "QUICK", Amount(Schedule(steps=2, rate=1e-3), rows=2, prompts=3, new=3))
    monkeypatch.setattr(language, "BATCH", 2)
    return lambda: Language("gpt2", Work(tmp_path, True, lambda line: None))


def test_a_language_model_is_measured(small_language: Callable[[], Language]) -> None:
    part = small_language()
    reference = part.reference()
    assert reference["equal"] == 3
    for interpretation in COMPILED:
        row = part.measure("default", interpretation)
        assert set(row) == set(reference)
        assert abs(row["change"]) < 1e-4
        assert row["perplexity"] == pytest.approx(reference["perplexity"], rel=1e-4)
        assert row["equal"] == 3
        assert row["violations"] == (0 if interpretation == FIXED else None)


def test_a_continuation_that_differs_is_described(small_language: Callable[[], Language]) -> None:
    part = small_language()
    plain = part.continued[1]
    other = [*plain[:2], (plain[2] + 1) % networks.VOCABULARY]
    found = part._odd(1, other)
    assert found is not None
    assert (found["prompt"], found["position"]) == (1, 2)
    assert found["gap"] > 0
    assert part._odd(1, plain) is None


def test_prompts_have_every_length_and_are_padded_on_the_left() -> None:
    prompts = _prompts(torch.arange(5000), 50)
    lengths = [len(p) for p in prompts]
    assert (min(lengths), max(lengths)) == (language.SHORTEST, language.PROMPT)
    ids, mask = _padded(prompts, language.PROMPT)
    assert ids.shape == mask.shape == (50, language.PROMPT)
    assert mask.sum(1).tolist() == lengths
    assert all(torch.equal(row[keep], prompt) for row, keep, prompt in zip(ids, mask, prompts, strict=True))
    assert bool(mask[:, -1].all())


def test_correlation() -> None:
    a = torch.tensor([1.0, 2.0, 3.0])
    assert correlation(a, 2 * a + 1) == pytest.approx(1.0)
    assert correlation(a, -a) == pytest.approx(-1.0)
