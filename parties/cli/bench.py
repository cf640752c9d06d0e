"""`hush bench`: secure beside plaintext, one row a model."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from hush.mpc.errors import UserError
from hush.mpc.ring import backends
from hush.parties.cli import console, generating, measure, profiling
from hush.parties.cli.console import Stage
from hush.parties.cli.options import (
    Approx,
    Batch,
    Checkpoint,
    Embedding,
    Json,
    Link,
    Lookup,
    Net,
    ScheduleFor,
    Seq,
    Size,
    Weights,
)
from hush.parties.cli.sources import Source, resolve
from hush.protocols.crypten.library import require

Choices = tuple[Link, Net, Weights, Approx, Embedding, str]
Done = measure.Measured | generating.Generated
Ran = tuple[Done, list[profiling.Turn]]


class Protocol(StrEnum):
    """Whose protocol runs the program."""

    replicated = "replicated"
    crypten = "crypten"


class Device(StrEnum):
    """Where the parties compute."""

    cpu = "cpu"
    cuda = "cuda"


def command(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Ids, as `hush models` lists them.")],
    size: Size = None,
    seq: Seq = None,
    batch: Batch = 1,
    new: Annotated[
        int | None, typer.Option(min=1, help="Tokens to generate, by models that do.", show_default=False)
    ] = None,
    link: Annotated[Link, typer.Option(help="Three processes over mutual TLS, or three threads.")] = Link.grpc,
    net: Annotated[Net, typer.Option(help="A modelled network between the parties.")] = Net.none,
    weights: Annotated[Weights, typer.Option(help="Whether the parties may see the weights.")] = Weights.secret,
    approx: Annotated[Approx, typer.Option(help="The approximation set.")] = Approx.default,
    embedding: Lookup = Embedding.auto,
    schedule: ScheduleFor = None,
    protocol: Annotated[
        Protocol, typer.Option(help="Ours, or CrypTen's primitives, as a baseline.")
    ] = Protocol.replicated,
    device: Annotated[Device, typer.Option(help="Where the parties compute.")] = Device.cpu,
    repeat: Annotated[int, typer.Option(min=1, help="Runs after the warm-up; seconds are their median.")] = 1,
    profile: Annotated[
        bool, typer.Option("--profile", help="One more run, in which the parties note when they do what.")
    ] = False,
    profile_dir: Annotated[
        Path | None,
        typer.Option(help="With --profile: where each model's folder goes; default: here.", show_default=False),
    ] = None,
    checkpoint: Checkpoint = None,
    as_json: Json = False,
) -> None:
    """Secure beside plaintext: seconds, bytes, rounds, errors, predictions. Weights are real ones for minilm."""
    profile = profile or profile_dir is not None
    _refuse(protocol, device, link, net, profile)
    rows, profiles = [], []
    with console.stages(len(models) * (3 + measure.LOCAL_STAGES + profile)) as stage:
        for model in models:
            stage(f"{model}: loading")
            source = resolve(model, size=size, seq=seq, batch=batch, checkpoint=checkpoint)
            options = (link, net, weights, approx, embedding, net.schedule(schedule))
            if new is None:
                done, turns = _bench(source, options, protocol, repeat, profile, stage, device)
            else:
                done, turns = _generate(source, options, protocol, new, repeat, profile, stage, device)
            choices = {
                "link": "gloo" if protocol is Protocol.crypten else link,
                "net": net,
                "weights": weights,
                "approx": approx,
            }
            if embedding is not Embedding.auto:
                choices["embedding"] = embedding
            if options[-1] != "lan":
                choices["schedule"] = options[-1]
            rows.append(describe(source, done, choices | {"device": device, "protocol": protocol}))
            if profile:
                profiles += [(turn, _setting(rows[-1])) for turn in turns]
                _write(source, turns, profile_dir, _setting(rows[-1]))
    if as_json:
        console.emit(rows)
    else:
        console.out().print(_table(rows))
    for turn, title in profiles:
        (console.err() if as_json else console.out()).print(profiling.table(turn, title))


def _write(source: Source, turns: list[profiling.Turn], within: Path | None, title: str) -> None:
    for path in profiling.write(turns, profiling.folder(source, within), title):
        console.err().print(f"{source.name}: {path}", soft_wrap=True)
    if missing := profiling.left_out(turns):
        console.complain("warning", f"{source.name}: {missing:,} spans were too many for the profile, and are left out")


def _refuse(protocol: Protocol, device: Device, link: Link, net: Net, profile: bool) -> None:
    """Options that there is no answer to: in this version, on this machine, or beside each other."""
    if protocol is Protocol.crypten and profile:
        raise UserError("--profile is of our own parties: leave out --protocol crypten")
    if protocol is Protocol.crypten:
        require()
        if link is Link.memory or net is not Net.none:
            raise UserError("--protocol crypten takes no --link and no --net: CrypTen joins its two processes itself")
    if device is not Device.cpu:
        if protocol is Protocol.crypten:
            raise UserError("--device is for our own parties: leave out --protocol crypten")
        backends.get(device)


def _bench(
    source: Source, choices: Choices, protocol: Protocol, repeat: int, profile: bool, stage: Stage, device: Device
) -> Ran:
    link, net, *modes = choices
    stage(f"{source.name}: compiling")
    program = source.compile(*modes)
    with measure.local(program, link, net, stage, protocol, profile, device) as infer:
        report = stage(f"{source.name}: running")
        done = measure.measure(source.module, source.call, program, infer, repeat, report, protocol)
        if not profile:
            return done, []
        stage(f"{source.name}: once more, for the profile")
        return done, profiling.inference(infer, source.call)


def _generate(
    source: Source,
    choices: Choices,
    protocol: Protocol,
    new: int,
    repeat: int,
    profile: bool,
    stage: Stage,
    device: Device,
) -> Ran:
    """The prompt and `new` tokens; the figures of a row are the prompt's, up to the first token."""
    link, net, *modes = choices
    stage(f"{source.name}: compiling")
    program = source.compile_generator(*modes, reveals="logits")
    generating.check_room(source.name, program, new)
    assert source.generator is not None
    with measure.local(program, link, net, stage, protocol, profile, device) as infer:
        report = stage(f"{source.name}: running")
        call = source.call[:1]
        done = generating.measure(source.generator, call, program, infer, new, repeat, report, protocol)
        if not profile:
            return done, []
        stage(f"{source.name}: once more, for the profile")
        return done, profiling.generation(infer, call, new)


