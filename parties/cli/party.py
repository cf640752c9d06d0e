"""`hush party`: one party's server, in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hush.parties import server


def command(
    config: Annotated[Path, typer.Option(help="The party's TOML file; `hush certs init` writes examples.")],
) -> None:
    """Run one party until it is interrupted. It logs JSON lines on stderr; no share or input is ever among them."""
    server.serve(config)
