"""A program under another schedule: the same graph, another price of a round, other bytes and another digest."""

from __future__ import annotations

from hush.mpc.compiler.program import Program
from hush.mpc.compiler.serialise import dump, parse
from hush.mpc.schedule import named


def scheduled(program: Program, name: str) -> Program:
    """The program under a schedule of `hush.mpc.schedule`, all of its turns too; UserError if there is none of that
    name. Its cost is to be predicted anew."""
    chosen = named(name)
    if program.schedule == chosen:
        return program
    turns = [] if program.generation is None else [program.generation.then, *program.generation.longer]
    before = program.schedule
    for part in (program, *turns):
        part.schedule = chosen
    made = parse(dump(program))
    for part in (program, *turns):
        part.schedule = before
    made.passes, made.weights = program.passes, program.weights
    return made
