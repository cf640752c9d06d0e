"""Tables of costs per layer, and how long the network of a cost takes."""

from __future__ import annotations

from rich.table import Table

from hush.mpc.compiler import Program
from hush.mpc.cost import Cost
from hush.parties.cli.console import megabytes
from hush.parties.report import RunReport
from hush.parties.shaping import NETS


def network_seconds(cost: Cost, net: str) -> float:
    """Seconds that messages take over a network of `hush.parties.shaping.NETS`, computation aside.

    Each round waits half a round trip, and the busiest party sends half of its bytes over each of its two links.
    """
    model = NETS[net]
    return cost.rounds * model.round_trip / 2 + 8 * max(cost.bytes_sent) / 2 / model.bandwidth


def layer_table(report: RunReport) -> Table:
    """Seconds, MB and rounds of each layer of a run."""
    table = Table("layer", "seconds", "MB sent", "rounds", title="three parties together")
    for column in table.columns[1:]:
        column.justify = "right"
    for layer in report.layers:
        table.add_row(layer.name, f"{layer.seconds:.3f}", megabytes(sum(layer.bytes_sent)), str(layer.rounds))
    table.add_section()
    total = report.cost
    table.add_row("all", f"{report.seconds:.3f}", megabytes(sum(total.bytes_sent)), str(total.rounds))
    return table


def predicted_table(program: Program, nets: tuple[str, ...] = tuple(NETS)) -> Table:
    """Predicted rounds, MB and network seconds of each layer of a program."""
    table = Table("layer", "rounds", "MB sent", *(f"{net.upper()} s" for net in nets), title="predicted")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, cost in program.layer_costs.items():
        table.add_row(*_row(name, cost, nets))
    table.add_section()
    if program.cost is not None:
        table.add_row(*_row("all", program.cost, nets))
    return table


def _row(name: str, cost: Cost, nets: tuple[str, ...]) -> tuple[str, ...]:
    times = (f"{network_seconds(cost, net):.3f}" for net in nets)
    return name, str(cost.rounds), megabytes(sum(cost.bytes_sent)), *times
