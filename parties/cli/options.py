"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Link(StrEnum):
    """What joins local parties."""

    memory = "memory"  # three threads
    grpc = "grpc"  # three processes over mutual TLS


class Net(StrEnum):
    """A modelled network between the parties."""

    none = "none"
    lan = "lan"
    wan = "wan"

    def schedule(self, chosen: ScheduleName | None) -> str:
        """The schedule that was chosen, or the one that suits the network."""
        return str(chosen or ("wan" if self is Net.wan else "lan"))


class Weights(StrEnum):
    """Whether the parties may see the weights."""

    secret = "secret"
    public = "public"


class Approx(StrEnum):
    """An approximation set."""

    default = "default"
    puma = "puma"


class Embedding(StrEnum):
    """How secret token ids reach the tables they look up: `lookup` of `hush.compile`."""

    auto = "auto"
    onehot = "onehot"  # one-hot rows made by the client
    dpf = "dpf"  # keys of distributed point functions
    equality = "equality"  # shared ids, compared with the whole vocabulary (PUMA)


class ScheduleName(StrEnum):
    """What a round is worth: `schedule` of `hush.compile`."""

    lan = "lan"
    wan = "wan"


class SizeName(StrEnum):
    """A configuration of a network."""

    tiny = "tiny"
    paper = "paper"


Json = Annotated[bool, typer.Option("--json", help="Machine-readable output: one JSON document on stdout.")]
Size = Annotated[SizeName | None, typer.Option(help="Default: tiny if the model has it.", show_default=False)]
Seq = Annotated[int | None, typer.Option(min=1, help="Sequence length; default: the model's.", show_default=False)]
Batch = Annotated[int, typer.Option(min=1, help="Inputs at once.")]
Checkpoint = Annotated[
    str | None, typer.Option(help="Weights from elsewhere: a folder, or a hub id.", show_default=False)
]
Lookup = Annotated[Embedding, typer.Option("--embedding", help="How secret token ids are looked up.")]
ScheduleFor = Annotated[
    ScheduleName | None,
    typer.Option("--schedule", help="wan: fewer rounds, more bytes; default: as --net, else lan.", show_default=False),
]
Text = Annotated[str | None, typer.Option(help="A text, tokenised here.", show_default=False)]
Input = Annotated[
    Path | None,
    typer.Option("--input", help="Arguments from a .npy, .npz, .safetensors or .json file.", show_default=False),
]
