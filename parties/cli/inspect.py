"""`hush inspect`: what a program takes, does and costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hush import api
from hush.mpc.compiler import listing
from hush.parties.cli import console
from hush.parties.cli.network import predicted_table
from hush.parties.cli.options import Net
from hush.parties.shaping import NETS


def command(
    program: Annotated[Path, typer.Argument(help="A file that `hush compile` wrote.")],
    net: Annotated[Net, typer.Option(help="Only this network's time; default: all.")] = Net.none,
    ops: Annotated[bool, typer.Option("--ops", help="Also the typed graph, a line per op.")] = False,
) -> None:
    """Show a program: inputs, outputs, weights, cost per layer, predicted network time.

    Network time is rounds times half a round trip, and half of the busiest party's bytes over each of its two links;
    computation comes on top. LAN: 5 Gbit/s, 0.4 ms. WAN: 400 Mbit/s, 40 ms.
    """
    held = api.load(program)
    out = console.out()
    out.print(str(held), markup=False, soft_wrap=True)
    if ops:
        out.print(listing(held), markup=False, soft_wrap=True)
    out.print(predicted_table(held, tuple(NETS) if net is Net.none else (net.value,)))
