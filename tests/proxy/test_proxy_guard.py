"""Who is answered, where the proxy listens, and what it says of requests: nothing of what is in them."""

from __future__ import annotations

import http.client
import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import typer
from proxy_harness import ANSWER, END, FakeBackend, bytes_tokenizer, serving, write_language

from hush.mpc.errors import AbortReason, PartyError, UserError
from hush.parties.cli import application, main
from hush.parties.proxy.guard import is_here
from hush.parties.proxy.language import Languages
from hush.parties.proxy.requests import IGNORED, NEUTRAL, ChatCompletion, Completion, Embedding
from hush.parties.proxy.server import FLAG, bind, url

BYTES = bytes_tokenizer()
IDS = [*BYTES.encode(ANSWER).ids, BYTES.token_to_id(END)]
ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}
BODY = json.dumps({"model": "talker", "prompt": "my secret diagnosis", "max_tokens": 3}).encode()


@pytest.fixture(scope="module")
def languages(tmp_path_factory: pytest.TempPathFactory) -> Languages:
    return Languages({"talker": str(write_language(tmp_path_factory.mktemp("language") / "talker", BYTES))})


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(IDS)


@pytest.fixture
def base(backend: FakeBackend, languages: Languages, notes: list[str]) -> Iterator[str]:
    with serving(backend, languages, note=notes.append) as found:
        yield found


def ask(
    base: str, body: bytes | None = BODY, headers: dict[str, str] | None = None, path: str = "/v1/completions"
) -> tuple[int, bytes]:
    """A request as it is, with these headers and no others but what HTTP demands."""
    place = base.removeprefix("http://").removesuffix("/v1")
    connection = http.client.HTTPConnection(place, timeout=20)
    connection.putrequest("GET" if body is None else "POST", path, skip_host=True, skip_accept_encoding=True)
    for name, value in ({"Host": place} | (JSON if headers is None else headers)).items():
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def code(answer: tuple[int, bytes]) -> tuple[int, str | None]:
    return answer[0], json.loads(answer[1])["error"]["code"]


# ---------------------------------------------------------------------- who is answered
@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1:8000", True),
        ("127.0.0.1", True),
        ("localhost:1", True),
        ("LOCALHOST", True),
        ("[::1]:8000", True),
        ("127.9.9.9:80", True),
        ("", False),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:8000", False),
        ("192.168.0.7:8000", False),
        ("0.0.0.0:8000", False),
        ("[::]:8000", False),
        ("[::ffff:1.2.3.4]", False),
    ],
)
def test_hosts_that_are_here(host: str, here: bool) -> None:
    assert is_here(host) == here


def test_a_page_whose_name_was_made_to_lead_here_is_refused(base: str, backend: FakeBackend) -> None:
    assert ask(base)[0] == 200
    for path in ("/v1/completions", "/v1/models"):
        body = None if path == "/v1/models" else BODY
        assert code(ask(base, body, JSON | {"Host": "evil.example"}, path)) == (403, "wrong_host")
    assert len(backend.asked) == 1


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:3000", "null"])
def test_requests_of_web_pages_are_refused(base: str, backend: FakeBackend, origin: str) -> None:
    assert code(ask(base, BODY, JSON | {"Origin": origin})) == (403, "web_page")
    assert not backend.asked


def test_what_a_page_could_send_without_asking_is_refused(base: str, backend: FakeBackend) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        assert ask(base, BODY, {"Content-Type": kind})[0] == 415
    assert ask(base, BODY, {"Content-Type": "application/json; charset=utf-8"})[0] == 200
    assert len(backend.asked) == 1


def test_bodies_that_are_no_requests(base: str) -> None:
    assert ask(base, b"")[0] == 400
    assert ask(base, b"{")[0] == 400
    assert ask(base, b"[1]")[0] == 400
    assert ask(base, b"\xff\xfe")[0] == 400
    assert ask(base, b'{"model": "talker", "prompt": "' + b"a" * (9 << 20) + b'"}')[0] == 413


def test_paths_that_are_not_there(base: str) -> None:
    assert code(ask(base, None, None, "/v1/secret-path")) == (404, "unknown_url")
    assert code(ask(base, None, None, "/v1/completions")) == (405, "unknown_url")
    assert code(ask(base, BODY, None, "/v1/models")) == (405, "unknown_url")
    assert ask(base, BODY, None, "/v1/completions/")[0] == 404


