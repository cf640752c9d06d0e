"""The proxy's and the chat's own processes before three real parties: the answers are the plain network's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
import torch
from support.decoder import CONTEXT, Decoder, Next, Prefill
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from hush.mpc.compiler import Program, compile_generator, compile_module
from hush.parties.client import Client, connect, deploy, remove
from hush.parties.local import LocalTrio

VOCABULARY, ROOM = 23, 5
WORDS = [f"w{i}" for i in range(VOCABULARY)]
HUSH = [sys.executable, "-m", "hush"]


class Sentence(nn.Module):
    """The mean of the words' vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 6)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        real = attention_mask.to(torch.float32)[..., None]
        return (self.words(input_ids) * real).sum(1) / real.sum(1)


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return make().eval()


NET = _seeded(lambda: Decoder(VOCABULARY))
SENTENCE = _seeded(Sentence)


def generator() -> Program:
    numbers = torch.Generator().manual_seed(5)
    rows = [torch.randint(0, VOCABULARY, (1, ROOM), generator=numbers) for _ in range(4)]
    masks = [torch.arange(ROOM)[None] >= ROOM - n for n in (5, 3, 2, 1)]
    calls = list(zip(rows, masks, strict=True))
    return compile_generator(Prefill(NET), Next(NET), calls[0], calls=calls[1:], context=CONTEXT)


def encoder(length: int) -> Program:
    args = (torch.arange(length)[None], torch.ones(1, length, dtype=torch.bool))
    return compile_module(SENTENCE, args)


def greedy(text: str, new: int) -> str:
    """What the plain network goes on with."""
    made = [WORDS.index(word) for word in text.split()]
    for _ in range(new):
        with torch.no_grad():
            made.append(int(NET(torch.tensor([made]))[0, -1].argmax()))
    return "".join(f" {WORDS[i]}" for i in made[len(text.split()) :])


@dataclass
class Stage:
    """Three parties with two models, and the proxy's process before them."""

    trio: LocalTrio
    parties: Client
    folder: Path
    base: str
    log: Path

    def sessions(self) -> int:
        return max(info.sessions for info in self.parties._parties.info())


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("proxy")
    write_words(folder / "words")
    with LocalTrio(threads=1) as trio, connect(trio.config) as parties:
        deploy(generator(), trio.provider_config, "small")
        deploy(encoder(6), trio.provider_config, "sentence")
        write_client(trio, folder / "client.toml")
        options = ["--port", "0", "--tokenizer", "small=words", "--tokenizer", "sentence=words"]
        with (folder / "log").open("wb") as log:
            command = [*HUSH, "proxy", "--config", "client.toml", *options]
            with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True) as process:
                assert process.stdout is not None
                yield Stage(trio, parties, folder, process.stdout.readline().strip(), folder / "log")
                process.send_signal(signal.SIGINT)
                process.wait(30)
        assert process.returncode == 130


def write_words(folder: Path) -> None:
    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))


def write_client(trio: LocalTrio, path: Path) -> None:
    assert trio.config.tls is not None
    lines = [f"parties = {list(trio.addresses)!r}", "[tls]"]
    lines += [f"{name} = '{file}'" for name, file in trio.config.tls.model_dump().items()]
    path.write_text("\n".join(lines))


@pytest.fixture
def client(stage: Stage) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=stage.base, api_key="none", timeout=60) as made:
        yield made


def eventually(condition: Callable[[], bool]) -> bool:
    return any(condition() or time.sleep(0.05) for _ in range(400))


