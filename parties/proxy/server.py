"""Where the proxy listens: on loopback, unless a remote bind is asked for in full."""

from __future__ import annotations

import ipaddress
import socket

import uvicorn
from starlette.types import ASGIApp

from hush.mpc.errors import UserError

FLAG = "--allow-remote-bind-that-sees-prompts"
_PATIENCE = 3  # seconds that answers under way get at the end


def bind(host: str, port: int, *, remote: bool = False) -> socket.socket:
    """A listening socket. UserError for an address beyond loopback without `remote`, and for one that is taken."""
    family, address = _resolve(host, port)
    if not remote and not ipaddress.ip_address(address[0]).is_loopback:
        raise UserError(
            f"{host} is reachable from other machines, and whoever runs the proxy sees every prompt and answer: bind "
            f"to 127.0.0.1 and run one on each user's machine, or say {FLAG}"
        )
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        raise UserError(f"cannot listen at {host}:{port}: {error.strerror}") from None
    return listening


def url(listening: socket.socket) -> str:
    """The base URL for clients of a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def server(app: ASGIApp) -> uvicorn.Server:
    """A server for an application; `run(sockets=[...])` serves until a signal. It logs no requests."""
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        log_level="critical",  # `wire.told` logs what fails, without its text
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=_PATIENCE,
    )
    return uvicorn.Server(config)


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Family and address of a host: the one that is checked is the one that is bound."""
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise UserError(f"{host}: {error.strerror}") from None
    family, _, _, _, address = found[0]
    return family, (str(address[0]), int(address[1]))
