"""One party's process: `python -m hush.parties.server --config party0.toml`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import torch
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from hush.mpc.errors import ConfigError, HushError
from hush.mpc.ring import backends
from hush.parties import config as settings
from hush.parties import logs, memory, tls
from hush.parties.config import MIB, PartyConfig
from hush.parties.device_check import try_kernels
from hush.parties.device_memory import Card, card
from hush.parties.logs import LOGGER
from hush.parties.service import SERVICE, Service
from hush.parties.store import Store

_GRACE = 1.0


class PartyServer:
    """A party that serves from `start` to `stop`, or for the length of a `with` block."""

    def __init__(self, config: PartyConfig, memory_of_gpu: Card | None = None) -> None:
        self._config = config
        self._identity = config.identity()
        limits = config.limits
        workers = (
            3 * limits.max_sessions + 16
        )  # a session and its link hold a thread each, calls that are refused one more
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="hush-rpc")
        options = tls.server_options(limits.max_message_mib * MIB, limits.deadline_s)
        self._server = grpc.server(self._pool, options=options, maximum_concurrent_rpcs=workers)
        age = limits.partial_h * 3600
        seeds = backends.get(config.kernels).seeds
        self._store = Store(config.index, config.data_dir, limits.max_models, config.storage(), age, seeds=seeds)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        service = Service(config, self._identity, self._store, memory_of_gpu)
        if memory_of_gpu is not None:
            memory_of_gpu.watch(self._lost)
        self._server.add_generic_rpc_handlers((service.handler(),))

    def start(self) -> None:
        """Load what is stored, then listen. ConfigError if the address cannot be had."""
        self._store.reload()
        address = self._config.address
        try:
            tls.listen(self._server, address, self._identity)
        except RuntimeError:
            raise ConfigError(f"cannot listen on {address}: it is in use, or not this machine's") from None
        self._server.start()
        for name in ("", SERVICE):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        LOGGER.info("serving", extra={"party": self._config.index, "address": address})

    def _lost(self) -> None:
        """Its GPU is lost: it tells whoever asks, and refuses sessions, until it is started again."""
        for name in ("", SERVICE):
            self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        LOGGER.error("not serving: its GPU is lost", extra={"party": self._config.index})

    def stop(self) -> None:
        """Refuse new calls, give running ones a moment, then end them."""
        self._health.enter_graceful_shutdown()
        self._server.stop(_GRACE).wait()
        self._pool.shutdown(wait=False)
        LOGGER.info("stopped", extra={"party": self._config.index})

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(path: Path, *, until_eof: bool = False, device: str | None = None, device_memory: str | None = None) -> None:
    """Run a party from its configuration file until SIGINT or SIGTERM. HushError if it cannot start.

    `device` and `device_memory` take the place of the file's. With `until_eof` also until standard input ends: a local
    launcher's parties end with it, however it ends.
    """
    config = settings.replaced(settings.load_party(path), device=device, device_memory=device_memory)
    memory_of_gpu = card(config.kernels, config.device_memory, enforce=True)  # what is missing is said now
    try_kernels(backends.get(config.kernels))
    logs.configure(config.log_level)
    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    memory.retain()
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    if until_eof:
        threading.Thread(target=_await_eof, args=(stopping,), daemon=True).start()
    with PartyServer(config, memory_of_gpu):
        stopping.wait()


def _await_eof(stopping: threading.Event) -> None:
    sys.stdin.read()
    stopping.set()


def main() -> int:
    """Command line of the module; exit status."""
    parser = argparse.ArgumentParser(prog="hush.parties.server", description="Run one party.")
    parser.add_argument("--config", type=Path, required=True, help="the party's TOML file")
    parser.add_argument("--until-eof", action="store_true", help="stop when standard input ends")
    options = parser.parse_args()
    try:
        serve(options.config, until_eof=options.until_eof)
    except HushError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
