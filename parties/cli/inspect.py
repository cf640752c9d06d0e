"""`hush inspect`: what a program takes, does and costs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hush import api
from hush.mpc.compiler import Program, listing
from hush.mpc.compiler.itemise import by_operator, itemise
from hush.parties.cli import console
from hush.parties.cli.network import predicted_table
from hush.parties.cli.options import Net
from hush.parties.shaping import NETS
from hush.protocols.replicated.cost import ReplicatedCost


class By(StrEnum):
    """What costs are listed by."""

    layer = "layer"
    op = "op"


def operator_table(program: Program) -> Table:
    """MB of all parties by operator and, inside, by primitive; `exchanges` are rounds of an operator by itself."""
    items = itemise(program, ReplicatedCost(program.ring, program.frac))
    whole = sum(sum(item.bytes_sent) for item in items) or 1
    table = Table(title="where the bytes go, three parties together, frame headers apart")
    for name in ("operator", "primitive", "MB", "%", "exchanges"):
        table.add_column(name, justify="left" if name in ("operator", "primitive") else "right")
    for op, own in by_operator(items).items():
        for index, item in enumerate(own):
            sent = sum(item.bytes_sent)
            cells = (item.primitive, f"{sent / 1e6:,.3f}", f"{100 * sent / whole:.1f}", f"{item.exchanges:,}")
            table.add_row(op if index == 0 else "", *cells, end_section=index == len(own) - 1)
    table.add_row("all", "", f"{whole / 1e6:,.3f}", "100.0", "")
    return table


def command(
    program: Annotated[Path, typer.Argument(help="A file that `hush compile` wrote.")],
    net: Annotated[Net, typer.Option(help="Only this network's time; default: all.")] = Net.none,
    by: Annotated[By, typer.Option(help="Also where the bytes go, by operator and primitive.")] = By.layer,
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
    if by is By.op:
        out.print(operator_table(held))
    out.print(predicted_table(held, tuple(NETS) if net is Net.none else (net.value,)))
