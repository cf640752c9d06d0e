"""A party's process that also times its matrix products, for `limits.py`: figures go to a file when it ends.

The parties' own code has no such clock; this wraps the kernels of this process.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from hush.mpc.ring.cpu_backend import CpuKernels
from hush.parties import server

spent = {"products_cpu_s": 0.0, "products": 0}
product = CpuKernels._product


def timed(self: CpuKernels, *args: Any, **kwargs: Any) -> Any:
    """The product, and the processor time that this thread took for it."""
    begin = time.thread_time()
    found = product(self, *args, **kwargs)
    spent["products_cpu_s"] += time.thread_time() - begin
    spent["products"] += 1
    return found


if __name__ == "__main__":
    CpuKernels._product = timed  # type: ignore[method-assign]
    status = server.main()
    (Path(os.environ["HUSH_TIMED_PARTY"]) / f"{os.getpid()}.json").write_text(json.dumps(spent))
    sys.exit(status)
