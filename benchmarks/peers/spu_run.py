"""SPU on a workload: three processes over its own links, ABY3, FM64, 18 fraction bits. Runs in SPU's environment.

    python -m venv V && V/bin/pip install spu==0.9.5 jax==0.4.34 jaxlib==0.4.34 numpy==1.26.4
    V/bin/python benchmarks/peers/spu_run.py bert12 --variant puma --repeat 1

Prints one JSON object. `seconds`: the slowest party's time in the runtime; inputs and weights are shared, and the
program compiled, before. `messages` are SPU's "send actions". `errors`: largest, against float64 and exact functions.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
import jax
import numpy as np
import spu.libspu as lib
import spu_workloads
from spu import api
from spu.utils import frontend

SENT = re.compile(r"Link details: total send bytes (\d+), recv bytes \d+, send actions (\d+)")


def configuration(variant: str) -> lib.RuntimeConfig:
    """ABY3 in 2^64, 18 fraction bits; PUMA's exp for its variant."""
    config = lib.RuntimeConfig(protocol=lib.ProtocolKind.ABY3, field=lib.FieldType.FM64, fxp_fraction_bits=18)
    if variant == "puma":
        config.fxp_exp_mode, config.fxp_exp_iters = lib.RuntimeConfig.ExpMode.EXP_TAYLOR, 5
    config.enable_pphlo_profile = True
    return config


def compiled(work: spu_workloads.Workload, variant: str):
    """The executable and its flat inputs, all of them secret."""
    flat, _ = jax.tree_util.tree_flatten((work.args, {}))
    names = [f"in{i}" for i in range(len(flat))]
    options = lib.CompilerOptions()
    options.enable_optimize_denominator_with_broadcast = variant == "puma"
    secret = [lib.Visibility.VIS_SECRET] * len(flat)
    executable, _ = frontend.compile(
        frontend.Kind.JAX, work.traced, list(work.args), {}, names, secret,
        lambda out: [f"out{i}" for i in range(len(out))], copts=options,
    )  # fmt: skip
    return executable, flat


def ports() -> list[int]:
    """Three loopback ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(3)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    found = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return found


def party(rank: int, folder: Path, addresses: list[int], variant: str, repeat: int) -> None:
    """One party, in a process of its own: figures to a file, its shares of the outputs beside it."""
    executable = lib.Executable()
    executable.ParseFromString((folder / "program").read_bytes())
    description = lib.link.Desc()
    description.recv_timeout_ms = 600_000
    description.http_max_payload_size = 32 << 20
    for i, port in enumerate(addresses):
        description.add_party(f"P{i}", f"127.0.0.1:{port}")
    link = lib.link.create_brpc(description, rank)
    runtime = api.Runtime(link, configuration(variant))
    for i, name in enumerate(executable.input_names):
        runtime.set_var(name, load(folder / f"in{rank}.{i}"))
    seconds, before = [], resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(repeat):
        link.barrier()
        begin = time.perf_counter()
        runtime.run(executable)
        seconds.append(time.perf_counter() - begin)
    used = resource.getrusage(resource.RUSAGE_SELF)
    link.barrier()
    for i, name in enumerate(executable.output_names):
        store(folder / f"out{rank}.{i}", runtime.get_var(name))
    cpu = (used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime) / repeat
    (folder / f"figures{rank}").write_text(json.dumps({"seconds": seconds, "cpu_s": cpu, "peak_rss": peak_resident()}))
    link.stop_link()


def peak_resident() -> int:
    """Bytes. (ru_maxrss of a child begins at its parent's.)"""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) << 10


def store(path: Path, share: lib.Share) -> None:
    """A share as a file: a line of JSON, then its bytes."""
    chunks = [bytes(chunk) for chunk in share.share_chunks]
    head = {"meta": share.meta.hex(), "sizes": [len(chunk) for chunk in chunks]}
    path.write_bytes(json.dumps(head).encode() + b"\n" + b"".join(chunks))


def load(path: Path) -> lib.Share:
    """The reverse."""
    head, _, raw = path.read_bytes().partition(b"\n")
    known, share, start, chunks = json.loads(head), lib.Share(), 0, []
    for size in known["sizes"]:
        chunks.append(raw[start : start + size])
        start += size
    share.meta, share.share_chunks = bytes.fromhex(known["meta"]), chunks
    return share


def run(name: str, work: spu_workloads.Workload, variant: str, repeat: int) -> dict:
    """All three parties, and what they say."""
    executable, flat = compiled(work, variant)
    io = api.Io(3, configuration(variant))
    with tempfile.TemporaryDirectory() as temporary:
        folder, addresses = Path(temporary), ports()
        (folder / "program").write_bytes(executable.SerializeToString())
        for i, x in enumerate(flat):
            for rank, share in enumerate(io.make_shares(np.ascontiguousarray(x), lib.Visibility.VIS_SECRET)):
                store(folder / f"in{rank}.{i}", share)
        command = [sys.executable, __file__, name, "--variant", variant, "--repeat", str(repeat), "--folder", temporary]
        command += ["--ports", *map(str, addresses)]
        logs = [(folder / f"log{rank}").open("w+") for rank in range(3)]
        parties = [
            subprocess.Popen([*command, "--party", str(rank)], stdout=logs[rank], stderr=logs[rank])
            for rank in range(3)
        ]
        failed = any([p.wait() for p in parties])  # noqa: C419 (all must be waited for)
        texts = [(folder / f"log{rank}").read_text() for rank in range(3)]
        if failed:
            raise SystemExit(texts[0][-3000:])
        figures = [json.loads((folder / f"figures{rank}").read_text()) for rank in range(3)]
        sent = [SENT.findall(text)[-1] for text in texts]
        outputs = range(len(executable.output_names))
        found = [io.reconstruct([load(folder / f"out{rank}.{i}") for rank in range(3)]) for i in outputs]
    return {
        "seconds": [max(times) for times in zip(*(f["seconds"] for f in figures), strict=True)],
        "cpu_s": [f["cpu_s"] for f in figures],
        "peak_rss": [f["peak_rss"] for f in figures],
        "bytes_sent": [int(size) for size, _ in sent],
        "messages": [int(actions) for _, actions in sent],
        "errors": _errors(work, found),
    }


def _errors(work: spu_workloads.Workload, found: list) -> list[float]:
    with jax.experimental.enable_x64():
        exact = jax.tree_util.tree_map(
            lambda a: np.asarray(a, np.float64) if np.issubdtype(np.asarray(a).dtype, np.floating) else a, work.args
        )
        due = jax.tree_util.tree_leaves(jax.jit(work.exact)(*exact))
        return [float(np.abs(np.asarray(a, np.float64) - np.asarray(b)).max()) for a, b in zip(found, due, strict=True)]


def main() -> None:
    """Command line; `--party` and what follows are for the parties that it starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload")
    parser.add_argument("--variant", choices=["puma", "default"], default="puma")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--party", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ports", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.party is not None:
        return party(options.party, options.folder, options.ports, options.variant, options.repeat)
    work = spu_workloads.named(options.workload, options.variant)
    figures = run(options.workload, work, options.variant, options.repeat)
    print(json.dumps({"workload": options.workload, "variant": options.variant} | figures))
    return None


if __name__ == "__main__":
    main()
