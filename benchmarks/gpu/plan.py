"""The parts in their order, each in a process of its own, within a budget; findings are kept as they come.

A process of its own: a GPU's error stays with the process that made it, and a part that takes too long can be ended.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu import llama, networks, products, protocols
from gpu.timing import Data, Findings, Job, failure, note
from hush.mpc.ring import backends
from hush.mpc.ring.cuda.launch import interpreted

MARK = "finding: "  # begins a line of a part's output that is one
FOREVER = 1e9
_GRACE = 10.0  # seconds that a part may take to end when it is told to
_ROOM = 20.0  # seconds before a part is ended that it has to end itself


@dataclass(frozen=True, slots=True)
class Part:
    """What measures, and the seconds that it takes on an H100 or the like: reckoned, for the budget."""

    name: str
    run: Callable[[Job], Findings]
    takes: float


PARTS = (
    Part("products/squares", products.products, 60),
    Part("products/rows", products.rows, 45),
    Part("steps", products.steps, 25),
    Part("networks/toy", networks.toy, 30),
    Part("networks/gpt2", networks.network("gpt2", "cuda"), 120),
    Part("networks/bert", networks.network("bert", "cuda"), 120),
    Part("llama/blocks", llama.blocks("cuda"), 120),
    Part("protocols", protocols.protocols, 90),
    Part("products/tiles", products.sweep, 240),
    Part("llama/whole", llama.whole, 420),
    Part("cpu/gpt2", networks.network("gpt2", "cpu"), 60),
    Part("cpu/bert", networks.network("bert", "cpu"), 90),
    Part("cpu/llama", llama.blocks("cpu"), 150),
)


def chosen(only: str) -> list[Part]:
    """Parts by their names or the first halves of those, separated by commas; all of them for "". ValueError."""
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    for name in wanted:
        if not any(_is(part, name) for part in PARTS):
            raise ValueError(f"no part {name!r}: there are {', '.join(part.name for part in PARTS)}")
    return [part for part in PARTS if not wanted or any(_is(part, name) for name in wanted)]


def _is(part: Part, name: str) -> bool:
    return name in (part.name, part.name.partition("/")[0])


@dataclass(frozen=True, slots=True)
class Plan:
    """`found` is filled part by part, and `keep` called after each finding. `script`: what runs one part alone."""

    quick: bool
    budget: float
    found: Data
    keep: Callable[[], None]
    script: Path = Path(__file__).parents[1] / "gpu.py"

    def carry_out(self, parts: Sequence[Part]) -> None:
        """One after the other. Of a part that does not fit into what is left an older result stays, if there is one."""
        until = time.monotonic() + self.budget
        if self.quick and interpreted():
            vars(products.kernels())["keystream"] = backends.get().keystream  # the same numbers, in no time
        for number, part in enumerate(parts, 1):
            left = until - time.monotonic()
            if part.takes > left and not self.quick:
                self._skip(part, left)
                continue
            note(
                f"--- {number}/{len(parts)} {part.name} ({left:.0f} s left)"
                if left < FOREVER / 2
                else f"--- {part.name}"
            )
            made: Data = {"measured": time.strftime("%Y-%m-%d"), "found": {}}
            self.found[part.name] = made
            begin = time.monotonic()
            (self._here if self.quick else self._apart)(part, made, left)
            made["seconds"] = round(time.monotonic() - begin, 1)
            self.keep()

    def _skip(self, part: Part, left: float) -> None:
        why = f"takes about {part.takes:.0f} s, and {max(0.0, left):.0f} s were left of the budget"
        note(f"--- {part.name} skipped: {why}")
        self.found.setdefault(part.name, {"skipped": why})
        self.keep()

    def _here(self, part: Part, made: Data, left: float) -> None:
        try:
            for name, value in part.run(Job(self.quick, time.monotonic() + left)):
                made["found"][name] = value
        except Exception as error:  # the other parts go on
            made |= failure(error)

    def _apart(self, part: Part, made: Data, left: float) -> None:
        command = [sys.executable, str(self.script), "--part", part.name, "--budget", str(left)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        late = threading.Timer(left, process.send_signal, (signal.SIGINT,))  # so that it ends what it has started
        too_late = threading.Timer(left + _GRACE, process.kill)
        for timer in (late, too_late):
            timer.daemon = True
            timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(MARK):
                name, value = json.loads(line.removeprefix(MARK))
                made["found" if name else "failed"] = made["found"] | {name: value} if name else value
                self.keep()
        status = process.wait()
        too_late.cancel()
        if late.is_alive():
            late.cancel()
            if status and "failed" not in made:
                made["failed"] = f"its process ended with status {status}"
        else:
            made["failed"] = f"ended after {left:.0f} s, which was all of the budget"


def alone(name: str, budget: float) -> int:
    """What a part's own process does: a line for each finding, and one without a name for what ends it."""
    part = next(part for part in PARTS if part.name == name)
    try:
        for finding, value in part.run(Job(False, time.monotonic() + budget - _ROOM)):
            _tell(finding, value)
    except Exception as error:  # told, not raised: the plan goes on
        _tell("", failure(error)["failed"])
        raise
    return 0


def _tell(name: str, value: Any) -> None:
    print(MARK + json.dumps([name, value]), flush=True)
