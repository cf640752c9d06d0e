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
from hush.parties.cost import predicted
from hush.parties.shaping import NETS
from hush.protocols.replicated.cost import ReplicatedCost


class By(StrEnum):
    """What costs are listed by."""

    layer = "layer"
    op = "op"


def operator_table(program: Program) -> Table:
    """MB of all parties and rounds by operator, which add up to the program's, and inside by primitive.

    A round that several operators share counts to the earliest of them, with the headers of its messages. Of primitives
    the MB are payload alone, and `exchanges` are rounds of each by itself.
    """
    cost, items = (
        predicted(program),
        by_operator(itemise(program, ReplicatedCost(program.ring, program.frac, program.schedule))),
    )
    whole = sum(cost.bytes_sent) or 1
    table = Table(title="where the bytes go, three parties together")
    for name in ("operator", "primitive", "MB", "%", "rounds", "exchanges"):
        table.add_column(name, justify="left" if name in ("operator", "primitive") else "right")
    for op, own in sorted(program.op_costs.items(), key=lambda pair: -sum(pair[1].bytes_sent)):
        table.add_row(op, "", *_share(sum(own.bytes_sent), whole), f"{own.rounds:,}", "")
        for item in items.get(op, []):
            table.add_row("", item.primitive, *_share(sum(item.bytes_sent), whole), "", f"{item.exchanges:,}")
        table.add_section()
    table.add_row("all", "", *_share(sum(cost.bytes_sent), whole), f"{cost.rounds:,}", "")
    return table


def _share(sent: int, whole: int) -> tuple[str, str]:
    return f"{sent / 1e6:,.3f}", f"{100 * sent / whole:.1f}"


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