def test_models(client: openai.OpenAI, stage: Stage) -> None:
    assert {m.id: m.digest for m in client.models.list()} == {m.name: m.digest for m in stage.parties.models()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("prompt", ["w7 w1 w9 w4", "w2"])
def test_completion_is_the_plain_network_s(client: openai.OpenAI, stage: Stage, prompt: str) -> None:
    made = client.completions.create(model="small", prompt=prompt, max_tokens=5, temperature=0)
    assert made.choices[0].text == greedy(prompt, 5)
    assert eventually(lambda: stage.sessions() == 0)


def test_streamed_chat_is_the_plain_network_s(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "w7 w1"}, {"role": "user", "content": "w9"}]
    stream = client.chat.completions.create(
        model="small",
        messages=messages,  # type: ignore[arg-type]
        max_tokens=4,
        temperature=0,
        stream=True,
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == greedy("w7 w1 w9", 4).strip()


def test_sampled_answers_are_words(client: openai.OpenAI) -> None:
    made = client.completions.create(model="small", prompt="w7", max_tokens=3, extra_body={"top_k": 4})
    assert set(made.choices[0].text.split()) <= set(WORDS)


def test_embeddings_are_the_plain_network_s(client: openai.OpenAI) -> None:
    made = client.embeddings.create(model="sentence", input=["w1 w2 w3", "w4"])
    for found, ids in zip(made.data, ([1, 2, 3], [4]), strict=True):
        with torch.no_grad():
            plain = SENTENCE(torch.tensor([ids]), torch.ones(1, len(ids)))[0]
        assert (torch.tensor(found.embedding) - plain).abs().max() < 1e-3


def test_what_does_not_fit_is_refused_with_the_parties_own_limits(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=f"deployed for {ROOM}") as caught:
        client.completions.create(model="small", prompt="w1 " * (ROOM + 1))
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="vocabulary"):
        client.completions.create(model="small", prompt=[VOCABULARY])
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.completions.create(model="small", prompt="w1", max_tokens=1, temperature=0.001)
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="other", prompt="w1")


def test_leaving_a_stream_frees_the_parties_session(client: openai.OpenAI, stage: Stage) -> None:
    for _ in range(3):
        stream = client.completions.create(
            model="small", prompt="w7 w1", max_tokens=CONTEXT - ROOM + 1, temperature=0, stream=True
        )
        next(iter(stream))
        stream.close()
    assert eventually(lambda: stage.sessions() <= 1)  # the encoder's stays open, for the next text
    assert client.completions.create(model="small", prompt="w7", max_tokens=1, temperature=0).choices


def test_a_model_that_is_deployed_anew_is_asked_as_it_is_now(client: openai.OpenAI, stage: Stage) -> None:
    deploy(encoder(9), stage.trio.provider_config, "sentence")
    long = client.embeddings.create(model="sentence", input="w1 " * 9).data[0].embedding
    assert (torch.tensor(long) - SENTENCE.words.weight[1].detach()).abs().max() < 1e-3
    remove(stage.trio.provider_config, "sentence")
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="sentence", input="w1")
    assert caught.value.code == "model_not_found"


def test_chat_from_a_pipe(stage: Stage) -> None:
    command = [*HUSH, "chat", "small", "--config", "client.toml", "--tokenizer", "words", "--max-tokens", "3"]
    env = {**os.environ, "COLUMNS": "200"}
    lines = "w7 w1\nw9\n/exit\n"
    done = subprocess.run(command, cwd=stage.folder, input=lines, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == greedy("w7 w1", 3).strip()
    assert second == greedy("w9", 3).strip()  # the first turn found no room beside it
    assert done.stderr.count("3 tokens, ") == 2
    assert " MB between the parties" in done.stderr


def test_the_proxy_s_output_says_nothing_of_what_was_asked(stage: Stage) -> None:
    """Of all tests before this one."""
    written = stage.log.read_text()
    assert "POST /v1/completions 200" in written
    assert "POST /v1/completions hung up" in written or written.count(" 200 ") > 5
    for line in written.splitlines():
        assert not any(word in line.split() for word in WORDS), line


def test_a_party_that_is_gone(client: openai.OpenAI, stage: Stage) -> None:
    """Last: it ends party 1."""
    stage.trio.processes[1].kill()
    stage.trio.processes[1].wait()
    with pytest.raises(openai.InternalServerError) as caught:
        client.completions.create(model="small", prompt="w7", max_tokens=1)
    assert caught.value.status_code == 503
    assert "party 1" in caught.value.message
