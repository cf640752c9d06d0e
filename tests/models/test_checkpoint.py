"""Checkpoints: the real MiniLM against sentence-transformers, and every way a folder can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hush.models import registry
from hush.models.bert import Bert, BertConfig
from hush.models.checkpoint import Checkpoint, find_checkpoint, from_source
from hush.models.minilm import PACKAGE, MiniLM
from hush.models.text import bucket, tokenise
from hush.mpc.errors import ModelError, UserError

SENTENCES = ("A cat sat on the mat.", "Privacy is not secrecy.", "Where can I renew my passport?")


def test_minilm_equals_sentence_transformers() -> None:
    transformers = pytest.importorskip("sentence_transformers")
    checkpoint = find_checkpoint("minilm", PACKAGE)
    reference = torch.tensor(transformers.SentenceTransformer(str(checkpoint.folder), device="cpu").encode(SENTENCES))
    model = registry.get("minilm").build("paper", None)
    with torch.no_grad():
        ours = torch.cat([model(*tokenise(checkpoint.tokenizer, text)) for text in SENTENCES])
    assert (ours - reference).abs().max() < 1e-5


def test_minilm_parameter_count() -> None:
    # 22,713,216 published, less the unused pooler's 384 * 384 + 384
    assert registry.get("minilm").sizes["paper"].parameters() == 22_713_216 - 384 * 385


def test_bert_base_parameter_count() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in Bert(BertConfig()).parameters()) == 109_482_240


def tiny(folder: Path, shards: int = 1, **changes: torch.Tensor | None) -> MiniLM:
    config = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config |= {"intermediate_size": 16, "max_position_embeddings": 16}
    model = MiniLM(BertConfig.from_json(config)).eval()
    weights = {k: v for k, v in (dict(model.state_dict()) | changes).items() if v is not None}
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(weights, str(folder / "model.safetensors"))
        return model
    index = {name: f"model-{i % shards}.safetensors" for i, name in enumerate(weights)}
    for file in set(index.values()):
        save_file({n: w for n, w in weights.items() if index[n] == file}, str(folder / file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return model


@pytest.mark.parametrize("shards", [1, 3])
def test_folder_round_trip(tmp_path: Path, shards: int) -> None:
    saved = tiny(tmp_path, shards)
    checkpoint = from_source(str(tmp_path))
    loaded = MiniLM(BertConfig.from_json(checkpoint.config))
    checkpoint.load_into(loaded)
    for name, weight in saved.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"encoder.layer.0.output.dense.bias": None}, "missing from the checkpoint: encoder.layer.0.output.dense.bias"),
        ({"encoder.layer.0.output.dense.bias": torch.zeros(9)}, r"dense.bias has shape \(9,\)"),
        ({"stray": torch.zeros(1)}, "no place in MiniLM: stray"),
    ],
)
def test_wrong_weights_are_named(tmp_path: Path, change: dict[str, torch.Tensor | None], complaint: str) -> None:
    model = tiny(tmp_path, **change)
    with pytest.raises(ModelError, match=complaint):
        Checkpoint(tmp_path).load_into(model)


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        from_source(str(tmp_path / "absent"))
    with pytest.raises(ModelError, match=r"no config\.json"):
        _ = Checkpoint(tmp_path).config
    with pytest.raises(ModelError, match="holds no safetensors weights"):
        list(Checkpoint(tmp_path).tensors())
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        list(Checkpoint(tmp_path).tensors())


def test_unknown_model_and_size() -> None:
    with pytest.raises(ModelError, match="no model 'nope'"):
        registry.get("nope")
    with pytest.raises(ModelError, match="no size 'huge'"):
        registry.get("minilm").size("huge")


def test_tokenise_pads_to_buckets() -> None:
    tokenizer = find_checkpoint("minilm", PACKAGE).tokenizer
    ids, mask = tokenise(tokenizer, "hello world")
    assert ids.shape == mask.shape == (1, 16)
    assert mask.sum() == 4
    assert ids[0, 0] == 101
    assert [bucket(n) for n in (1, 16, 17, 512)] == [16, 16, 32, 512]
    with pytest.raises(UserError, match="empty"):
        tokenise(tokenizer, "  \n")
    with pytest.raises(UserError, match="compiled for 16"):
        tokenise(tokenizer, "word " * 40, 16)
    with pytest.raises(UserError, match="longest compiled length"):
        tokenise(tokenizer, "word " * 600)
