"""A program file and a checkpoint: the weights that come one by one are those of the module, and misfits are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from parties_harness import write_trio
from safetensors.torch import load_file, save_file
from support import checkpoints
from torch import Tensor, nn

from hush.models.checkpoint import Checkpoint
from hush.models.lazy import LazyTensors, lazy_tensors
from hush.mpc.compiler import Program, compile_module, parse
from hush.mpc.compiler.recipe import LazyWeights
from hush.mpc.errors import ModelError, ProgramError
from hush.parties.cli import main
from hush.parties.cli.deploy import compiled, is_program, ticket_path
from hush.parties.cli.sources import Source, resolve
from hush.parties.client import connect
from hush.parties.local import LocalTrio

SEQ = 6


def source(kind: str, folder: Path) -> Source:
    return resolve(checkpoints.MODELS[kind], seq=SEQ, checkpoint=str(folder), masked=True)


def lazily(program: Program, folder: Path) -> Program:
    """The program as a file has it, with the weights of a checkpoint."""
    loaded = parse(program.data)
    wanted = [str(n.target) for n in loaded.recipe.graph.nodes if n.op == "placeholder"]
    tensors = lazy_tensors(Checkpoint(folder), wanted)
    return loaded.bind_lazily(tensors, tensors.shapes)


def assert_same(made: Program, due: Program) -> None:
    assert isinstance(made.weights, LazyWeights)
    assert due.weights is not None
    assert list(made.weights) == list(due.weights) == [s.name for s in due.weight_specs]
    for name, tensor in due.weights.items():
        found = made.weights[name]
        assert torch.allclose(found, tensor, rtol=1e-6, atol=1e-6), name  # of a sum the last digit may be another
        assert torch.equal(found, made.weights[name]), name


@pytest.mark.parametrize("kind", sorted(checkpoints.MODELS))
@pytest.mark.parametrize("generate", [False, True])
def test_weights_are_those_of_the_module(kind: str, generate: bool, tmp_path: Path) -> None:
    checkpoints.write(kind, tmp_path)
    found = source(kind, tmp_path)
    if generate and found.generator is None:
        pytest.skip("it generates nothing")
    program = compiled(found, "secret", "default", "auto", generate=generate)
    assert (program.generation is not None) == generate
    assert_same(lazily(program, tmp_path), program)


def test_names_with_the_network_s_own_before_them(tmp_path: Path) -> None:
    """As a checkpoint of a model with a head has them"""
    plain, headed = tmp_path / "plain", tmp_path / "headed"
    for folder in (plain, headed):
        folder.mkdir()
        checkpoints.write("gpt2", folder)
    weights = {f"transformer.{name}": t for name, t in load_file(headed / "model.safetensors").items()}
    weights["lm_head.weight"] = torch.zeros(2, 2)  # tied: without use
    save_file(weights, str(headed / "model.safetensors"))
    program = source("gpt2", plain).compile()
    assert_same(lazily(program, headed), program)


class Wrapped(nn.Module):
    """A network within another module, as examples of one's own often are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("prefix", ["inner.", "", "outer.inner."])
def test_an_unknown_architecture_goes_by_its_own_names(tmp_path: Path, prefix: str) -> None:
    module = Wrapped().eval()
    program = compile_module(module, (torch.linspace(-1, 1, 8).reshape(2, 4),))
    save_file({prefix + n: t for n, t in module.inner.state_dict().items()}, str(tmp_path / "model.safetensors"))
    (tmp_path / "config.json").write_text("{}")
    assert_same(lazily(program, tmp_path), program)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"wte.weight": None}, "missing from the checkpoint: wte.weight"),
        ({"h.0.more": torch.zeros(2)}, "no place in .*: h.0.more"),
        ({"wte.weight": torch.zeros(23, 9)}, r"wte.weight has shape \(23, 9\)"),
    ],
)
def test_missing_extra_and_misshapen_tensors_are_named(
    tmp_path: Path, change: dict[str, Tensor | None], complaint: str
) -> None:
    checkpoints.write("gpt2", tmp_path)
    program = source("gpt2", tmp_path).compile()
    weights = checkpoints.weights_of("gpt2") | change
    save_file({n: t for n, t in weights.items() if t is not None}, str(tmp_path / "model.safetensors"))
    with pytest.raises(ModelError, match=complaint):
        lazily(program, tmp_path)


def test_a_checkpoint_of_another_size_does_not_fit_the_program(tmp_path: Path) -> None:
    """Found by shapes alone, before a number is read."""
    checkpoints.write("llama", tmp_path)
    program = source("llama", tmp_path).compile()
    checkpoints.write("llama", tmp_path, checkpoints.weights_of("llama", vocab_size=24), vocab_size=24)
    with pytest.raises(ProgramError, match=r"weight .* comes out as"):
        lazily(program, tmp_path)
    checkpoints.write("bert", tmp_path)
    with pytest.raises(ProgramError, match="not this program's model"):
        lazily(program, tmp_path)


