"""`hush proxy`: OpenAI's interface on this machine, private inference behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from hush.mpc.errors import HushError, UserError
from hush.parties import client
from hush.parties.cli import console
from hush.parties.proxy.backend import Backend, PartyBackend
from hush.parties.proxy.language import Languages, parse_sources


def command(
    config: Annotated[Path, typer.Option(help="The client's TOML file.")],
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    tokenizer: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=FOLDER", help="Where a model's tokenizer is (or a hub id). Repeatable."),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="HUSH_PROXY_API_KEY", help="What callers must present.", show_default=False),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of a chat's answer, if the caller does not say.")] = 256,
    fixed_length: Annotated[
        bool, typer.Option("--fixed-length", help="Compute every answer to its full length, to hide where it ended.")
    ] = False,
    remote: Annotated[
        bool, typer.Option("--allow-remote-bind-that-sees-prompts", help="Listen beyond this machine.")
    ] = False,
) -> None:
    """Serve OpenAI's interface on this machine: text is tokenised and shared here, and no party sees it."""
    try:
        from hush.parties.proxy.app import application
        from hush.parties.proxy.endpoints import Policy
        from hush.parties.proxy.server import bind, server, url
    except ImportError as missing:
        raise UserError(f"the proxy needs {missing.name}: pip install 'hush[proxy]'") from None
    if api_key == "":
        raise UserError("the API key is empty: leave it out, or choose one")
    languages = Languages(parse_sources(tokenizer or ()))
    with bind(host, port, remote=remote) as listening, client.connect(config) as parties:
        backend = PartyBackend(parties)
        _greet(url(listening), backend, beyond=remote, key=api_key is not None)
        policy = Policy(max_tokens, fixed_length)
        app = application(backend, languages, policy, key=api_key, remote=remote, note=_note)
        server(app).run(sockets=[listening])


def _greet(base: str, backend: Backend, *, beyond: bool, key: bool) -> None:
    """The base URL on stdout, and on stderr what to know. Parties may come later than the proxy."""
    if beyond:
        safer = "" if key else " Anybody who reaches it can ask: set --api-key."
        console.complain(
            "warning", f"this proxy sees every prompt and answer of its callers, who send them unencrypted.{safer}"
        )
    try:
        names: Sequence[str] = [model.name for model in backend.models()]
        console.err().print(escape(f"models: {', '.join(names) or 'none yet'}"), soft_wrap=True)
    except HushError as error:
        console.complain("warning", f"{error}; requests are refused until it answers")
    print(base, flush=True)


def _note(line: str) -> None:
    console.err().print(escape(line), soft_wrap=True)
