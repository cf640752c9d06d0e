"""What published checkpoints hold beside the weights, and every way in which one does not fit its network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.checkpoints import CONFIGS, FAMILIES, MODELS, weights_of, write
from torch import Tensor

from hush.models import registry
from hush.models.checkpoint import Checkpoint
from hush.mpc.errors import ModelError

PREFIX = {"bert": "bert.", "roberta": "roberta.", "gpt2": "transformer.", "llama": "model."}
BESIDE = {  # buffers, and heads of the pre-training
    "bert": ("bert.embeddings.position_ids", "cls.predictions.bias", "cls.seq_relationship.weight"),
    "roberta": ("roberta.embeddings.position_ids", "lm_head.dense.weight", "lm_head.bias"),
    "gpt2": ("transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias", "lm_head.weight"),
    "llama": ("model.layers.0.self_attn.rotary_emb.inv_freq",),
}
LAST = {
    "bert": "pooler.dense.bias", "roberta": "pooler.dense.bias", "gpt2": "ln_f.bias", "llama": "norm.weight"
}  # fmt: skip


def load(folder: Path, kind: str) -> dict[str, Tensor]:
    return dict(FAMILIES[kind].load(Checkpoint(folder)).named_parameters())


def under_prefix(kind: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name if name.startswith("lm_head") else PREFIX[kind] + name: w for name, w in weights.items()}


@pytest.mark.parametrize("kind", CONFIGS)
def test_prefixes_buffers_and_other_heads(kind: str, tmp_path: Path) -> None:
    bare = weights_of(kind)
    for weights in (bare, under_prefix(kind, bare)):
        loaded = load(write(kind, tmp_path, weights | {name: torch.ones(2) for name in BESIDE[kind]}), kind)
        assert set(loaded) == set(bare)
        assert all(torch.equal(loaded[name], weight) for name, weight in bare.items())
        assert not any(weight.requires_grad for weight in loaded.values())


def test_norms_under_their_names_of_2018(tmp_path: Path) -> None:
    bare = weights_of("bert")
    old = {n.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): w for n, w in bare.items()}
    loaded = load(write("bert", tmp_path, old), "bert")
    assert all(torch.equal(loaded[name], weight) for name, weight in bare.items())


def test_a_tied_head_may_be_written_out(tmp_path: Path) -> None:
    tied = weights_of("llama", tie_word_embeddings=True)
    written = write("llama", tmp_path, tied | {"lm_head.weight": torch.ones(23, 8)}, tie_word_embeddings=True)
    assert set(load(written, "llama")) == set(tied)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_without_a_pooler_nothing_is_pooled(kind: str, tmp_path: Path) -> None:
    weights = {name: w for name, w in weights_of(kind).items() if not name.startswith("pooler")}
    network = FAMILIES[kind].load(Checkpoint(write(kind, tmp_path, weights)))
    assert len(network(torch.full((1, 4), 7))) == 1


@pytest.mark.parametrize("kind", CONFIGS)
def test_faults_are_named_together(kind: str, tmp_path: Path) -> None:
    weights = weights_of(kind)
    first, last = next(iter(weights)), LAST[kind]
    del weights[last]
    weights |= {first: torch.zeros(3, 3), "classifier.weight": torch.zeros(2)}
    with pytest.raises(ModelError) as caught:
        load(write(kind, tmp_path, weights), kind)
    said = str(caught.value)
    assert f"missing from the checkpoint: {last}" in said
    assert f"{FAMILIES[kind].network.__name__}: classifier.weight" in said
    assert f"{first} has shape (3, 3), the network needs (23, 8)" in said


def test_long_lists_are_cut(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"missing from the checkpoint: .* and \d+ more"):
        load(write("bert", tmp_path, {"embeddings.LayerNorm.weight": torch.zeros(8)}), "bert")


def test_one_place_two_weights(tmp_path: Path) -> None:
    weights = weights_of("gpt2")
    with pytest.raises(ModelError, match=r"weights ln_f\.bias and transformer\.ln_f\.bias are for the same place"):
        load(write("gpt2", tmp_path, weights | {"transformer.ln_f.bias": weights["ln_f.bias"] + 1}), "gpt2")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    weights = {name: w.to(dtype) for name, w in weights_of("gpt2").items()}
    loaded = load(write("gpt2", tmp_path, weights), "gpt2")
    assert all(w.dtype == torch.float32 for w in loaded.values())
    assert all(torch.equal(loaded[name], w.float()) for name, w in weights.items())


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    weights = weights_of("gpt2") | {"ln_f.bias": torch.zeros(8, dtype=torch.int8)}
    with pytest.raises(ModelError, match=r"ln_f\.bias is torch\.int8: quantised"):
        load(write("gpt2", tmp_path, weights), "gpt2")


# ---------------------------------------------------------------------- config.json
@pytest.mark.parametrize("found", ["t5", None])
@pytest.mark.parametrize("model", [*MODELS.values(), "minilm"])
def test_unknown_architectures(model: str, found: str | None, tmp_path: Path) -> None:
    write("bert", tmp_path, model_type=found)
    known = "Hush's networks load bert, gpt2, llama, roberta; hf:FOLDER runs what transformers loads"
    with pytest.raises(ModelError, match=f"unknown architecture {found!r}: {known}"):
        registry.get(model, str(tmp_path)).build("paper", str(tmp_path))


def test_another_familys_checkpoint(tmp_path: Path) -> None:
    write("llama", tmp_path)
    with pytest.raises(ModelError, match="holds a model of type 'llama', and 'gpt2' is due"):
        registry.get("gpt2-base", str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "change", "complaint"),
    [
        ("bert", {"hidden_size": "8"}, "hidden_size is '8', and int is due"),
        ("bert", {"num_hidden_layers": True}, "num_hidden_layers is True"),
        ("bert", {"hidden_act": "relu"}, "hidden_act is relu"),
        ("bert", {"num_attention_heads": 3}, "hidden_size 8 is no multiple of 3 heads"),
        ("bert", {"position_embedding_type": "relative_key"}, "positions are relative_key"),
        ("roberta", {"is_decoder": True}, "causal"),
        ("gpt2", {"activation_function": "relu"}, "activation_function"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is gelu"),
        ("llama", {"num_attention_heads": 4, "num_key_value_heads": 3}, "4 heads do not share 3 keys evenly"),
        ("llama", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rotary positions of type 'yarn'"),
        ("llama", {"rope_scaling": {"rope_type": "linear"}}, "need 'factor'"),
        ("llama", {"rope_parameters": [1]}, "an object is due"),
    ],
)
def test_configurations_that_the_network_cannot_have(
    kind: str, change: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    write(kind, tmp_path, **change)
    with pytest.raises(ModelError, match=complaint):
        FAMILIES[kind].load(Checkpoint(tmp_path))


def test_null_means_the_default(tmp_path: Path) -> None:
    change = {"rope_scaling": None, "rope_theta": None, "head_dim": None, "attention_bias": None}
    assert load(write("llama", tmp_path, **change), "llama")


# ---------------------------------------------------------------------- shards
def shard(folder: Path, listed: Any) -> Checkpoint:
    weights = weights_of("gpt2")
    (folder / "model.safetensors").unlink(missing_ok=True)
    halves = list(weights)[::2], list(weights)[1::2]
    for index, names in enumerate(halves):
        save_file({name: weights[name] for name in names}, str(folder / f"part-{index}.safetensors"))
    (folder / "model.safetensors.index.json").write_text(json.dumps(listed))
    return Checkpoint(folder)


@pytest.mark.parametrize(
    ("listed", "complaint"),
    [
        ({"weight_map": {"a": "part-0.safetensors"}}, "missing from the checkpoint"),
        ({"weight_map": {"a": "part-0.safetensors", "b": "part-9.safetensors"}}, r"has no part-9\.safetensors"),
        ({"weight_map": {"a": "../part-0.safetensors"}}, "names files elsewhere"),
        ({"weight_map": {}}, "has no weight_map"),
        ({}, "has no weight_map"),
        ([], "holds no JSON object"),
    ],
)
def test_shards_that_do_not_add_up(listed: Any, complaint: str, tmp_path: Path) -> None:
    write("gpt2", tmp_path)
    with pytest.raises(ModelError, match=complaint):
        FAMILIES["gpt2"].load(shard(tmp_path, listed))


def test_a_weight_in_two_shards(tmp_path: Path) -> None:
    write("gpt2", tmp_path)
    checkpoint = shard(tmp_path, {"weight_map": {"a": "part-0.safetensors", "b": "part-1.safetensors"}})
    assert FAMILIES["gpt2"].load(checkpoint)
    save_file(weights_of("gpt2"), str(tmp_path / "part-1.safetensors"))
    with pytest.raises(ModelError, match=r"weight .* is in two of its files"):
        FAMILIES["gpt2"].load(checkpoint)


# ---------------------------------------------------------------------- memory
MEASURED = """
import sys
from hush.models import gpt2
from hush.models.checkpoint import Checkpoint
from pathlib import Path

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))

gpt2.FAMILY.initialise(gpt2.GPT2Config(8, 8, 8, 1, 1))  # loads what torch loads when it is first used so
before = peak()
net = gpt2.FAMILY.load(Checkpoint(Path(sys.argv[1])))
assert all(bool(p.isfinite().all()) for p in net.parameters())
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize(("dtype", "copies"), [(torch.float32, 1.0), (torch.float16, 1.5)])
def test_loading_holds_the_weights_once(dtype: torch.dtype, copies: float, tmp_path: Path) -> None:
    """Of half precision the mapped file is there beside the numbers made of it."""
    sizes = {"n_embd": 512, "n_layer": 8, "n_head": 8}
    weights = {name: torch.zeros_like(w, dtype=dtype) for name, w in weights_of("gpt2", **sizes).items()}
    write("gpt2", tmp_path, weights, **sizes)
    held = sum(4 * w.numel() for w in weights.values())
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    assert 0.9 * copies * held < int(done.stdout) < 1.2 * copies * held
