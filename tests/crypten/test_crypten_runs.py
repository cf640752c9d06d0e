"""Whole programs in two processes: networks and functions within their bounds, generation, and failures that end."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from support.decoder import CONTEXT, Decoder, Next, Prefill
from torch import Tensor, nn

import hush
from hush.mpc.compiler import compile_generator
from hush.mpc.errors import AbortReason, PartyError
from hush.mpc.functions.sampling import Choice
from hush.parties.cli import main
from hush.parties.cli.sources import resolve
from hush.parties.compare import errors
from hush.parties.crypten import CrypTenPair
from hush.parties.request import Request
from hush.protocols.crypten.library import installed

if not installed():
    pytest.skip("CrypTen lives in an environment of its own: docs/crypten.md", allow_module_level=True)


def test_a_transformer_is_within_its_bound() -> None:
    source = resolve("bert-base", size="tiny", seq=None, batch=1, checkpoint=None)
    layers: list[str] = []
    with torch.no_grad():
        plain = source.module(*source.call)
    with CrypTenPair(source.compile()) as pair:
        done = [pair.infer(source.call, progress=layers.append) for _ in range(2)]
    assert source.err_bound is not None
    assert all(errors(plain, run.output)[0] <= source.err_bound for run in done)
    first, second = (run.report for run in done)
    assert first.cost == second.cost
    assert len(first.cost.bytes_sent) == len(first.party_seconds) == len(first.peak_rss) == 2
    assert sum(layer.rounds for layer in first.layers) == first.cost.rounds > 0
    assert sum(layer.bytes_sent[0] for layer in first.layers) == first.cost.bytes_sent[0] > 0
    assert set(layers) == {layer.name for layer in first.layers} - {"(start)"}


class _Functions(nn.Module):
    """What asks for wrapped values, exact floors, orders and equalities, beside the usual."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3, padding=1, groups=1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        positive = x.abs() + 0.25
        return (
            torch.sin(7 * x), torch.cos(x), torch.exp(x), torch.log(positive), torch.rsqrt(positive), torch.tanh(4 * x),
            nn.functional.silu(x), torch.log_softmax(x, -1), torch.sort(x, -1).values,
            torch.topk(x, 3).values, x.argmax(-1), (x > 0.5).float(), self.conv(x.reshape(-1, 2, 4)), 1 / positive,
        )  # fmt: skip


def test_functions_that_need_more_than_sums_and_products() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module, x = _Functions().eval(), 2.5 * torch.randn(3, 8)
    compared = hush.compare(module, (x,), protocol="crypten")
    assert compared.predicted is None
    assert len(compared.bytes_sent) == 2
    for index, (plain, secure) in enumerate(zip(compared.plain, compared.secure, strict=True)):
        if not plain.is_floating_point():
            assert torch.equal(plain, secure)
        elif index != 2:
            assert float((plain - secure).abs().max()) < 6e-3, index
    assert (
        float((compared.secure[2] / compared.plain[2] - 1).abs().max()) < 2e-3
    )  # of exp the relative error is bounded


class _Lookup(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(11, 6), nn.Linear(6, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return torch.nn.functional.gelu(self.head(self.table(ids)))


@pytest.mark.parametrize("lookup", ["onehot", "dpf", "equality"])
@pytest.mark.parametrize("weights", ["secret", "public"])
def test_ids_and_weights_in_every_form(lookup: str, weights: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        module = _Lookup().eval()
    ids = torch.tensor([[3, 0, 10], [7, 7, 1]])
    assert hush.compare(module, (ids,), protocol="crypten", lookup=lookup, weights=weights).max_abs_err < 5e-3


def test_generation_goes_on_with_what_the_parties_keep() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Decoder(23).eval()
    rows = [(torch.randint(0, 23, (1, 5), generator=torch.Generator().manual_seed(seed)),) for seed in range(4)]
    program = compile_generator(Prefill(net), Next(net), rows[0], calls=rows[1:], context=CONTEXT, reveals="logits")
    ids, found = rows[0][0], []
    with CrypTenPair(program) as pair:
        for turn in range(3):
            shown = pair.infer([] if turn else rows[0], request=Request(turn > 0)).output
            with torch.no_grad():
                logits = net(ids)[:, -1]
            assert float((shown["logits"] - logits).abs().max()) < 5e-3
            assert torch.equal(shown["token"], shown["logits"].argmax(-1))
            ids = torch.cat([ids, shown["token"][:, None]], 1)
        for _ in range(4):
            choice = Choice(temperature=0.5, top_k=2)
            found.append(int(pair.infer(rows[0], request=Request(choice=choice)).output["token"]))
    with torch.no_grad():
        best = net(rows[0][0])[0, -1].topk(2).indices.tolist()
    assert set(found) <= set(best)


def test_a_party_s_refusal_reaches_the_caller() -> None:
    program = hush.compile(nn.GELU(), (torch.ones(3),))
    with CrypTenPair(program) as pair, pytest.raises(PartyError, match="there is no turn to go on from") as caught:
        pair.infer([], request=Request(continues=True))
    assert caught.value.reason is AbortReason.INPUT


@pytest.mark.parametrize("victim", [0, 1])
def test_a_party_that_ends_is_named_and_nobody_waits(victim: int) -> None:
    program = hush.compile(nn.GELU(), (torch.ones(3),))
    with CrypTenPair(program) as pair:
        pair._processes[victim].kill()
        pair._processes[victim].wait()
        with pytest.raises(PartyError) as caught:
            pair.infer((torch.ones(3),))
        assert caught.value.reason in (AbortReason.DISCONNECTED, AbortReason.INTERNAL)


def test_bench_keeps_its_contract(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "bert-base", "--size", "tiny", "--protocol", "crypten", "--json"]) == 0
    (row,) = json.loads(capfd.readouterr().out)
    assert (row["protocol"], row["link"], row["predicted"]) == ("crypten", "gloo", None)
    assert row["versions"]["crypten"] == "0.4.1"
    per_party: dict[str, Any] = {key: row[key] for key in ("bytes_sent", "messages", "peak_rss")}
    assert all(len(value) == 2 for value in per_party.values())
    assert 0 < row["max_abs_err"] <= row["err_bound"]
    assert main(["bench", "bert-base", "--size", "tiny", "--protocol", "crypten", "--net", "lan"]) != 0
    assert "takes no --link and no --net" in capfd.readouterr().err


def test_crypten_s_own_division_costs_less_and_is_no_use() -> None:
    source = resolve("bert-base", size="tiny", seq=None, batch=1, checkpoint=None)
    program = source.compile()
    with torch.no_grad():
        plain = source.module(*source.call)
    with CrypTenPair(program) as pair, CrypTenPair(program, division=True) as dividing:
        ours, theirs = pair.infer(source.call), dividing.infer(source.call)
    assert theirs.report.cost.bytes_sent[0] < ours.report.cost.bytes_sent[0]
    assert theirs.report.cost.rounds < ours.report.cost.rounds
    assert source.err_bound is not None
    assert errors(plain, theirs.output)[0] > 10 * source.err_bound
