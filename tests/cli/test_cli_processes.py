"""The command line as people use it: a demo, three terminals, an interruption. Real processes, real certificates."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from hush.parties import health
from hush.parties.cli import main

HUSH = [sys.executable, "-m", "hush"]


def hush(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    full = {**os.environ, **env}
    return subprocess.run([*HUSH, *args], cwd=cwd, env=full, capture_output=True, text=True, timeout=240, check=False)


def test_demo(tmp_path: Path) -> None:
    done = hush("demo", "--query", "a doctor who tells others about my illness", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    fields = {"query", "ranking", "plain_ranking", "cosine", "max_abs_err", "secure_s", "bytes_sent", "rounds"}
    assert fields <= set(found)
    assert found["query"] == "a doctor who tells others about my illness"
    assert found["cosine"] >= 0.9999
    assert found["max_abs_err"] < 2e-3
    assert found["ranking"] == found["plain_ranking"]
    assert len(set(found["ranking"])) == 12
    assert found["ranking"][0].startswith("Medical records")
    assert found["predicted"] == {key: found[key] for key in ("rounds", "bytes_sent", "messages")}
    assert found["tokens"] == 16
    for stage in ("loading", "compiling", "starting three party processes", "sharing the weights", "on shares"):
        assert stage in done.stderr


def test_interrupted_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*HUSH, "demo", "--json"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        children = wait_for_children(process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not out
    psutil.wait_procs(children, timeout=30)
    assert not [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]
    assert not list(tmp_path.glob("hush-*"))  # throwaway keys


def wait_for_children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        found: list[psutil.Process] = psutil.Process(process.pid).children()
        if len(found) == 3:
            return found
        time.sleep(0.1)
    raise AssertionError("the demo started no parties")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """README's sequence: certificates, three terminals."""
    here = tmp_path_factory.mktemp("hand")
    addresses = ",".join(f"127.0.0.1:{free_port()}" for _ in range(3))
    assert hush("certs", "init", "keys", "--parties", addresses, cwd=here).returncode == 0
    logs = [(here / f"log{i}").open("w") for i in range(3)]
    terminals = [
        subprocess.Popen([*HUSH, "party", "--config", f"keys/party{i}.toml"], cwd=here, stderr=logs[i])
        for i in range(3)
    ]
    try:
        until = time.monotonic() + 120
        while not all(answer.well for answer in health.check(here / "keys" / "client.toml")):
            assert time.monotonic() < until, [Path(log.name).read_text() for log in logs]
            time.sleep(0.2)
        yield here
        for terminal in terminals:
            terminal.send_signal(signal.SIGINT)
        assert [t.wait(60) for t in terminals] == [0, 0, 0]
    finally:
        for terminal in terminals:
            terminal.kill()
        for log in logs:
            log.close()


def free_port() -> int:
    with closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def test_three_terminals(keys: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    done = hush("deploy", "minilm", "--seq", "16", "--config", "keys/provider.toml", cwd=keys)
    assert done.returncode == 0, done.stderr
    assert "minilm is deployed: program " in done.stdout
    done = hush("infer", "minilm", "--text", "Good morning.", "--config", "keys/client.toml", "--json", cwd=keys)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (embedding,) = found["output"][0]
    assert len(embedding) == 384
    assert abs(sum(x * x for x in embedding) - 1) < 1e-3
    assert found["predicted"] == {key: found[key] for key in ("rounds", "bytes_sent", "messages")}
    monkeypatch.chdir(keys)  # the other commands in this process: they are no different, and start faster
    common = ["--tokenizer", "minilm", "--config", "keys/client.toml"]
    for model, text, complaint in (
        ("minilm", "word " * 30, "32 tokens, the program was compiled for 16"),
        ("other", "x", "'other' is not deployed; it has minilm"),
    ):
        assert main(["infer", model, "--text", text, *common]) == 1
        assert complaint in capfd.readouterr().err
    assert main(["infer", "minilm", "--text", "Good morning.", *common]) == 0  # the parties are unharmed
    assert "[1x384]" in capfd.readouterr().out
    assert main(["doctor", "--config", "keys/party2.toml"]) == 0
    out = capfd.readouterr().out
    assert out.count("serving (") == 3
    assert "hush://party/2" in out
