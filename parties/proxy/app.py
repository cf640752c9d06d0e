"""The proxy as an ASGI application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from hush.parties.proxy.backend import Backend
from hush.parties.proxy.endpoints import Endpoints, Policy
from hush.parties.proxy.guard import PATHS, Guard, Note
from hush.parties.proxy.language import Languages
from hush.parties.proxy.refusals import Refusal
from hush.parties.proxy.wire import Endpoint, refuse


def application(
    backend: Backend,
    languages: Languages,
    policy: Policy | None = None,
    *,
    key: str | None = None,
    remote: bool = False,
    note: Note | None = None,
) -> ASGIApp:
    """The endpoints behind their guard. `key`: what callers must present; `note`: told a line for each request."""
    points = Endpoints(backend, languages, policy or Policy())
    routes = [
        Route("/v1/models", Endpoint(points.models), methods=["GET"]),
        Route("/v1/models/{model:path}", Endpoint(points.model), methods=["GET"]),
        Route("/v1/completions", Endpoint(points.completions), methods=["POST"]),
        Route("/v1/chat/completions", Endpoint(points.chat), methods=["POST"]),
        Route("/v1/embeddings", Endpoint(points.embeddings), methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={404: _elsewhere, 405: _elsewhere})
    app.router.redirect_slashes = False
    return Guard(app, key=key, remote=remote, note=note)


async def _elsewhere(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return refuse(Refusal(status, f"no such endpoint; there are {', '.join(PATHS)}", code="unknown_url"))
