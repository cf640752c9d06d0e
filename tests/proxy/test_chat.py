"""`hush chat`: what is asked, what is forgotten, and how an answer is stopped."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from proxy_harness import ANSWER, CONTEXT, END, ROOM, START, FakeBackend, FakeTokens, bytes_tokenizer, write_language

from hush.models.checkpoint import Checkpoint
from hush.mpc.errors import AbortReason, PartyError, ShapeError, UserError
from hush.parties.cli import chat, main
from hush.parties.cli.chat import Chat, Loop, Style
from hush.parties.proxy.backend import Facts
from hush.parties.proxy.language import Language

BYTES = bytes_tokenizer()
SHORT = "Sure."
IDS = [*BYTES.encode(SHORT).ids, BYTES.token_to_id(END)]
FACTS = Facts((ROOM,), True, CONTEXT)


@pytest.fixture
def language(tmp_path: Path) -> Language:
    return Language(Checkpoint(write_language(tmp_path / "talker", BYTES)))


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(IDS)


@pytest.fixture
def talk(backend: FakeBackend, language: Language) -> Chat:
    return Chat(backend, "talker", language, FACTS, Style(), "Be kind.")


def loop(talk: Chat, lines: str, monkeypatch: pytest.MonkeyPatch, *, terminal: bool = False) -> None:
    """Run it on these lines."""
    stdin = io.StringIO(lines)
    monkeypatch.setattr("sys.stdin", stdin)
    monkeypatch.setattr(stdin, "isatty", lambda: terminal)
    if terminal:
        monkeypatch.setattr("builtins.input", lambda prompt: _next(stdin))
    Loop(talk).run()


def _next(stdin: io.StringIO) -> str:
    line = stdin.readline()
    if not line:
        raise EOFError
    if line == "^C\n":
        raise KeyboardInterrupt
    return line.rstrip("\n")


def prompts(backend: FakeBackend) -> list[str]:
    return [BYTES.decode(asked["ids"], skip_special_tokens=False) for asked in backend.asked]


# ---------------------------------------------------------------------- what is asked
def test_turns_are_kept_with_what_was_answered(talk: Chat, backend: FakeBackend) -> None:
    assert "".join(talk.say("Hi")) == SHORT
    assert "".join(talk.say("And?")) == SHORT
    head = f"{START}<system>Be kind.\n<user>Hi\n<assistant>"
    assert prompts(backend) == [head, f"{head}{SHORT}\n<user>And?\n<assistant>"]
    assert (talk.took.tokens, talk.took.bytes_sent) == (len(IDS) - 1, 1_000_000 * len(IDS))
    assert backend.asked[0]["stop"] == (BYTES.token_to_id(END),)
    talk.reset()
    list(talk.say("Hi"))
    assert prompts(backend)[-1] == head


def test_the_oldest_turns_are_forgotten_and_the_system_s_words_are_not(talk: Chat, backend: FakeBackend) -> None:
    for i in range(6):
        list(talk.say(f"Question {i}"))
    assert all(len(asked["ids"]) <= ROOM for asked in backend.asked)
    last = prompts(backend)[-1]
    assert last.startswith(f"{START}<system>Be kind.\n<user>Question ")
    assert "Question 0" not in last
    assert last.endswith("<user>Question 5\n<assistant>")
    assert last.count("<user>") == last.count("<assistant>") >= 2


def test_turns_are_forgotten_for_the_answer_to_have_its_length(backend: FakeBackend, language: Language) -> None:
    """Prompts of up to 40 tokens leave 61 for an answer, longer ones leave 1."""
    talk = Chat(backend, "talker", language, Facts((40, 100), True, 100), Style(30))
    for _ in range(3):
        list(talk.say("Go on"))
    assert [len(asked["ids"]) <= 40 for asked in backend.asked] == [True] * 3
    assert [asked["new"] for asked in backend.asked] == [30] * 3
    list(talk.say("x" * 50))
    assert backend.asked[-1]["new"] == 1


def test_what_does_not_fit_even_alone_changes_nothing(talk: Chat, backend: FakeBackend) -> None:
    list(talk.say("Hi"))
    before = list(talk.turns)
    with pytest.raises(ShapeError, match=f"deployed for {ROOM}"):
        list(talk.say("x" * ROOM))
    assert talk.turns == before
    assert len(backend.asked) == 1


def test_without_a_template_the_model_does_not_speak_for_the_user(backend: FakeBackend, tmp_path: Path) -> None:
    language = Language(Checkpoint(write_language(tmp_path / "plain", BYTES, template=None)))
    backend.ids = list(BYTES.encode(" Yes.\nuser: and then").ids)
    talk = Chat(backend, "talker", language, FACTS, Style(40))
    assert "".join(talk.say("Really?")) == "Yes."
    assert prompts(backend) == ["user: Really?\nassistant:"]
    assert backend.streams[0].closed.is_set()


def test_models_that_cannot_talk() -> None:
    with pytest.raises(UserError, match="does not generate"):
        chat.checked(Facts((ROOM,), True), "vectors")
    with pytest.raises(UserError, match="exactly 64 tokens"):
        chat.checked(Facts((64,), False, 80), "exact")


# ---------------------------------------------------------------------- lines
def test_lines_from_a_pipe(
    talk: Chat, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loop(talk, "Hi\n\n/reset\nAgain\n/exit\nnever\n", monkeypatch)
    out, err = capsys.readouterr()
    assert out == f"{SHORT}\n{SHORT}\n"
    assert [text.count("<user>") for text in prompts(backend)] == [1, 1]
    assert "5 tokens" in err
    assert "tokens/s, 6.0 MB between the parties" in err


class Interrupted(FakeTokens):
    """Ctrl-C while the parties work on the third token."""

    def __next__(self) -> int:
        if self.turns == 2:
            raise KeyboardInterrupt
        return super().__next__()


def test_ctrl_c_stops_the_answer_and_not_the_program(
    talk: Chat, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Any] = []

    def generate(model: str, ids: list[int], *, stop: Any, max_new_tokens: int, **options: Any) -> FakeTokens:
        kind = FakeTokens if made else Interrupted
        made.append(kind(IDS, stop, max_new_tokens, False, backend))
        return made[-1]  # type: ignore[no-any-return]

    monkeypatch.setattr(backend, "generate", generate)
    loop(talk, "Hi\n^C\nMore\n", monkeypatch, terminal=True)
    assert made[0].closed.is_set()
    assert capsys.readouterr().out.splitlines()[0] == "Su"
    assert [turn["content"] for turn in talk.turns] == ["Hi", "Su", "More", SHORT]


def test_parties_that_fail_end_a_pipe_and_not_a_terminal(
    talk: Chat, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend.surprise = PartyError(2, AbortReason.DISCONNECTED)
    with pytest.raises(PartyError):
        loop(talk, "Hi\nMore\n", monkeypatch)
    loop(talk, "Hi\nMore\n", monkeypatch, terminal=True)
    assert capsys.readouterr().err.count("party 2: connection lost") == 2
    assert talk.turns == []


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_says_what_is_missing(quiet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "talker", "--config", "absent.toml"]) == 1
    assert "--tokenizer" in capsys.readouterr().err
    write_language(quiet / "talker", BYTES)
    assert main(["chat", "talker", "--config", "absent.toml"]) == 1
    out, err = capsys.readouterr()
    assert "absent.toml" in err
    assert not out
    assert ANSWER not in err
