"""Who may ask: not a web page, not another host's name, and with a key only who has it. And what is noted of a request:
its path, status and seconds, never a word of it."""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hush.parties.proxy.refusals import Refusal
from hush.parties.proxy.wire import refuse, told

Note = Callable[[str], None]
PATHS = ("/v1/models", "/v1/completions", "/v1/chat/completions", "/v1/embeddings")


class Guard:
    """An ASGI application around another.

    Unless `remote`, the Host header must name this machine: a page whose own name was made to lead here (DNS rebinding)
    is refused. A request with an Origin comes from a web page and is refused always.
    """

    def __init__(self, app: ASGIApp, *, key: str | None = None, remote: bool = False, note: Note | None = None) -> None:
        self._app, self._key, self._remote, self._note = app, key, remote, note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        begin, status = time.perf_counter(), [0]

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                MutableHeaders(scope=message)["cache-control"] = "no-store"
            await send(message)

        try:
            await self._serve(scope, receive, watched, status)
        finally:
            if self._note is not None:
                ended = str(status[0]) if status[0] else "hung up"
                self._note(f"{scope['method']} {_shown(scope['path'])} {ended} {time.perf_counter() - begin:.2f} s")

    async def _serve(self, scope: Scope, receive: Receive, send: Send, status: list[int]) -> None:
        try:
            self._check(Headers(scope=scope))
            await self._app(scope, receive, send)
        except Exception as error:
            said = told(error)
            if not status[0]:
                await refuse(said)(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        if not self._remote and not is_here(headers.get("host", "")):
            raise Refusal(403, "the Host header does not name this machine", code="wrong_host")
        if "origin" in headers:
            raise Refusal(403, "requests of web pages are not answered", code="web_page")
        if self._key is not None:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(given.strip().encode(), self._key.encode())
            if scheme.lower() != "bearer" or not same:
                raise Refusal(401, "Incorrect API key provided.", code="invalid_api_key")


def is_here(host: str) -> bool:
    """Whether a Host header, NAME or NAME:PORT, names this machine's loopback."""
    name = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _shown(path: str) -> str:
    """A path that is ours; of others nothing, since callers put anything there."""
    if path in PATHS:
        return path
    return "/v1/models/..." if path.startswith("/v1/models/") else "(no such path)"
