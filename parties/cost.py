"""What an inference will cost, before it runs: the program's own prediction, and the two rounds of checks around it."""

from __future__ import annotations

from hush.mpc.compiler import Program, foresee, predict
from hush.mpc.cost import FRAME_HEADER, Cost
from hush.mpc.functions.sampling import GREEDY, Choice
from hush.parties.engine import CHECKS
from hush.protocols.replicated.cost import ReplicatedCost
from hush.protocols.replicated.invocation import DIGEST_BYTES, POSITION_BYTES

# both checks send one frame each way, so every party enters and leaves the program with the same depth stamp
_SENT = 2 * (DIGEST_BYTES + FRAME_HEADER) + 2 * (POSITION_BYTES + FRAME_HEADER)
_CHECKS = Cost(2, (_SENT, _SENT, _SENT), (4, 4, 4))


def predicted(program: Program) -> Cost:
    """Rounds, bytes and messages of one inference; a run measures exactly these. Kept in `program.cost`."""
    if CHECKS not in program.layer_costs:
        predict(program, ReplicatedCost(program.ring, program.frac, program.schedule))
        assert program.cost is not None
        program.cost = _checked(program.cost)
        program.layer_costs[CHECKS] = program.op_costs[CHECKS] = _CHECKS
    assert program.cost is not None
    return program.cost


def predicted_turn(program: Program, *, held: int | None = None, choice: Choice = GREEDY, first: int = 0) -> Cost:
    """Cost of a turn of a program that generates: a first one, or the one that goes on with `held` positions."""
    model = ReplicatedCost(program.ring, program.frac, program.schedule)
    return _checked(foresee(program, model, held=held, choice=choice, first=first).cost)


def _checked(cost: Cost) -> Cost:
    (a, b, c), (x, y, z) = cost.bytes_sent, cost.messages
    return Cost(cost.rounds + 2, (a + _SENT, b + _SENT, c + _SENT), (x + 4, y + 4, z + 4))
