"""Generation on shares over three processes and three threads: tokens, costs, and every way it can end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.decoder import CONTEXT, Decoder, Next, Prefill

import hush
from hush.mpc.compiler import Program, compile_generator, load, parse
from hush.mpc.errors import AbortReason, PartyError, RangeError, ShapeError, UserError
from hush.mpc.functions.sampling import Choice
from hush.parties.client import Client, connect, deploy
from hush.parties.cost import predicted, predicted_turn
from hush.parties.generation import Asked, Generation
from hush.parties.generation import prompt as arguments
from hush.parties.local import LocalTrio
from hush.parties.request import Request
from hush.parties.threads import ThreadTrio
from hush.parties.wire import Tag
from hush.protocols.replicated.dpf import key_bytes

LENGTH, LONGER, VOCABULARY = 5, 9, 23
PROMPT = [7, 1, 9, 4]


@pytest.fixture(scope="module")
def net() -> Decoder:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Decoder(VOCABULARY).eval()


def greedy(net: Decoder, ids: list[int], new: int) -> list[int]:
    """What the plain network goes on with."""
    made = list(ids)
    for _ in range(new):
        with torch.no_grad():
            made.append(int(net(torch.tensor([made]))[0, -1].argmax()))
    return made[len(ids) :]


def _calls(length: int, *, padded: bool) -> list[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(5)
    rows = [torch.randint(0, VOCABULARY, (1, length), generator=generator) for _ in range(6)]
    masks = [torch.arange(length)[None] >= length - n for n in (length, 4, 3, 2, 1, length)]
    return list(zip(rows, masks, strict=True)) if padded else [(row,) for row in rows]


def _compiled(net: Decoder, *, padded: bool, reveals: str = "token", weights: str = "secret") -> Program:
    calls = _calls(LENGTH, padded=padded)
    return compile_generator(
        Prefill(net),
        Next(net),
        calls[0],
        calls=calls[1:],
        longer=[_calls(LONGER, padded=True)] if padded else [],
        context=CONTEXT,
        reveals=reveals,
        weights=weights,
    )


@pytest.fixture(scope="module")
def padded(net: Decoder) -> Program:
    return _compiled(net, padded=True)


@pytest.fixture(scope="module")
def client(padded: Program) -> Iterator[Client]:
    with LocalTrio() as trio:
        deploy(padded, trio.provider_config, "small")
        with connect(trio.config) as made:
            yield made


def _threads(program: Program, ids: list[int], new: int, **choice: Any) -> Generation:
    trio = ThreadTrio(program)
    asked = Asked(new, Choice(**choice))
    return Generation(
        program, ids, asked, lambda args, watch, request: trio.infer(args, None, watch, request), trio.close
    )


# ---------------------------------------------------------------------- values
@pytest.mark.parametrize("length", [1, 3, 5, 6, 9])
def test_padded_prompts_of_every_length_go_on_as_the_plain_network_does(
    net: Decoder, padded: Program, client: Client, length: int
) -> None:
    """Two lengths are deployed: a prompt takes the shorter one if that holds it, at the cost predicted for it."""
    prompt = [7, 1, 9, 4, 2, 11, 3, 20, 8][:length]
    stream = client.generate("small", prompt, max_new_tokens=6)
    assert list(stream) == greedy(net, prompt, 6)
    first = int(length > LENGTH)
    held = (None, *range((LENGTH, LONGER)[first], 20))
    costs = [predicted_turn(padded, held=h, first=first) for h in held[:6]]
    assert [report.cost for report in stream.reports] == costs


@pytest.mark.parametrize("weights", ["secret", "public"])
def test_unpadded_prompt_up_to_the_full_context(net: Decoder, weights: str) -> None:
    program = _compiled(net, padded=False, reveals="logits", weights=weights)
    new = CONTEXT - LENGTH + 1
    prompt = [*PROMPT, 2]
    with _threads(program, prompt, new) as stream:
        assert list(stream) == greedy(net, prompt, new)


def test_a_prompt_by_keys_gives_the_same_tokens(net: Decoder) -> None:
    calls, longer = (_calls(n, padded=True) for n in (LENGTH, LONGER))
    modules = Prefill(net), Next(net)
    program = compile_generator(*modules, calls[0], calls=calls[1:], longer=[longer], context=CONTEXT, lookup="dpf")
    for prompt in ([7, 1, 9], [7, 1, 9, 4, 2, 11, 3, 20]):
        with _threads(program, prompt, 3) as stream:
            assert list(stream) == greedy(net, prompt, 3)
            first = int(len(prompt) > LENGTH)
            assert stream.reports[0].cost == predicted_turn(program, first=first)
            assert (
                stream.reports[0].client_bytes == (LENGTH, LONGER)[first] * (6 * key_bytes(VOCABULARY) + 16) + 128 + 48
            )


def test_a_prompt_may_fill_the_context(net: Decoder) -> None:
    """Then one token can be asked for, and no more."""
    prompt = [(7 * i) % VOCABULARY for i in range(CONTEXT)]
    calls = _calls(CONTEXT, padded=False)
    program = compile_generator(Prefill(net), Next(net), calls[0], calls=calls[1:], context=CONTEXT)
    with _threads(program, prompt, 1) as stream:
        assert list(stream) == greedy(net, prompt, 1)
    with pytest.raises(UserError, match="pass the context"):
        arguments(program, prompt, 2)


def test_logits_of_every_turn_are_within_the_bound_at_the_predicted_cost(net: Decoder) -> None:
    program = _compiled(net, padded=False, reveals="logits")
    ids = [*PROMPT, 2]
    with ThreadTrio(program) as trio:
        for index in range(4):
            done = trio.infer([torch.tensor([[*PROMPT, 2]])], None, None, Request(index > 0))
            with torch.no_grad():
                plain = net(torch.tensor([ids]))[:, -1]
            assert (done.output["logits"] - plain).abs().max() < 2e-3
            held = None if index == 0 else LENGTH + index - 1
            assert done.report.cost == predicted_turn(program, held=held)
            ids.append(int(done.output["token"]))
    assert predicted(program) == predicted_turn(program)


@pytest.mark.parametrize(
    "choice", [{"temperature": 0.8}, {"temperature": 1.5, "top_k": 4}, {"temperature": 1.0, "top_k": 1}]
)
def test_sampled_turns_cost_what_is_predicted(padded: Program, net: Decoder, choice: dict[str, Any]) -> None:
    with _threads(padded, PROMPT, 3, **choice) as stream:
        tokens = list(stream)
        costs = [report.cost for report in stream.reports]
    helds = (None, LENGTH, LENGTH + 1)
    assert costs == [predicted_turn(padded, held=held, choice=Choice(**choice)) for held in helds]
    assert all(0 <= token < VOCABULARY for token in tokens)
    if choice.get("top_k") == 1:
        assert tokens == greedy(net, PROMPT, 3)


def test_two_samples_of_one_prompt_differ(padded: Program) -> None:
    """23^8 answers, nearly flat: two equal ones would show that noise is drawn again."""
    drawn = []
    for _ in range(2):
        with _threads(padded, PROMPT, 8, temperature=8.0) as stream:
            drawn.append(list(stream))
    assert drawn[0] != drawn[1]


# ---------------------------------------------------------------------- programs
def test_the_step_reads_the_weights_of_the_prefill(padded: Program) -> None:
    """Each weight is deployed once: only slices of the table of places are the prefill's own."""
    assert padded.generation is not None
    then = {spec.name for spec in padded.generation.then.weight_specs}
    both = {spec.name for spec in padded.weight_specs}
    assert then <= both
    assert both - then == {"net.places.weight.folded", "net.places.weight.folded.2"}


