"""`hush certs`: an authority, certificates with roles, and configuration files that go with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hush.mpc.errors import ConfigError
from hush.parties import certs, config, vault
from hush.parties.cli import console

command = typer.Typer()
ADDRESSES = "127.0.0.1:7800,127.0.0.1:7801,127.0.0.1:7802"


@command.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Where the files go; made if it is not there.")],
    parties: Annotated[str, typer.Option(help="Addresses of parties 0, 1, 2, separated by commas.")] = ADDRESSES,
    days: Annotated[float, typer.Option(min=1, help="How long the certificates are valid.")] = 365,
) -> None:
    """Make an authority, certificates for three parties, a client and a provider, and a configuration for each.

    Give each party its own party-N.pem, party-N.key, partyN-storage.key, partyN.toml and ca.pem, and nobody ca.key.
    """
    addresses = parties.split(",")
    if len(addresses) != 3:
        raise ConfigError(f"--parties: three addresses are due, {len(addresses)} given")
    for address in addresses:
        config.check_address(address)
    certs.create(directory, days=days)
    written = config.write_examples(directory, addresses)
    out = console.out()
    out.print(f"certificates and keys: {directory}", soft_wrap=True)
    for path in written:
        out.print(f"configuration: {path}", soft_wrap=True)


@command.command()
def add(
    directory: Annotated[Path, typer.Argument(help="A directory made by `hush certs init`, with its ca.key.")],
    role: Annotated[str, typer.Argument(help="client/NAME, provider/NAME or party/N.")],
    days: Annotated[float, typer.Option(min=1, help="How long the certificate is valid.")] = 365,
) -> None:
    """Issue one more certificate."""
    kind, _, name = role.removeprefix("hush://").partition("/")
    made = certs.Role(kind, name)
    certs.add(directory, made, days=days)
    console.out().print(f"{directory / made.filename}.pem and .key speak for {made.uri}", soft_wrap=True)


@command.command("storage-key")
def storage_key(
    file: Annotated[Path, typer.Argument(help="Where the key goes; it must not be there yet.")],
) -> None:
    """Make the key that a party encrypts stored weights with (`storage_key` in its file)."""
    vault.create_key(file)
    console.out().print(f"storage key: {file}", soft_wrap=True)
