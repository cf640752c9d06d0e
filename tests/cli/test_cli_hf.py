"""`hush run hf:FOLDER`: checkpoints that transformers wrote, of every kind of network, and some that are not right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from hush.mpc.errors import HushWarning
from hush.parties.cli import main
from hush.parties.cli.hf_inputs import drawn, padding, positions
from hush.parties.cli.hugging_face import load

transformers = pytest.importorskip("transformers")

SENTENCES = "the quick brown fox jumps over lazy dog yes . where is my passport ?"
WORDS = ["<pad>", "<unk>", "<s>", "</s>", *SENTENCES.split(" ")]
TEXT = "where is my passport ?"
_SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
_PAIR = {
    "vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
}  # fmt: skip
_IMAGE = {k: v for k, v in _SMALL.items() if k != "vocab_size"} | {"image_size": 8, "patch_size": 4}
_ENDS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}


def _encoder() -> Any:
    """With a head, and stored in half precision."""
    config = transformers.DistilBertConfig(vocab_size=40, dim=16, n_layers=1, n_heads=2, hidden_dim=24, num_labels=3)
    return transformers.DistilBertForSequenceClassification(config).to(torch.bfloat16)


def _decoder() -> Any:
    """Whose window is shorter than the padding."""
    config = transformers.MistralConfig(num_key_value_heads=1, sliding_window=4, **_ENDS, **_SMALL)
    return transformers.MistralForCausalLM(config)


def _both() -> Any:
    config = transformers.BartConfig(max_position_embeddings=24, decoder_start_token_id=3, **_ENDS, **_PAIR)
    return transformers.BartForConditionalGeneration(config)


def _t5() -> Any:
    config = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config)


def _vision() -> Any:
    return transformers.ViTForImageClassification(transformers.ViTConfig(**_IMAGE))


def _towers() -> Any:
    text = {"max_position_embeddings": 20, "projection_dim": 8, **_ENDS, **_SMALL}
    config = transformers.CLIPConfig(text_config=text, vision_config={"projection_dim": 8, **_IMAGE}, projection_dim=8)
    return transformers.CLIPModel(config)


def _speech() -> Any:
    config = transformers.WhisperConfig(
        num_mel_bins=8, max_source_positions=6, max_target_positions=10, decoder_start_token_id=3, **_ENDS, **_PAIR
    )
    return transformers.WhisperForConditionalGeneration(config)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[], Any]], Path]:
    """Writes each network once, with a tokenizer if it reads."""
    root, made = tmp_path_factory.mktemp("checkpoints"), dict[str, Path]()

    def folder(build: Callable[[], Any]) -> Path:
        if build.__name__ not in made:
            torch.manual_seed(5)
            made[build.__name__] = root / build.__name__
            network = build()
            network.save_pretrained(root / build.__name__)
            if network.main_input_name == "input_ids":
                tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
                tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
                tokenizer.save(str(root / build.__name__ / "tokenizer.json"))
        return made[build.__name__]

    return folder


RUNS: list[tuple[Callable[[], Any], list[str], list[tuple[int, ...]], float]] = [
    (_encoder, ["--text", TEXT], [(1, 3)], 5e-3),
    (_decoder, ["--text", TEXT], [(1, 16, 40)], 2e-2),  # the declared error of SiLU
    (_both, ["--text", TEXT], [(1, 1, 40), (1, 16, 16)], 5e-3),
    (_t5, ["--text", TEXT, "--seq", "8"], [(1, 1, 40), (1, 8, 16)], 5e-3),
    (_vision, [], [(1, 2)], 5e-3),
    (
        _towers,
        ["--text", TEXT],
        [(1, 1), (1, 1), (1, 8), (1, 8), (1, 16, 16), (1, 8), (1, 5, 16), (1, 8)],
        5e-2,
    ),  # cosines 14-fold
    (_speech, [], [(1, 1, 40), (1, 6, 16)], 5e-3),
]


@pytest.mark.parametrize(("build", "args", "shapes", "bound"), RUNS, ids=[r[0].__name__[1:] for r in RUNS])
def test_run(
    build: Callable[[], Any],
    args: list[str],
    shapes: list[tuple[int, ...]],
    bound: float,
    checkpoints: Callable[[Callable[[], Any]], Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = checkpoints(build)
    capfd.readouterr()
    assert main(["run", f"hf:{folder}", "--link", "memory", "--json", *args]) == 0
    row = json.loads(capfd.readouterr().out)
    assert row["predicted"] == {key: row[key] for key in ("rounds", "bytes_sent", "messages")}
    assert row["max_abs_err"] <= bound
    assert [np.shape(o) for o in row["output"]] == shapes


def test_a_causal_network_needs_no_mask(checkpoints: Callable[[Callable[[], Any]], Path]) -> None:
    """Nothing in front of the padding sees it: the mask goes, and with it rows that see padding alone."""
    assert len(load(f"hf:{checkpoints(_decoder)}", text=TEXT).call) == 1
    masked = load(f"hf:{checkpoints(_encoder)}", text=TEXT)
    assert masked.call[1].sum() == 5
    assert masked.module.dtype is torch.float32


def test_example_images_and_lengths_come_from_the_configuration(
    checkpoints: Callable[[Callable[[], Any]], Path],
) -> None:
    made = load(f"hf:{checkpoints(_vision)}")
    assert made.call[0].shape == made.example[0].shape == (1, 3, 8, 8)
    assert not torch.equal(made.call[0], made.example[0])
    assert load(f"hf:{checkpoints(_speech)}").call[0].shape == (1, 8, 12)
    assert drawn({"image_size": [6, 4], "num_channels": 1}, "pixel_values", None, 0).shape == (1, 1, 6, 4)  # type: ignore[union-attr]
    assert drawn({"num_frames": 2, "image_size": 4}, "pixel_values", None, 0).shape == (1, 2, 3, 4, 4)  # type: ignore[union-attr]
    assert drawn({}, "bbox", None, 0) is None
    assert positions({"text_config": {"max_position_embeddings": 77}}) == 77
    assert padding({"vocab_size": 8, "pad_token_id": -1}) == padding({"vocab_size": 8, "pad_token_id": 9}) == 0


def _edited(folder: Path, to: Path, **changes: Any) -> Path:
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text()) | changes
    (to / "config.json").write_text(json.dumps(config))
    return to


def _weights(folder: Path, to: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    _edited(folder, to)
    held = load_file(to / "model.safetensors")
    change(held)
    save_file(held, to / "model.safetensors", metadata={"format": "pt"})
    return to


WRONG: dict[str, tuple[Callable[[Path, Path], Path], list[str], str]] = {
    "type": (lambda f, t: _edited(f, t, model_type="novel"), [], "unknown architecture 'novel'"),
    "class": (lambda f, t: _edited(f, t, architectures=["NovelForAll"]), [], "unknown architecture 'NovelForAll'"),
    "missing": (lambda f, t: _edited(f, t, n_layers=2), [], "weights missing from the checkpoint: distilbert.transf"),
    "misshapen": (
        lambda f, t: _weights(f, t, lambda held: held.update({"classifier.bias": torch.ones(4)})), [],
        "weight classifier.bias has shape (4,), the network needs (3,)",
    ),
    "long": (lambda f, t: _edited(f, t), ["--text", "fox " * 600], "the text has 600 tokens; the longest"),
    "length": (lambda f, t: _edited(f, t), ["--seq", "600"], "takes 1 to 512 positions, not 600"),
    "vocabulary": (
        lambda f, t: _weights(
            _edited(f, t.with_name("small"), vocab_size=12), t,
            lambda held: held.update({_TABLE: held[_TABLE][:12].clone()}),
        ), ["--text", TEXT], "its tokenizer gives id 18, and the model knows 12 tokens",
    ),
}  # fmt: skip
_TABLE = "distilbert.embeddings.word_embeddings.weight"


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line(
    name: str,
    checkpoints: Callable[[Callable[[], Any]], Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    spoil, args, complaint = WRONG[name]
    folder = spoil(checkpoints(_encoder), tmp_path / "spoilt")
    capfd.readouterr()
    assert main(["run", f"hf:{folder}", "--link", "memory", *args]) == 1
    out, err = capfd.readouterr()
    assert complaint in err
    assert err.count("\n") == 1
    assert not out


def test_a_missing_tokenizer(checkpoints: Callable[[Callable[[], Any]], Path], tmp_path: Path, capfd: Any) -> None:
    """Texts need one; without a text, ids are drawn."""
    folder = _edited(checkpoints(_encoder), tmp_path / "bare")
    (folder / "tokenizer.json").unlink()
    assert main(["run", f"hf:{folder}", "--text", TEXT]) == 1
    assert "has no tokenizer that can be read" in capfd.readouterr().err
    assert load(f"hf:{folder}").call[0].shape == (1, 16)


def test_a_text_for_what_reads_none(checkpoints: Callable[[Callable[[], Any]], Path], capfd: Any) -> None:
    assert main(["run", f"hf:{checkpoints(_vision)}", "--text", TEXT]) == 1
    assert "takes no text, but pixel_values" in capfd.readouterr().err


def test_superfluous_weights_are_warned_of(checkpoints: Callable[[Callable[[], Any]], Path], tmp_path: Path) -> None:
    folder = _weights(checkpoints(_encoder), tmp_path / "more", lambda held: held.update({"extra": torch.ones(2)}))
    with pytest.warns(HushWarning, match="no place for: extra"):
        load(f"hf:{folder}", text=TEXT)


def test_a_network_that_does_not_export(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its control flow depends on values: one error that says so, without torch's report of it."""
    config = transformers.LongformerConfig(attention_window=[4], max_position_embeddings=24, pad_token_id=0, **_SMALL)
    transformers.LongformerModel(config).save_pretrained(tmp_path)
    capfd.readouterr()
    assert main(["run", f"hf:{tmp_path}", "--link", "memory"]) == 1
    err = capfd.readouterr().err
    assert "torch.export cannot capture LongformerModel" in err
    assert "torch.ops.aten" not in err