def test_a_key_is_asked_for(backend: FakeBackend, languages: Languages) -> None:
    with serving(backend, languages, key="right") as base:
        for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "right"}, {"Authorization": "Bearer é"}):
            assert code(ask(base, BODY, JSON | wrong)) == (401, "invalid_api_key")
        assert ask(base, BODY, JSON | {"Authorization": "Bearer right"})[0] == 200
        with openai.OpenAI(base_url=base, api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
            client.models.list()
        with openai.OpenAI(base_url=base, api_key="right") as client:
            assert client.models.list().data
    assert len(backend.asked) == 1


def test_beyond_loopback_names_are_not_checked(backend: FakeBackend, languages: Languages) -> None:
    with serving(backend, languages, remote=True) as base:
        assert ask(base, BODY, JSON | {"Host": "proxy.example"})[0] == 200
        assert code(ask(base, BODY, JSON | {"Origin": "http://proxy.example"})) == (403, "web_page")


# ---------------------------------------------------------------------- what is said
def test_nothing_of_a_request_is_logged(
    base: str,
    backend: FakeBackend,
    notes: list[str],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Answered, refused, failed by a party or by a fault whose text quotes it, hung up: all loggers and outputs."""
    caplog.set_level(logging.DEBUG)
    assert ask(base)[0] == 200
    assert ask(base, BODY.replace(b"3}", b'3, "my secret key": 1}'))[0] == 400
    assert ask(base, BODY, None, "/v1/my secret path".replace(" ", "-"))[0] == 404
    assert ask(base, None, None, "/v1/models/my-secret-model")[0] == 404
    backend.surprise = ValueError("my secret diagnosis")
    status, body = ask(base)
    assert (status, b"secret" in body) == (500, False)
    backend.surprise = PartyError(1, AbortReason.INTERNAL)
    assert ask(base)[0] == 503
    backend.surprise = None
    backend.gate.clear()
    connection = http.client.HTTPConnection(base[7:-3], timeout=0.3)
    connection.request("POST", "/v1/completions", BODY, JSON)
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()
    assert backend.streams[-1].closed.wait(10)
    assert any(len(notes) == 7 or time.sleep(0.02) for _ in range(500))
    written = "".join(capfd.readouterr()) + "\n".join(caplog.messages) + "\n".join(notes)
    for secret in ("secret", "diagnosis", ANSWER[:3], str(IDS[:3])[1:-1]):
        assert secret not in written
    assert "ValueError at" in caplog.text
    assert [line.rsplit(" ", 2)[0] for line in notes] == [
        "POST /v1/completions 200",
        "POST /v1/completions 400",
        "POST (no such path) 404",
        "GET /v1/models/... 404",
        "POST /v1/completions 500",
        "POST /v1/completions 503",
        "POST /v1/completions hung up",
    ]


# ---------------------------------------------------------------------- where it listens
@pytest.mark.parametrize("host", ["0.0.0.0", "", "::"])
def test_a_remote_bind_must_be_spelled_out(host: str) -> None:
    with pytest.raises(UserError, match=f"sees every prompt.*{FLAG}"):
        bind(host, 0)


def test_a_remote_bind_that_is_spelled_out() -> None:
    with bind("0.0.0.0", 0, remote=True) as listening:
        assert listening.getsockname()[0] == "0.0.0.0"


def test_loopback_by_address_and_by_name() -> None:
    for host in ("127.0.0.1", "localhost"):
        with bind(host, 0) as listening:
            assert url(listening).startswith(("http://127.0.0.1:", "http://[::1]:"))
            with pytest.raises(UserError, match="cannot listen"):
                bind(host, listening.getsockname()[1])
    with pytest.raises(UserError, match="no-such"):
        bind("no-such-host.invalid", 0)


def test_the_command_refuses_a_remote_bind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proxy", "--config", str(tmp_path / "client.toml"), "--host", "0.0.0.0"]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert FLAG in err
    assert "Traceback" not in err
    assert main(["proxy", "--config", str(tmp_path / "absent.toml"), "--port", "0"]) == 1
    assert "absent.toml" in capsys.readouterr().err
    assert main(["proxy", "--config", "x", "--port", "0", "--tokenizer", "nonsense"]) == 1
    assert "MODEL=FOLDER" in capsys.readouterr().err


def test_stopping_while_an_answer_is_under_way_closes_it(backend: FakeBackend, languages: Languages) -> None:
    """`serving` asks the server to stop when its block is left, and waits for it."""
    backend.gate.clear()
    failed: list[Any] = []

    def hang() -> None:
        try:
            ask(base)
        except (OSError, http.client.HTTPException) as error:
            failed.append(error)

    with serving(backend, languages) as base:
        thread = threading.Thread(target=hang)
        thread.start()
        assert backend.reached.wait(10)
    thread.join(10)
    assert backend.streams[0].closed.is_set()
    with pytest.raises(OSError, match="refused"):
        ask(base)


# ---------------------------------------------------------------------- the page
@pytest.mark.parametrize("name", ["proxy", "chat"])
def test_options_of_the_command_line_are_on_the_page(name: str) -> None:
    page = (ROOT / "docs" / "proxy.md").read_text()
    section = page.split("## For every OpenAI client")[name == "proxy"]
    command: Any = typer.main.get_command(application(name))
    options = {opt for p in command.commands[name].params for opt in p.opts if opt.startswith("--")} - {"--help"}
    assert options == set(re.findall(r"^\| `(--[\w-]+)` \|", section, re.MULTILINE))


def test_parameters_are_on_the_page() -> None:
    page = (ROOT / "docs" / "proxy.md").read_text()
    served = {name for kind in (Completion, ChatCompletion, Embedding) for name in kind.model_fields}
    for name in (*served, *NEUTRAL, *IGNORED):
        assert f"`{name}`" in page