def test_integers_are_no_weights(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2, dtype=torch.int8)}, str(tmp_path / "model.safetensors"))
    with pytest.raises(ModelError, match="quantised"):
        LazyTensors(Checkpoint(tmp_path), {"a": "a"})["a"]


def test_a_weight_reads_only_what_it_is_made_of(tmp_path: Path) -> None:
    module = Wrapped().eval()
    program = compile_module(module, (torch.linspace(-1, 1, 8).reshape(2, 4),))
    read: list[str] = []

    class Noting(dict[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            read.append(name)
            return super().__getitem__(name)

    state = dict(module.state_dict())
    program.bind_lazily(Noting(state), {n: t.shape for n, t in state.items()})
    assert read == []
    assert program.weights is not None
    for name in program.weights:
        read.clear()
        _ = program.weights[name]
        assert len(read) == 1, name


# ---------------------------------------------------------------------- the command
def test_the_command_names_what_is_wrong(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trio = write_trio(tmp_path / "t", ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"])
    folder = tmp_path / "c"
    folder.mkdir()
    checkpoints.write("gpt2", folder)
    path = tmp_path / "small.hush"
    common = ["--checkpoint", str(folder), "--seq", str(SEQ)]
    assert main(["compile", "gpt2-base", "-o", str(path), "--generate", *common]) == 0
    assert parse(path.read_bytes()).generation is not None
    assert main(["compile", "bert-base", "-o", str(path), "--generate", "--size", "tiny"]) == 1
    assert "cannot generate" in capfd.readouterr().err
    deploy = ["deploy", str(path), "--config", str(trio / "provider.toml")]
    for more, complaint in (
        ([], "name a folder or a hub id (--checkpoint)"),
        (common, "compiled already"),
        (["--checkpoint", str(folder), "--forward"], "compiled already"),
    ):
        assert main([*deploy, *more]) == 1
        assert complaint in capfd.readouterr().err
    save_file({"wte.weight": torch.zeros(1)}, str(folder / "model.safetensors"))
    assert main([*deploy, "--checkpoint", str(folder)]) == 1
    assert "weights missing from the checkpoint" in capfd.readouterr().err
    assert list(trio.glob("*.deploying")) == []


def test_what_generates_is_deployed_to_generate(tmp_path: Path) -> None:
    """By default from the model's id, and from a program file; with --forward the plain network."""
    folder = tmp_path / "c"
    folder.mkdir()
    checkpoints.write("gpt2", folder)
    module = source("gpt2", folder).module
    path, prompt = tmp_path / "file.hush", [7, 3, 11]
    checkpoint = ["--checkpoint", str(folder)]
    with LocalTrio(threads=1) as trio:
        user = {"authority": "ca.pem", "certificate": "provider.pem", "key": "provider.key"}
        lines = [f"parties = {list(trio.addresses)!r}", "[tls]", *(f"{k} = {v!r}" for k, v in user.items())]
        (trio.directory / "provider.toml").write_text("\n".join(lines))
        common = [*checkpoint, "--config", str(trio.directory / "provider.toml")]
        assert main(["deploy", "gpt2-base", "--seq", str(SEQ), *common]) == 0
        assert main(["deploy", "gpt2-base", "--seq", str(SEQ), "--forward", "--name", "plain", *common]) == 0
        assert main(["compile", "gpt2-base", "-o", str(path), "--generate", "--seq", str(SEQ), *checkpoint]) == 0
        assert main(["deploy", str(path), *common]) == 0
        with connect(trio.config) as client, torch.no_grad():
            due = list(prompt)
            for _ in range(3):
                due.append(int(module(torch.tensor([due]))[0, -1].argmax()))
            for name in ("gpt2-base", "file"):
                assert list(client.generate(name, prompt, max_new_tokens=3)) == due[3:]
            ids = torch.tensor([due])
            assert client.program("plain").generation is None
            assert torch.allclose(client.infer("plain", ids), module(ids), atol=2e-2)


def test_what_names_a_program(tmp_path: Path) -> None:
    for name in ("net.py", "net.hush"):
        (tmp_path / name).touch()
    assert is_program(str(tmp_path / "net.hush"))
    assert not is_program(str(tmp_path / "net.py"))
    assert not is_program(str(tmp_path / "net.py:build"))
    assert not is_program("gpt2-base")
    config = tmp_path / "provider.toml"
    assert ticket_path(config, "a/../b").parent == tmp_path  # whatever a model is called
    assert ticket_path(config, "a") != ticket_path(config, "b")
