"""What a user does wrong: one line that says so on stderr, nothing on stdout, a status that is not 0, no traceback."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from hush.parties import certs
from hush.parties.cli import main

MODULE = """
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Linear(4, 2), (torch.ones(3, 4),)

class Gamma(torch.nn.Module):
    def forward(self, x):
        return torch.lgamma(x)

def gamma():
    return Gamma(), (torch.ones(3, 2, 4),)

def nothing():
    return 7
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODULE)
    (tmp_path / "noise.hush").write_bytes(b"\xff\x00 no program")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "text.json").write_text('{"input": ["a"]}')
    (tmp_path / "odd.toml").write_text("parties = 3")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "nan.npy", np.full((3, 4), np.nan))
    np.save(tmp_path / "infinite.npy", np.full((3, 4), np.inf))
    np.save(tmp_path / "huge.npy", np.full((3, 4), 1e9))
    np.save(tmp_path / "shape.npy", np.ones((2, 4)))
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "named.npz", elsewhere=np.ones((3, 4)))
    return tmp_path


ERRORS = [
    ("bench nope", "no model 'nope': choose from minilm"),
    ("bench minilm --size tiny", "minilm has no size 'tiny'"),
    ("bench minilm --seq 513", "minilm takes 1 to 512 positions, not 513"),
    ("bench minilm --device cuda", "absent"),
    ("bench minilm --new 4", "cannot generate"),
    ("bench minilm --protocol crypten --profile", "--profile is of our own parties"),
    ("bench net.py --link memory --profile-dir net.py", "the profile cannot be written to net.py"),
    ("bench minilm --checkpoint ./empty", "has no config.json"),
    (["demo", "--query", " "], "the query is empty"),
    ("demo --checkpoint ./absent --query x", "no such folder"),
    ("demo --checkpoint ./empty --query x", "has no config.json"),
    (["demo", "--query", "word " * 600], "the longest compiled length is 512"),
    (["run", "minilm", "--text", " "], "the text is empty"),
    (["run", "minilm", "--text", "one two three four", "--seq", "4"], "6 tokens, the program was compiled for 4"),
    ("run minilm --text x --input nan.npy", "not both"),
    ("run minilm --input nan.npy --input absent.npy", "absent.npy: no such file"),
    ("run hf:./absent", "no such folder"),
    ("run hf:./empty", "has no config.json"),
    ("run absent.py", "no such file"),
    ("run net.py:other", "defines no function 'other'"),
    ("run net.py:nothing", "returns int"),
    ("run net.py:gamma --link memory", "has no rule"),
    ("run net.py --link memory --input nan.npy", "holds NaN or infinity"),
    ("run net.py --link memory --input infinite.npy", "holds NaN or infinity"),
    ("run net.py --link memory --input huge.npy", "exceeds the compiled range"),
    ("run net.py --link memory --input shape.npy", "compiled for (3, 4)"),
    ("run net.py --link memory --input object.npy", "cannot be read as .npy"),
    ("run net.py --link memory --input named.npz", "no argument is called 'elsewhere'; the model takes input"),
    ("run net.py --link memory --input broken.json", "cannot be read as .json"),
    ("run net.py --link memory --input text.json", "cannot be read as .json"),
    ("run net.py --link memory --input net.py", "an input file is .npy"),
    ("compile net.py -o absent/net.hush", "absent/net.hush: No such file or directory"),
    ("inspect absent.hush", "cannot be read"),
    ("inspect noise.hush", "is not a Hush program"),
    ("party --config absent.toml", "cannot read absent.toml"),
    ("party --config odd.toml", "odd.toml: "),
    ("deploy net.py --config absent.toml", "cannot read absent.toml"),
    ("infer net --config absent.toml --input nan.npy", "cannot read absent.toml"),
    ("infer net --config absent.toml", "either --text or --input"),
    ("certs init keys --parties a:1,b:2", "three addresses are due, 2 given"),
    ("certs init keys --parties a,b:2,c:3", "'a': an address is HOST:PORT"),
    ("certs add empty client/eve", "ca.pem"),
    ("doctor --config absent.toml", "cannot read absent.toml"),
]


@pytest.mark.parametrize(("line", "complaint"), ERRORS, ids=[str(e[0])[:50] for e in ERRORS])
def test_errors(line: str | list[str], complaint: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(line.split(" ") if isinstance(line, str) else line) == 1
    out, err = capfd.readouterr()
    assert complaint in err
    assert "error: " in err
    assert "Traceback" not in out + err
    assert not out or line == "doctor --config absent.toml"  # which says what it found before


@pytest.mark.parametrize(
    "line", ["", "bogus", "bench", "bench minilm --net moon", "bench minilm --seq 0", "demo --embedding no", "certs"]
)
def test_wrong_usage(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    assert "Traceback" not in capfd.readouterr().err


def test_certificates_are_never_overwritten(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", "init", "keys"]) == 0
    before = (folder / "keys" / "ca.pem").read_bytes()
    assert main(["certs", "init", "keys"]) == 1
    assert "holds certificates already" in capfd.readouterr().err
    assert (folder / "keys" / "ca.pem").read_bytes() == before


def test_expired_and_foreign_certificates_are_named(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", "init", "one"]) == main(["certs", "init", "two"]) == 0
    for name in ("client.pem", "client.key"):
        (folder / "one" / name).write_bytes((folder / "two" / name).read_bytes())
    np.save("ones.npy", np.ones(3))
    assert main(["infer", "net", "--config", "one/client.toml", "--input", "ones.npy"]) == 1
    assert "was not issued by" in capfd.readouterr().err
    authority = certs.Authority.load(folder / "two")
    certificate, key = authority.issue(certs.Role("client", "client"), 1, datetime.now(UTC) - timedelta(days=3))
    (folder / "two" / "client.pem").write_bytes(certificate)
    (folder / "two" / "client.key").write_bytes(key)
    assert main(["infer", "net", "--config", "two/client.toml", "--input", "ones.npy"]) == 1
    assert "expired on" in capfd.readouterr().err


def test_a_full_disk_is_one_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    assert main(["compile", "net.py", "-o", "/dev/full"]) == 1
    assert "No space left on device" in capfd.readouterr().err


def test_parties_that_are_not_there(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", "init", "keys", "--parties", "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"]) == 0
    assert main(["deploy", "net.py", "--config", "keys/provider.toml"]) == 1
    assert "unreachable (127.0.0.1:" in capfd.readouterr().err
    np.save("ones.npy", np.ones((3, 4)))
    assert main(["infer", "net", "--config", "keys/client.toml", "--input", "ones.npy", "--json"]) == 1
    out, err = capfd.readouterr()
    assert "unreachable" in err
    assert not out
    assert main(["doctor", "--config", "keys/party1.toml"]) == 1
    assert capfd.readouterr().out.count("unreachable") == 3


def test_models_json_is_clean(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    (minilm,) = (row for row in json.loads(out) if row["id"] == "minilm")
    assert set(minilm) == {"id", "title", "paper", "task", "params", "status"}
    assert set(minilm["params"]) == {"tiny", "paper"}
