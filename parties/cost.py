"""What an inference will cost, before it runs: the program's own prediction, and the two rounds of checks around it."""

from __future__ import annotations

from hush.mpc.compiler import Program, predict
from hush.mpc.cost import FRAME_HEADER, Cost
from hush.protocols.replicated.cost import ReplicatedCost
from hush.protocols.replicated.invocation import DIGEST_BYTES, POSITION_BYTES


def predicted(program: Program) -> Cost:
    """Rounds, bytes and messages of one inference; a run measures exactly these."""
    if program.cost is None:
        predict(program, ReplicatedCost(program.ring, program.frac))
    assert program.cost is not None
    own = program.cost
    # both checks send one frame each way, so every party enters and leaves the program with the same depth stamp
    checks = 2 * (DIGEST_BYTES + FRAME_HEADER) + 2 * (POSITION_BYTES + FRAME_HEADER)
    a, b, c = own.bytes_sent
    x, y, z = own.messages
    return Cost(own.rounds + 2, (a + checks, b + checks, c + checks), (x + 4, y + 4, z + 4))