def test_programs_survive_being_written(padded: Program, tmp_path: Any) -> None:
    padded.save(tmp_path / "small.hush")
    read = load(tmp_path / "small.hush")
    assert read.digest == padded.digest
    assert read.generation is not None
    assert predicted_turn(read, held=7) == predicted_turn(padded, held=7)


def test_a_generation_that_does_not_fit_its_program_is_refused(padded: Program) -> None:
    from hush.proto import program_pb2 as pb

    for spoil in ("reveals", "context", "keep", "weights"):
        message = pb.Program.FromString(padded.data)
        if spoil == "reveals":
            message.generation.reveals = "weights"
        elif spoil == "context":
            message.generation.context = 0
        elif spoil == "keep":
            message.outputs[1].keep = "elsewhere"
        else:
            message.generation.then.weight_specs[0].name = "another"
        with pytest.raises(hush.ProgramError, match="damaged"):
            parse(message.SerializeToString())


# ---------------------------------------------------------------------- the client
def test_stop_tokens_end_the_answer_and_are_not_given(net: Decoder, client: Client) -> None:
    whole = greedy(net, PROMPT, 6)
    stop = next(t for i, t in enumerate(whole) if t not in whole[:i] and i > 0) if len(set(whole)) > 1 else whole[0]
    stream = client.generate("small", PROMPT, max_new_tokens=6, stop=[stop])
    assert list(stream) == whole[: whole.index(stop)]
    assert stream.stopped
    assert len(stream.reports) == whole.index(stop) + 1


def test_fixed_length_asks_for_every_turn(net: Decoder, client: Client) -> None:
    whole = greedy(net, PROMPT, 6)
    stream = client.generate("small", PROMPT, max_new_tokens=6, stop=[whole[0]], fixed_length=True)
    assert list(stream) == []
    assert len(stream.reports) == 6


