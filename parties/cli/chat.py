"""`hush chat`: a conversation in the terminal, with a model that no party sees a word of."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from hush.mpc.errors import HushError, ShapeError, UserError
from hush.parties import client
from hush.parties.cli import console
from hush.parties.proxy.backend import Backend, Facts, PartyBackend
from hush.parties.proxy.language import Language, Languages
from hush.parties.proxy.reading import Reader

HELP = "/reset forgets the conversation, /exit leaves, Ctrl-C stops an answer"
_TERMINATED = 143


def command(
    model: Annotated[str, typer.Argument(help="The name that it was deployed under.")],
    config: Annotated[Path, typer.Option(help="The client's TOML file.")],
    tokenizer: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where its tokenizer is (or a hub id).", show_default=False)
    ] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told first.", show_default=False)] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: always the likeliest token.")] = 0.0,
    top_k: Annotated[int | None, typer.Option(min=1, help="Draw from so many.", show_default=False)] = None,
    fixed_length: Annotated[
        bool, typer.Option("--fixed-length", help="Compute every answer to its full length, to hide where it ended.")
    ] = False,
) -> None:
    """Talk with a model on three running parties. From a pipe, each line is a prompt."""
    language = Languages({model: tokenizer} if tokenizer else {}).of(model)
    with client.connect(config) as parties, _terminating():
        backend = PartyBackend(parties)
        style = Style(max_tokens, temperature, top_k, fixed_length)
        talk = Chat(backend, model, language, checked(backend.facts(model), model), style, system)
        Loop(talk).run()


def checked(facts: Facts, model: str) -> Facts:
    """UserError for a model that cannot talk."""
    if facts.context is None:
        raise UserError(f"{model} does not generate")
    if not facts.padded:
        raise UserError(f"{model} was deployed for prompts of exactly {facts.room} tokens, without padding")
    return facts


@dataclass(frozen=True, slots=True)
class Style:
    """How answers are made."""

    new: int = 256
    temperature: float = 0.0
    top_k: int | None = None
    fixed_length: bool = False


@dataclass(slots=True)
class Took:
    """What an answer took: tokens, seconds, and bytes between the parties."""

    tokens: int = 0
    seconds: float = 0.0
    bytes_sent: int = 0
    begin: float = field(default_factory=time.perf_counter)

    def __str__(self) -> str:
        rate = self.tokens / self.seconds if self.seconds else 0.0
        megabytes = console.megabytes(self.bytes_sent)
        return f"{self.tokens} tokens, {self.seconds:.1f} s, {rate:.2f} tokens/s, {megabytes} MB between the parties"


class Chat:
    """A conversation: what was said, and the oldest turns forgotten when the prompt has no room for them."""

    def __init__(
        self,
        backend: Backend,
        model: str,
        language: Language,
        facts: Facts,
        style: Style,
        system: str | None = None,
    ) -> None:
        self._backend, self._model, self._language, self._facts, self._style = backend, model, language, facts, style
        self._first = [{"role": "system", "content": system}] if system else []
        self.turns: list[dict[str, str]] = []
        self.took = Took()

    def reset(self) -> None:
        """Forget all turns."""
        self.turns = []

    def say(self, text: str) -> Generator[str]:
        """The answer to a text, as it comes; what of it has come stays in the conversation. ShapeError if the text is
        too long even alone."""
        kept, ids = self._prompt({"role": "user", "content": text})
        style, self.took = self._style, Took()
        reader = Reader(self._language.following(ids), self._language.turns, strip=True)
        stream = self._backend.generate(
            self._model,
            ids,
            max_new_tokens=min(style.new, self._facts.longest_answer(len(ids))),
            temperature=style.temperature,
            top_k=style.top_k,
            stop=self._language.stop_ids,
            fixed_length=style.fixed_length,
        )
        self.turns = kept
        try:
            for token in stream:
                if reader.stopped:
                    continue
                self.took.tokens += 1
                yield reader.feed(token)
                if reader.stopped and not style.fixed_length:
                    break
            yield reader.finish()
        finally:
            stream.close()
            self.took.seconds, self.took.bytes_sent = time.perf_counter() - self.took.begin, stream.bytes_sent
            self.turns.append({"role": "assistant", "content": reader.text})

    def _prompt(self, message: dict[str, str]) -> tuple[list[dict[str, str]], list[int]]:
        """The conversation with one more message, and its ids; without as many of the oldest turns as it takes for the
        prompt to fit and for the answer to have its length."""
        kept, facts = [*self.turns, message], self._facts
        wanted = min(self._style.new, facts.longest_answer(1))
        while True:
            ids = self._language.conversation([*self._first, *kept])
            if len(ids) <= facts.room and (len(kept) == 1 or facts.longest_answer(len(ids)) >= wanted):
                return kept, ids
            if len(kept) == 1:
                raise ShapeError(f"that is {len(ids)} tokens, and the model was deployed for {facts.room}")
            kept = kept[2:]


class Loop:
    """Lines in, answers out: prompts on a terminal, else a line each."""

    def __init__(self, chat: Chat) -> None:
        self._chat, self._terminal = chat, sys.stdin.isatty()

    def run(self) -> None:
        """Until /exit or the end of the input."""
        if self._terminal:
            with suppress(ImportError):
                import readline  # noqa: F401 - lines can be edited; nothing of them is written anywhere
            console.err().print(HELP)
        while (line := self._line()) is not None:
            text = line.strip()
            if text == "/exit":
                return
            if text == "/reset":
                self._chat.reset()
            elif text.startswith("/"):
                console.err().print(HELP)
            elif text:
                self._answer(text)

    def _line(self) -> str | None:
        if not self._terminal:
            return sys.stdin.readline() or None
        while True:
            try:
                return input("> ")
            except EOFError:
                print()
                return None
            except KeyboardInterrupt:
                print(f"\n{HELP}")

    def _answer(self, text: str) -> None:
        answer = self._chat.say(text)
        try:
            for piece in answer:
                print(piece, end="", flush=True)
            print()
        except KeyboardInterrupt:
            answer.close()
            if not self._terminal:
                raise
            print()
        except HushError as error:
            if not self._terminal:
                raise
            console.complain("error", str(error))
            return
        console.err().print(escape(str(self._chat.took)), style="dim", soft_wrap=True)


@contextmanager
def _terminating() -> Iterator[None]:
    """SIGTERM ends the program; taken for Ctrl-C, as elsewhere, it would end an answer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(_TERMINATED)
