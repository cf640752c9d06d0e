"""`hush party`: one party's server, in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hush.parties import server


def command(
    config: Annotated[Path, typer.Option(help="The party's TOML file; `hush certs init` writes examples.")],
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda, cuda:N, or auto: a GPU if there is one; default: as in the file.", show_default=False
        ),
    ] = None,
    device_memory: Annotated[
        str | None,
        typer.Option(
            help='Of a GPU: bytes, "40 GiB", or "1/3" of it; default: as in the file, else what is free.',
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run one party until it is interrupted. It logs JSON lines on stderr; no share or input is ever among them."""
    server.serve(config, device=device, device_memory=device_memory)
