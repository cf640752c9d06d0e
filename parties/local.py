"""Three parties on this machine: as processes over mutual TLS, or as threads over memory.

Both run the same code from shared inputs to shared outputs, send the same bytes and give the same report. Neither hides
anything from this machine's owner: they are for demonstrations, measurements and tests.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import hush
from hush.mpc.errors import AbortReason, PartyUnreachable
from hush.parties import certs, health, vault
from hush.parties.config import ClientConfig, Limits, TlsFiles
from hush.parties.device_memory import Amount

_START = 120.0  # seconds a process may take to serve: a cold import of torch on a busy machine is slow
_STOP = 5.0
_SOCKET_LIMIT = 100  # bytes of a unix socket's path
Progress = Callable[[str], None]


class LocalTrio:
    """Three party processes with throwaway certificates in a temporary folder; all of it is gone after `close`.

    `config` serves clients and, as `provider_config`, providers. `threads` per party: default a third of the cores.
    `device_memory` of a GPU, of all or each: by default a third of it. `profile`: whether clients may ask for profiles.
    `entry`: what Python runs for a party, which takes the server's options.
    """

    def __init__(
        self,
        *,
        threads: int | None = None,
        net: str = "none",
        backend: str | None = None,
        device_memory: Amount | Sequence[Amount] | None = None,
        limits: Limits | None = None,
        unix: bool = True,
        data: bool = False,
        profile: bool = False,
        progress: Progress | None = None,
        entry: Sequence[str] = ("-m", "hush.parties.server"),
    ) -> None:
        self.threads = threads or max(1, (os.cpu_count() or 1) // 3)
        self.directory = Path(tempfile.mkdtemp(prefix="hush-"))
        self.processes: list[subprocess.Popen[bytes]] = []
        self._logs: list[IO[bytes]] = []
        self._progress = progress or (lambda text: None)
        self._limits = limits or Limits()
        self._options, self._profile, self._entry = (net, backend, data), profile, entry
        shared = backend is not None and backend.startswith("cuda")
        amount = "1/3" if shared and device_memory is None else device_memory
        self._device_memory = [amount] * 3 if amount is None or isinstance(amount, (int, str)) else list(amount)
        try:
            certs.create(self.directory, days=2, keep_authority=False)
            for party in range(3 if data else 0):
                vault.create_key(self.directory / f"storage{party}.key")
            self.addresses = _unix(self.directory) if unix else loopback()
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def config(self) -> ClientConfig:
        """For `hush.connect`."""
        return self._user("client")

    @property
    def provider_config(self) -> ClientConfig:
        """For `hush.deploy`."""
        return self._user("provider")

    def _user(self, kind: str) -> ClientConfig:
        return ClientConfig(parties=self.addresses, tls=self._tls(kind), deadline_s=self._limits.deadline_s)

    def _tls(self, stem: str) -> TlsFiles:
        at = self.directory
        return TlsFiles(authority=at / "ca.pem", certificate=at / f"{stem}.pem", key=at / f"{stem}.key")

    def log(self, party: int) -> str:
        """What a party has logged so far: JSON lines."""
        return (self.directory / f"party{party}.log").read_text()

    # ------------------------------------------------------------------ life
    def _start(self) -> None:
        self._progress("starting three parties")
        for party in range(3):
            self.launch(party)
        for party in range(3):
            self.wait(party)
            self._progress(f"party {party} serves at {self.addresses[party]}")

    def launch(self, party: int) -> None:
        """Start a party's process; again, if it has ended."""
        path = self.directory / f"party{party}.toml"
        path.write_text(self._toml(party))
        log = (self.directory / f"party{party}.log").open("ab")
        self._logs.append(log)
        command = [sys.executable, *self._entry, "--until-eof", "--config", str(path)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, env=self._environment()
        )
        if party < len(self.processes):
            self.processes[party] = process
        else:
            self.processes.append(process)

    def _environment(self) -> dict[str, str]:
        source = str(Path(hush.__file__).parents[1])
        paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        pools = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(self.threads))
        pools["OMP_WAIT_POLICY"] = "PASSIVE"  # three parties on one machine: whoever waits must not spin
        return {**os.environ, **pools, "PYTHONPATH": os.pathsep.join(paths)}

    def _toml(self, party: int) -> str:
        net, backend, data = self._options
        files = self._tls(f"party-{party}")
        lines = [f"index = {party}", f"parties = {list(self.addresses)!r}", f"threads = {self.threads}"]
        lines += [f"net = {net!r}", *([f"backend = {backend!r}"] if backend else [])]
        amount = self._device_memory[party]
        lines += [f"device_memory = {amount!r}"] if amount is not None else []
        lines += ["profile = true"] if self._profile else []
        lines += [f"data_dir = 'data{party}'", f"storage_key = 'storage{party}.key'"] if data else []
        lines += ["[tls]", *(f"{key} = '{path}'" for key, path in files.model_dump().items())]
        lines += ["[limits]", *(f"{key} = {value}" for key, value in self._limits.model_dump().items())]
        return "\n".join(lines) + "\n"

    def wait(self, party: int) -> None:
        """Wait until a party serves. PartyUnreachable with the end of its log if it does not."""
        identity = self.config.identity("client")
        until = time.monotonic() + _START
        while not health.ask(self.addresses[party], party, identity, 2.0).well:
            ended = self.processes[party].poll() is not None
            if ended or time.monotonic() > until:
                last = " / ".join(self.log(party).splitlines()[-3:])
                raise PartyUnreachable(party, AbortReason.UNREACHABLE, f"it did not start: {last}")
            time.sleep(0.05)

    def close(self) -> None:
        """End the processes and remove the folder. Safe to call twice."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()
        for log in self._logs:
            log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _unix(directory: Path) -> tuple[str, str, str]:
    """Addresses of unix sockets in a folder; loopback ones where there are none, or the path is too long."""
    if not hasattr(socket, "AF_UNIX") or len(os.fsencode(directory)) > _SOCKET_LIMIT - 10:
        return loopback()
    return f"unix:{directory}/p0", f"unix:{directory}/p1", f"unix:{directory}/p2"


def loopback() -> tuple[str, str, str]:
    """Three loopback addresses that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(3)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        a, b, c = (f"127.0.0.1:{s.getsockname()[1]}" for s in sockets)
        return a, b, c