def test_async_twin(net: Decoder, padded: Program, client: Client) -> None:
    async def collect() -> list[int]:
        return [token async for token in hush.AsyncClient(client).generate("small", PROMPT, max_new_tokens=3)]

    assert asyncio.run(collect()) == greedy(net, PROMPT, 3)


def test_leaving_in_the_middle_frees_the_session(padded: Program) -> None:
    with LocalTrio() as trio:
        deploy(padded, trio.provider_config, "small")
        with connect(trio.config) as made:
            for _ in range(2):
                stream = made.generate("small", PROMPT, max_new_tokens=6)
                next(stream)
                assert _sessions(made) == [1, 1, 1]
                stream.close()
                assert _eventually(lambda: _sessions(made) == [0, 0, 0])


_KILLED = """
import sys, time, hush
stream = hush.connect(sys.argv[1]).generate("small", [7, 1, 9, 4], max_new_tokens=6)
print(next(stream), flush=True)
time.sleep(600)
"""


def test_a_client_that_dies_in_the_middle_frees_the_session(padded: Program, tmp_path: Any) -> None:
    """Killed, not closed: the parties notice that its streams are gone."""
    with LocalTrio() as trio:
        deploy(padded, trio.provider_config, "small")
        lines = [f"parties = {list(trio.addresses)!r}", "[tls]"]
        lines += [f"{name} = '{path}'" for name, path in trio.config.tls.model_dump().items()]  # type: ignore[union-attr]
        (tmp_path / "client.toml").write_text("\n".join(lines))
        command = [sys.executable, "-c", _KILLED, str(tmp_path / "client.toml")]
        with connect(trio.config) as made, subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline().strip().isdigit()
            assert _sessions(made) == [1, 1, 1]
            process.kill()
            assert _eventually(lambda: _sessions(made) == [0, 0, 0])


def _sessions(client: Client) -> list[int]:
    return [info.sessions for info in client._parties.info()]


def _eventually(condition: Any) -> bool:
    import time

    return any(condition() or time.sleep(0.05) for _ in range(200))


@pytest.mark.parametrize(
    ("ids", "options", "error", "text"),
    [
        ([], {}, UserError, "empty"),
        ([1] * 10, {"max_new_tokens": 4}, ShapeError, "deployed for 9"),
        ([1, VOCABULARY], {"max_new_tokens": 4}, RangeError, "vocabulary"),
        ([1, -1], {"max_new_tokens": 4}, RangeError, "vocabulary"),
        ([1], {"max_new_tokens": CONTEXT}, UserError, "context"),
        ([1], {"max_new_tokens": 0}, UserError, "at least one"),
        ([1], {"temperature": 1000.0}, UserError, "temperature"),
        ([1], {"temperature": 1.0, "top_k": 0}, UserError, "top_k"),
    ],
)
def test_bad_prompts_are_refused_before_anything_leaves(
    client: Client, ids: list[int], options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        next(client.generate("small", ids, **options))


def test_going_on_from_nothing_ends_the_session(client: Client) -> None:
    with pytest.raises(PartyError) as caught:
        client.session("small").infer([], None, None, Request(continues=True))
    assert caught.value.reason is AbortReason.INPUT


def test_going_on_past_the_context_is_refused_by_the_parties(padded: Program, client: Client) -> None:
    session = client.session("small")
    args = [torch.tensor([[0, *PROMPT]]), torch.tensor([[False, True, True, True, True]])]
    session.infer(args)
    for _ in range(CONTEXT - LENGTH):
        session.infer([], None, None, Request(continues=True))
    with pytest.raises(PartyError) as caught:
        session.infer([], None, None, Request(continues=True))
    assert caught.value.reason is AbortReason.LIMIT


def test_a_first_turn_that_is_not_there_ends_the_session(client: Client) -> None:
    session = client.session("small")
    session._conference.post(Tag.INVOKE, Request(first=2).message())
    with pytest.raises(PartyError) as caught:
        session._conference.gather(lambda wire: wire.take_any((Tag.ANSWER,), 30.0))
    assert caught.value.reason is AbortReason.INPUT


def test_parties_that_are_asked_differently_do_not_compute(padded: Program) -> None:
    """One party is told another temperature: the digests of the request differ before anything is computed."""
    with ThreadTrio(padded) as trio:
        ask = trio._engines[1].infer
        trio._engines[1].infer = lambda i, w, watch, request: ask(i, w, watch, Request(choice=Choice(2.0)))  # type: ignore[method-assign]
        args = [torch.tensor([[0, *PROMPT]]), torch.ones(1, LENGTH, dtype=torch.bool)]
        with pytest.raises(PartyError) as caught:
            trio.infer(args)
    assert caught.value.reason is AbortReason.INPUT
