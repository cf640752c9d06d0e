"""The endpoint as the real `openai` package uses it, over HTTP, with answers that are known."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from proxy_harness import ANSWER, CONTEXT, END, ROOM, START, FakeBackend, bytes_tokenizer, serving, write_language

from hush.mpc.errors import AbortReason, DeadlineExceeded, PartyError, PartyUnreachable
from hush.parties.proxy.backend import Facts
from hush.parties.proxy.endpoints import Policy
from hush.parties.proxy.language import Languages

BYTES = bytes_tokenizer()
IDS = [*BYTES.encode(ANSWER).ids, BYTES.token_to_id(END)]
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def languages(tmp_path_factory: pytest.TempPathFactory) -> Languages:
    folder = str(write_language(tmp_path_factory.mktemp("language") / "talker", BYTES))
    plain = str(write_language(tmp_path_factory.mktemp("language") / "plain", BYTES, template=None))
    return Languages({"talker": folder, "vectors": folder, "exact": plain})


@pytest.fixture(scope="module")
def shared(languages: Languages) -> Iterator[tuple[FakeBackend, str]]:
    backend = FakeBackend(IDS)
    with serving(backend, languages, Policy(new=50)) as base:
        yield backend, base


@pytest.fixture
def backend(shared: tuple[FakeBackend, str]) -> Iterator[FakeBackend]:
    made, _ = shared
    made.__init__(IDS)  # type: ignore[misc]
    yield made
    made.gate.set()


@pytest.fixture
def client(shared: tuple[FakeBackend, str], backend: FakeBackend) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=shared[1], api_key="none", timeout=20) as made:
        yield made


# ---------------------------------------------------------------------- models
def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["exact", "talker", "vectors"]
    found = client.models.retrieve("talker")
    assert (found.id, found.object, found.owned_by, found.digest) == ("talker", "model", "hush", "abcd")  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("owner/absent")
    assert caught.value.code == "model_not_found"


# ---------------------------------------------------------------------- completions
def test_completion(client: openai.OpenAI, backend: FakeBackend) -> None:
    made = client.completions.create(model="talker", prompt="Hello", max_tokens=100, temperature=0)
    assert made.id.startswith("cmpl-")
    assert made.object == "text_completion"
    (choice,) = made.choices
    assert (choice.text, choice.finish_reason, choice.index) == (ANSWER, "stop", 0)
    assert made.usage is not None
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (5, len(IDS) - 1)
    assert made.usage.total_tokens == 5 + len(IDS) - 1
    (asked,) = backend.asked
    assert asked["ids"] == BYTES.encode("Hello").ids
    assert asked["stop"] == (BYTES.token_to_id(END),)
    assert (asked["new"], asked["temperature"], asked["top_k"], asked["fixed"]) == (100, 0, None, False)
    assert backend.streams[0].closed.is_set()


def test_defaults_are_openai_s(client: openai.OpenAI, backend: FakeBackend) -> None:
    made = client.completions.create(model="talker", prompt="Hello")
    assert made.choices[0].finish_reason == "length"
    assert (backend.asked[0]["new"], backend.asked[0]["temperature"]) == (16, 1.0)
    assert made.usage is not None
    assert made.usage.completion_tokens == 16


def test_answers_fit_behind_the_prompt_as_it_is_padded(client: openai.OpenAI, backend: FakeBackend) -> None:
    backend.known["talker"] = Facts((8, 32), True, 36)
    for length, new in ((8, 29), (9, 5), (32, 5)):
        client.completions.create(model="talker", prompt=[72] * length, max_tokens=new)
        with pytest.raises(openai.BadRequestError, match=f"at most {new}"):
            client.completions.create(model="talker", prompt=[72] * length, max_tokens=new + 1)
    backend.known["talker"] = Facts((8, 60), True, 64)
    client.chat.completions.create(model="talker", messages=HELLO)
    assert backend.asked[-1]["new"] == 5  # of the 50 that the policy allows


def test_a_cut_character_is_shown_as_such_at_the_end(client: openai.OpenAI) -> None:
    assert client.completions.create(model="talker", prompt="x", max_tokens=3).choices[0].text == "Gr\ufffd"


def test_several_prompts_token_prompts_and_echo(client: openai.OpenAI, backend: FakeBackend) -> None:
    made = client.completions.create(model="talker", prompt=["Hello", "You"], max_tokens=2, echo=True)
    assert [(c.index, c.text) for c in made.choices] == [(0, "HelloGr"), (1, "YouGr")]
    assert made.usage is not None
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (8, 4)
    made = client.completions.create(model="talker", prompt=[72, 73], max_tokens=2, echo=True)
    assert made.choices[0].text == BYTES.decode([72, 73]) + "Gr"
    assert backend.asked[-1]["ids"] == [72, 73]
    client.completions.create(model="talker", prompt=[[72], [73, 74]], max_tokens=1)
    assert [asked["ids"] for asked in backend.asked[-2:]] == [[72], [73, 74]]


def test_top_k_and_fixed_length_as_extra_body(client: openai.OpenAI, backend: FakeBackend) -> None:
    extra = {"top_k": 5, "fixed_length": True}
    made = client.completions.create(model="talker", prompt="x", max_tokens=60, temperature=0.5, extra_body=extra)
    assert (backend.asked[0]["top_k"], backend.asked[0]["temperature"], backend.asked[0]["fixed"]) == (5, 0.5, True)
    assert made.choices[0].text == ANSWER
    assert made.choices[0].finish_reason == "stop"
    assert backend.streams[0].turns == 60


@pytest.mark.parametrize(
    ("stop", "text"),
    [("!", "Grüße, 世界 😀"), (["never", "!"], "Grüße, 世界 😀"), (["all", " 😀!", "!"], "Grüße, 世界"), ("G", "")],
)
def test_stop_strings_end_the_text_and_the_generation(
    client: openai.OpenAI, backend: FakeBackend, stop: Any, text: str
) -> None:
    made = client.completions.create(model="talker", prompt="x", max_tokens=100, stop=stop)
    assert (made.choices[0].text, made.choices[0].finish_reason) == (text, "stop")
    assert backend.streams[0].turns < len(IDS) - 5
    assert backend.streams[0].closed.is_set()


def test_stop_strings_with_fixed_length_go_on_in_silence(client: openai.OpenAI, backend: FakeBackend) -> None:
    made = client.completions.create(
        model="talker", prompt="x", max_tokens=40, stop=",", extra_body={"fixed_length": True}
    )
    assert made.choices[0].text == "Grüße"
    assert made.usage is not None
    assert made.usage.completion_tokens == len("Grüße,".encode())
    assert backend.streams[0].turns == 40


def test_streamed_completion(client: openai.OpenAI) -> None:
    options = {"include_usage": True}
    chunks = list(
        client.completions.create(
            model="talker",
            prompt="Hi",
            max_tokens=100,
            echo=True,
            stream=True,
            stream_options=options,  # type: ignore[arg-type]
        )
    )
    assert "".join(c.choices[0].text for c in chunks if c.choices) == "Hi" + ANSWER
    assert not any("\ufffd" in c.choices[0].text for c in chunks if c.choices)
    assert len({c.id for c in chunks}) == 1
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert (reasons[-1], set(reasons[:-1])) == ("stop", {None})
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(IDS) - 1


# ---------------------------------------------------------------------- chat
def test_chat(client: openai.OpenAI, backend: FakeBackend) -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
    ]
    made = client.chat.completions.create(model="talker", messages=messages)  # type: ignore[arg-type]
    assert made.id.startswith("chatcmpl-")
    assert made.choices[0].message.role == "assistant"
    assert made.choices[0].message.content == ANSWER
    assert made.choices[0].finish_reason == "stop"
    rendered = f"{START}<system>Be brief.\n<user>Hello\n<assistant>"
    assert backend.asked[0]["ids"] == BYTES.encode(rendered).ids
    assert backend.asked[0]["new"] == 50  # the policy's


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_chat_s_length(client: openai.OpenAI, backend: FakeBackend, name: str) -> None:
    made = client.chat.completions.create(model="talker", messages=HELLO, **{name: 5})  # type: ignore[call-overload]
    assert backend.asked[0]["new"] == 5
    assert made.choices[0].finish_reason == "length"


def test_what_clients_send_back_of_an_answer_is_taken(client: openai.OpenAI, backend: FakeBackend) -> None:
    said = client.chat.completions.create(model="talker", messages=HELLO).choices[0].message
    messages = [*HELLO, said, {"role": "user", "content": "?", "name": "ada"}]
    client.chat.completions.create(model="talker", messages=messages, user="ada", store=False, top_p=1.0, n=1)  # type: ignore[arg-type]
    assert BYTES.decode(backend.asked[-1]["ids"]).endswith(f"<assistant>{ANSWER}\n<user>?\n<assistant>")


def test_streamed_chat(client: openai.OpenAI, backend: FakeBackend) -> None:
    stream = client.chat.completions.create(
        model="talker", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ANSWER
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == len(backend.asked[0]["ids"]) + len(IDS) - 1
    assert len(chunks) > 10


def test_streams_arrive_token_by_token(client: openai.OpenAI, backend: FakeBackend) -> None:
    """The text of a token is here while the parties work on the next one."""
    backend.permits = threading.Semaphore(1)
    stream = iter(client.completions.create(model="talker", prompt="x", max_tokens=4, stream=True))
    texts = [next(stream).choices[0].text]
    for turns in (2, 4):  # the third character takes two tokens
        backend.permits.release(turns - backend.turns)
        texts.append(next(stream).choices[0].text)
        assert backend.turns == turns
    assert texts == ["G", "r", "ü"]


def test_async_client(shared: tuple[FakeBackend, str], backend: FakeBackend) -> None:
    async def talk() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=shared[1], api_key="none", timeout=20) as client:
            whole = await client.chat.completions.create(model="talker", messages=HELLO)  # type: ignore[arg-type]
            stream = await client.chat.completions.create(model="talker", messages=HELLO, stream=True)  # type: ignore[arg-type]
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return whole.choices[0].message.content or "", "".join(pieces)

    assert asyncio.run(talk()) == (ANSWER, ANSWER)


# ---------------------------------------------------------------------- embeddings
def test_embeddings_in_both_encodings(client: openai.OpenAI, backend: FakeBackend) -> None:
    packed = client.embeddings.create(model="vectors", input="Hello")  # the package asks for base64
    plain = client.embeddings.create(model="vectors", input=["Hello", "You"], encoding_format="float")
    total = sum(BYTES.encode("Hello").ids) / 256
    assert packed.data[0].embedding == pytest.approx([5.0, total, -0.1])
    assert plain.data[0].embedding == pytest.approx([5.0, total, -0.1])
    assert [d.index for d in plain.data] == [0, 1]
    assert (plain.usage.prompt_tokens, plain.usage.total_tokens) == (8, 8)
    assert backend.asked[0]["pad"] == 3
    tokens = client.embeddings.create(model="vectors", input=[[72, 73], [74]], dimensions=3)
    assert [d.embedding[0] for d in tokens.data] == [2.0, 1.0]


# ---------------------------------------------------------------------- errors
COMPLETION: dict[str, Any] = {"model": "talker", "prompt": "secret", "max_tokens": 5}
CHAT: dict[str, Any] = {"model": "talker", "messages": [{"role": "user", "content": "secret"}]}
REFUSED = [
    ("completions", {"model": "gpt-9"}, 404, "model", "model_not_found"),
    ("completions", {"prompt": "s" * (ROOM + 1)}, 400, "prompt", "context_length_exceeded"),
    ("completions", {"max_tokens": CONTEXT - ROOM + 2}, 400, "max_tokens", "context_length_exceeded"),
    ("completions", {"prompt": ""}, 400, "prompt", None),
    ("completions", {"prompt": []}, 400, "prompt", None),
    ("completions", {"prompt": {"secret": 1}}, 400, "prompt", None),
    ("completions", {"prompt": [1.5]}, 400, "prompt.0", None),
    ("completions", {"max_tokens": 0}, 400, "max_tokens", None),
    ("completions", {"model": "exact", "prompt": "abc"}, 400, "prompt", None),
    ("completions", {"model": "vectors"}, 400, "model", None),
    ("completions", {"n": 2}, 400, "n", "unsupported_parameter"),
    ("completions", {"best_of": 3}, 400, "best_of", "unsupported_parameter"),
    ("completions", {"logprobs": 0}, 400, "logprobs", "unsupported_parameter"),
    ("completions", {"top_p": 0.9}, 400, "top_p", "unsupported_parameter"),
    ("completions", {"presence_penalty": 0.1}, 400, "presence_penalty", "unsupported_parameter"),
    ("completions", {"frequency_penalty": -1}, 400, "frequency_penalty", "unsupported_parameter"),
    ("completions", {"logit_bias": {"5": 1}}, 400, "logit_bias", "unsupported_parameter"),
    ("completions", {"suffix": "end"}, 400, "suffix", "unsupported_parameter"),
    ("completions", {"seed": 3}, 400, "seed", "unsupported_parameter"),
    ("completions", {"temperature": -1}, 400, "temperature", None),
    ("completions", {"temprature": 1}, 400, "temprature", "unknown_parameter"),
    ("chat/completions", {"messages": []}, 400, "messages", None),
    ("chat/completions", {"messages": [{"role": "tool", "content": "secret"}]}, 400, "messages.0.role", None),
    ("chat/completions", {"tools": [{"type": "function"}]}, 400, "tools", "unsupported_parameter"),
    ("chat/completions", {"logprobs": True}, 400, "logprobs", "unsupported_parameter"),
    ("chat/completions", {"top_logprobs": 2}, 400, "top_logprobs", "unsupported_parameter"),
    ("chat/completions", {"response_format": {"type": "json_object"}}, 400, "response_format", "unsupported_parameter"),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "secret"}}]}]},
        400,
        "messages.0.content.0.type",
        None,
    ),
    (
        "chat/completions",
        {"messages": [{"role": "assistant", "content": "secret", "tool_calls": [{"id": "1"}]}]},
        400,
        "messages.0.tool_calls",
        "unsupported_parameter",
    ),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": "s" * 99}]},
        400,
        "messages",
        "context_length_exceeded",
    ),
    ("embeddings", {"input": "s" * (ROOM + 1)}, 400, "input", "context_length_exceeded"),
    ("embeddings", {"model": "talker"}, 400, "model", None),
    ("embeddings", {"dimensions": 2}, 400, "dimensions", "unsupported_parameter"),
    ("embeddings", {"input": []}, 400, "input", None),
]
BODIES = {"completions": COMPLETION, "chat/completions": CHAT, "embeddings": {"model": "vectors", "input": "secret"}}


@pytest.mark.parametrize(("path", "change", "status", "param", "code"), REFUSED, ids=lambda v: str(v)[:30])
def test_what_is_refused(
    client: openai.OpenAI,
    backend: FakeBackend,
    path: str,
    change: dict[str, Any],
    status: int,
    param: str,
    code: str | None,
) -> None:
    """By status, parameter and code; before the parties compute; and no message quotes what was asked."""
    with pytest.raises(openai.APIStatusError) as caught:
        client.post(f"/{path}", body=BODIES[path] | change, cast_to=object)
    error = caught.value
    assert (error.status_code, error.param, error.code) == (status, param, code)
    assert error.type == "invalid_request_error"
    assert "secret" not in error.message
    assert not backend.streams


@pytest.mark.parametrize(
    "change",
    [
        {"n": 1, "top_p": 1, "presence_penalty": 0.0, "frequency_penalty": None, "logit_bias": {}, "logprobs": None},
        {"suffix": None, "best_of": 1, "user": "ada", "seed": 3, "temperature": 0},
    ],
)
def test_what_asks_for_nothing_is_taken(client: openai.OpenAI, change: dict[str, Any]) -> None:
    made: Any = client.post("/completions", body=COMPLETION | change, cast_to=object)
    assert made["choices"][0]["text"] == "Grü\ufffd"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PartyUnreachable(1, AbortReason.UNREACHABLE), "unreachable"),
        (DeadlineExceeded(2, AbortReason.DEADLINE), "deadline"),
        (PartyError(0, AbortReason.LIMIT, "sessions"), "limit"),
    ],
)
def test_parties_that_fail_are_named_and_nothing_is_repeated(
    client: openai.OpenAI, backend: FakeBackend, error: PartyError, code: str
) -> None:
    backend.down = error
    begin = time.perf_counter()
    with pytest.raises(openai.InternalServerError) as caught:
        client.completions.create(**COMPLETION)
    assert caught.value.status_code == 503
    assert caught.value.code == code
    assert f"party {error.party}" in caught.value.message
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert time.perf_counter() - begin < 5


def test_a_party_that_fails_before_the_first_token_gives_a_status(client: openai.OpenAI, backend: FakeBackend) -> None:
    backend.fails_at = 1
    with pytest.raises(openai.InternalServerError) as caught:
        client.completions.create(**COMPLETION, stream=True)
    assert caught.value.code == "disconnected"
    assert len(backend.streams) == 1  # not repeated


def test_a_party_that_fails_in_the_middle_ends_the_stream_with_an_error(
    client: openai.OpenAI, backend: FakeBackend
) -> None:
    backend.fails_at = 4
    stream = client.chat.completions.create(**CHAT, stream=True)
    assert [next(stream).choices[0].delta.content for _ in range(3)] == ["", "G", "r"]
    with pytest.raises(openai.APIError, match="party 1") as caught:
        next(stream)
    assert caught.value.code == "disconnected"
    assert backend.streams[0].closed.is_set()


def test_a_model_without_a_tokenizer_says_how(backend: FakeBackend) -> None:
    how = pytest.raises(openai.BadRequestError, match="--tokenizer talker=FOLDER")
    with serving(backend, Languages()) as base, openai.OpenAI(base_url=base, api_key="x") as lost, how:
        lost.completions.create(**COMPLETION)


# ---------------------------------------------------------------------- queue and hang-up
def test_requests_for_one_model_queue_and_others_pass(client: openai.OpenAI, backend: FakeBackend) -> None:
    backend.gate.clear()
    done: list[str] = []

    def ask(name: str) -> None:
        client.completions.create(model="talker", prompt=name, max_tokens=2)
        done.append(name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
        assert backend.reached.wait(10)
    time.sleep(0.1)
    assert len(backend.streams) == 1
    assert client.embeddings.create(model="vectors", input="x").data
    backend.gate.set()
    for thread in threads:
        thread.join(10)
    assert sorted(done) == ["a", "b"]
    assert len(backend.streams) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_hanging_up_frees_the_session_in_the_middle_of_a_turn(
    client: openai.OpenAI, backend: FakeBackend, stream: bool
) -> None:
    """The turn would never end by itself; and the next request is let in."""
    backend.gate.clear()
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3, max_retries=0).completions.create(**COMPLETION, stream=stream)
    assert backend.streams[0].closed.wait(10)
    assert backend.streams[0].turns == 0
    backend.gate.set()
    assert client.completions.create(**COMPLETION).choices


def test_leaving_a_stream_frees_the_session(client: openai.OpenAI, backend: FakeBackend) -> None:
    stream = client.completions.create(model="talker", prompt="x", max_tokens=CONTEXT - ROOM, stream=True)
    next(iter(stream))
    backend.gate.clear()
    stream.close()
    assert backend.streams[0].closed.wait(10)


def test_who_hangs_up_in_the_queue_is_never_asked_for(client: openai.OpenAI, backend: FakeBackend) -> None:
    backend.gate.clear()
    first = threading.Thread(target=lambda: client.completions.create(**COMPLETION))
    first.start()
    assert backend.reached.wait(10)
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3, max_retries=0).completions.create(**COMPLETION)
    time.sleep(0.2)
    backend.gate.set()
    first.join(10)
    assert client.completions.create(**COMPLETION).choices
    assert len(backend.streams) == 2


def test_what_is_sent_is_json_with_its_characters(shared: tuple[FakeBackend, str], backend: FakeBackend) -> None:
    """No package between: the bytes of a stream."""
    body = json.dumps(COMPLETION | {"stream": True}).encode()
    request = urllib.request.Request(f"{shared[1]}/completions", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        lines = [line.decode() for line in answer.read().split(b"\n") if line]
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: "))["object"] == "text_completion" for line in lines[:-1])
