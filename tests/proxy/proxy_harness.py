"""A backend whose answers are known, tokenizers that split characters, and the proxy on a free port."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from hush.mpc.errors import AbortReason, PartyError
from hush.parties.client import DeployedModel
from hush.parties.proxy.app import application
from hush.parties.proxy.backend import Facts
from hush.parties.proxy.endpoints import Policy
from hush.parties.proxy.language import Languages
from hush.parties.proxy.server import bind, server, url

START, END = "<|start|>", "<|end|>"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ANSWER = "Grüße, 世界 😀! That is all."
ROOM, CONTEXT = 100, 250


def bytes_tokenizer() -> Tokenizer:
    """Every byte is a token: characters beyond ASCII are split."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(START, special=True), AddedToken(END, special=True)])
    return made


def pieces_tokenizer() -> Tokenizer:
    """As sentencepiece: words carry the space before them, unknown characters fall back to bytes."""
    words = ["<unk>", "▁Hello", "▁world", "▁the", "re", "▁", "."]
    vocabulary = {word: i for i, word in enumerate([*words, *(f"<0x{b:02X}>" for b in range(256))])}
    merges: list[tuple[str, str]] = []
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


def write_language(folder: Path, tokenizer: Tokenizer, *, template: str | None = TEMPLATE) -> Path:
    """A checkpoint's folder without weights."""
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": {"content": START}, "eos_token": END} | ({"chat_template": template} if template else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 3}))
    return folder


class FakeTokens:
    """An answer that is known before. With a gate, it waits at each token until the gate opens or it is closed."""

    def __init__(self, ids: Sequence[int], stop: Sequence[int], new: int, fixed: bool, backend: FakeBackend) -> None:
        self._ids, self._stop, self._left, self._fixed, self._backend = list(ids), stop, new, fixed, backend
        self.stopped, self.closed, self.turns = False, threading.Event(), 0

    @property
    def bytes_sent(self) -> int:
        return 1_000_000 * self.turns

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        while self._left and (self._fixed or not self.stopped):
            self._backend.reached.set()
            while not self._backend.gate.wait(0.01):
                if self.closed.is_set():
                    raise PartyError(None, AbortReason.CLOSED)
            if self._backend.permits is not None:
                self._backend.permits.acquire()
            self._left -= 1
            token = self._ids[self.turns % len(self._ids)]
            self.turns += 1
            if self._backend.fails_at == self.turns:
                raise PartyError(1, AbortReason.DISCONNECTED)
            self.stopped = self.stopped or token in self._stop
            if not self.stopped:
                return token
        raise StopIteration

    def close(self) -> None:
        self.closed.set()


def facts() -> dict[str, Facts]:
    """Of the models that are deployed."""
    return {
        "exact": Facts((4, 6), False, 8),
        "talker": Facts((ROOM,), True, CONTEXT),
        "vectors": Facts((ROOM,), True),
    }


@dataclass
class FakeBackend:
    """Answers `ids` to everything, and keeps what it was asked."""

    ids: list[int]
    known: dict[str, Facts] = field(default_factory=facts)
    asked: list[dict[str, Any]] = field(default_factory=list)
    streams: list[FakeTokens] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)
    permits: threading.Semaphore | None = None  # one for each token, if there are any
    fails_at: int | None = None
    down: PartyError | None = None
    surprise: Exception | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def turns(self) -> int:
        """Of the last stream."""
        return self.streams[-1].turns if self.streams else 0

    def models(self) -> list[DeployedModel]:
        if self.down is not None:
            raise self.down
        return [DeployedModel("exact", "00ff"), DeployedModel("talker", "abcd"), DeployedModel("vectors", "1234")]

    def facts(self, model: str) -> Facts:
        if self.down is not None:
            raise self.down
        if model not in self.known:
            raise PartyError(0, AbortReason.UNKNOWN_MODEL, f"{model!r} is not deployed; it has talker")
        return self.known[model]

    def generate(
        self,
        model: str,
        ids: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float,
        top_k: int | None,
        stop: Sequence[int],
        fixed_length: bool,
    ) -> FakeTokens:
        if self.surprise is not None:
            raise self.surprise
        self.asked.append(
            {"model": model, "ids": list(ids), "new": max_new_tokens, "temperature": temperature, "top_k": top_k}
            | {"stop": tuple(stop), "fixed": fixed_length}
        )
        stream = FakeTokens(self.ids, stop, max_new_tokens, fixed_length, self)
        self.streams.append(stream)
        return stream

    def embed(self, model: str, ids: Sequence[int], pad: int) -> list[float]:
        self.asked.append({"model": model, "ids": list(ids), "pad": pad})
        return [float(len(ids)), sum(ids) / 256, -0.1]


@contextmanager
def serving(backend: Any, languages: Languages, policy: Policy | None = None, **options: Any) -> Iterator[str]:
    """The base URL of a proxy that runs in a thread."""
    with bind("127.0.0.1", 0) as listening:
        running = server(application(backend, languages, policy, **options))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield url(listening)
        finally:
            running.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
