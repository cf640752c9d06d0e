"""The command line, `hush`: one file a command, imported when it is asked for, so that `hush --help` is quick."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

import hush
from hush.mpc.errors import HushError, HushWarning
from hush.parties.cli import console

COMMANDS = {
    "demo": "Private semantic search on this machine: three local parties, a real model, plaintext beside it.",
    "models": "List the networks: id, paper, task, parameters.",
    "run": "One secure inference with local parties, compared with plaintext.",
    "bench": "Secure beside plaintext: seconds, bytes, rounds, errors, predictions.",
    "compile": "Compile a model to a program file.",
    "inspect": "Show a program: types, cost per layer, predicted network time.",
    "certs": "Make the certificates and configuration files of three parties and their users.",
    "party": "Run one party.",
    "deploy": "Share a model's weights with three running parties.",
    "infer": "Private inference on three running parties.",
    "chat": "Talk with a model on three running parties.",
    "proxy": "OpenAI's interface on this machine, private inference behind it.",
    "doctor": "Check the installation, and a configuration with its parties.",
}
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status: 0, 1 for an error, 2 for wrong usage, 130 if interrupted."""
    args = list(sys.argv[1:] if argv is None else argv)
    chosen = next((a for a in args if not a.startswith("-")), None)
    command = typer.main.get_command(application(chosen))
    try:
        with _ending_well(), warnings.catch_warnings():
            warnings.showwarning = _warn
            command.main(args, prog_name="hush")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except HushError as error:
        console.complain("error", str(error))
    except OSError as error:  # a full disk, a folder that may not be written: nothing of ours
        console.complain("error", f"{error.filename or 'file'}: {error.strerror or error}")
    return 1


def application(chosen: str | None) -> typer.Typer:
    """The commands: the chosen one whole, of the others their names and one line of help."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_root)
    for name, summary in COMMANDS.items():
        if name != chosen:
            app.command(name, help=summary)(_elsewhere)
            continue
        module: Any = importlib.import_module(f"hush.parties.cli.{name}")
        if isinstance(module.command, typer.Typer):
            app.add_typer(module.command, name=name, help=summary, no_args_is_help=True)
        else:
            app.command(name)(module.command)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        print(hush.__version__)
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """PyTorch transformers on prompts that no server ever sees."""


def _elsewhere() -> None:
    """A command that was not chosen: only listed."""


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, HushWarning):
        console.complain("warning", str(message))


@contextmanager
def _ending_well() -> Iterator[None]:
    """SIGTERM, too, leaves through every `with`: local parties end and their certificates are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