def describe(
    source: Source, done: measure.Measured | generating.Generated, choices: Mapping[str, str]
) -> dict[str, Any]:
    """One row of the JSON contract."""
    head: dict[str, Any] = {"model": source.name, "size": source.size, "seq": source.seq, "batch": source.batch}
    foreign = [Protocol.crypten] if choices.get("protocol") == Protocol.crypten else []
    return (
        head
        | {name: str(choice) for name, choice in choices.items()}
        | done.figures()
        | {"err_bound": source.err_bound, "versions": measure.versions(*foreign)}
    )


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("model", "on shares", "plaintext", "MB a party", "rounds", "largest error", caption=_verdict(rows))
    for row in rows:
        bound = "" if row["err_bound"] is None else f" of {row['err_bound']:.0e}"
        table.add_row(
            _setting(row),
            f"{row['secure_s']:.3f} s",
            f"{row['plain_s']:.4f} s",
            console.megabytes(sum(row["bytes_sent"]) / len(row["bytes_sent"])),
            str(row["rounds"]),
            f"{row['max_abs_err']:.1e}{bound}",
        )
        for index, step in enumerate(row.get("decode", ()), 2):
            table.add_row(
                f"  token {index}",
                f"{step['secure_s']:.3f} s",
                f"{step['plain_s']:.4f} s",
                console.megabytes(sum(step["bytes_sent"]) / len(step["bytes_sent"])),
                str(step["rounds"]),
                f"{step['max_abs_err']:.1e}",
            )
    return table


def _setting(row: dict[str, Any]) -> str:
    """What was run: the model, and whatever is not the default."""
    shape = None if row["seq"] is None else f"{row['batch']}x{row['seq']}"
    usual = {"link": "grpc", "net": "none", "weights": "secret", "approx": "default", "embedding": "auto"}
    usual["schedule"] = "lan"
    if row.get("protocol") == Protocol.crypten:
        usual = usual | {"link": "gloo", "protocol": "replicated"}
    choices = [f"{name} {row[name]}" for name, default in usual.items() if row.get(name, default) != default]
    return ", ".join(part for part in (row["model"], row["size"], shape, *choices) if part)


def _verdict(rows: list[dict[str, Any]]) -> str:
    if rows and rows[0]["predicted"] is None:
        return "rounds, bytes and messages: of two parties, as CrypTen counts them"
    parts = [(row["model"], part) for row in rows for part in (row, *row.get("decode", ()))]
    odd = [name for name, part in parts if any(part["predicted"][key] != part[key] for key in part["predicted"])]
    return f"NOT as predicted: {', '.join(odd)}" if odd else "rounds, bytes and messages: as predicted"
