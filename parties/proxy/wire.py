"""HTTP around an endpoint: bodies in, answers and errors out, and a caller who hangs up noticed at once."""

from __future__ import annotations

import logging
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from hush.mpc.errors import HushError
from hush.parties.proxy import replies
from hush.parties.proxy.refusals import Refusal, invalid, refusal, unexpected

LOGGER = logging.getLogger("hush.proxy")
MOST = 8 << 20  # bytes of a body

Handler = Callable[[bytes, str], Awaitable[Response]]


class Endpoint:
    """An ASGI application that answers one path by `handler(body, model)`.

    While the handler works and its answer is sent, somebody listens for the caller: when it hangs up, all is cancelled.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await _body(request)
        except Refusal as error:
            await refuse(error)(scope, receive, send)
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_hung_up, receive, tasks.cancel_scope)
            response = await self._answer(body, request.path_params.get("model", ""))
            await response(scope, receive, send)
            tasks.cancel_scope.cancel()

    async def _answer(self, body: bytes, model: str) -> Response:
        try:
            return await self._handler(body, model)
        except Exception as error:
            return refuse(told(error))


class EventStream(Response):
    """Server-sent events. What goes wrong on the way is the last event."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes]) -> None:
        super().__init__(media_type="text/event-stream")
        del self.headers["content-length"]
        self._first, self._rest = first, rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._rest) as rest:
            await _send(send, self._first)
            try:
                async for event in rest:
                    await _send(send, event)
            except Exception as error:
                await _send(send, replies.event(told(error).body))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def refuse(error: Refusal) -> Response:
    """An error's answer. OpenAI's clients would try again by themselves what failed: private inference is not theirs to
    repeat, so they are told not to."""
    return JSONResponse(error.body, status_code=error.status, headers={"x-should-retry": "false"})


def told(error: Exception) -> Refusal:
    """What the caller is told of an error. Of one that is not ours the log has class and places, never its text."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, HushError):
        return refusal(error)
    places = " ".join(f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__))
    LOGGER.error("%s at %s", type(error).__name__, places)
    return unexpected()


async def _body(request: Request) -> bytes:
    """Of a POST: JSON by its header too, since a web page elsewhere can send no such header without asking first."""
    if request.method != "POST":
        return b""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "the body must be declared as content-type application/json")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST:
            raise Refusal(413, f"the body exceeds {MOST >> 20} MiB")
    if not body:
        raise invalid("the body is empty: a JSON object is due")
    return bytes(body)


async def _hung_up(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _send(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})
