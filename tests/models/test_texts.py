"""From a checkpoint's folder and a text to a program and its input, and what is refused on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.checkpoints import CONFIGS, MODELS, write

from hush.models import registry
from hush.mpc.errors import ModelError, UserError
from hush.parties.cli.sources import resolve
from hush.parties.compare import errors
from hush.parties.threads import ThreadTrio

TEXT = "the cat sat on the mat ."
BOUND = {"bert": 5e-3, "roberta": 5e-3, "gpt2": 5e-3, "llama": 2e-2}
ENCODERS, DECODERS = ("bert", "roberta"), ("gpt2", "llama")


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_get_texts_padded_to_buckets(kind: str, tmp_path: Path) -> None:
    entry = registry.get(MODELS[kind], str(write(kind, tmp_path)))
    assert entry.from_text is not None
    ids, mask = entry.from_text(TEXT, None, None)
    assert ids.tolist()[0][:7] == [9, 6, 7, 8, 9, 10, 13]
    assert ids[0, 7:].tolist() == [CONFIGS[kind].get("pad_token_id", 0)] * 9
    assert mask.tolist() == [[True] * 7 + [False] * 9]
    assert entry.from_text("cat " * 20, None, None)[0].shape == (1, 24)  # the longest there is, and no bucket of 32
    with pytest.raises(UserError, match="has 25 tokens; the longest compiled length is 24"):
        entry.from_text("cat " * 25, None, None)


@pytest.mark.parametrize("kind", DECODERS)
def test_decoders_get_texts_as_long_as_they_are(kind: str, tmp_path: Path) -> None:
    entry = registry.get(MODELS[kind], str(write(kind, tmp_path)))
    assert entry.from_text is not None
    (ids,) = entry.from_text(TEXT, None, None)
    assert ids.tolist() == [[9, 6, 7, 8, 9, 10, 13]]
    (padded,) = entry.from_text(TEXT, 9, None)
    with torch.no_grad():
        module = entry.build("checkpoint", None)
        assert torch.allclose(module(padded)[:, :7], module(ids), rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="has 7 tokens, the program was compiled for 6"):
        entry.from_text(TEXT, 6, None)
    with pytest.raises(UserError, match="has 25 tokens, the program was compiled for 24"):
        entry.from_text("cat " * 25, None, None)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_text_on_shares(kind: str, tmp_path: Path) -> None:
    """A checkpoint of other sizes than the registered ones, its ranges from public texts; nothing promises a bound."""
    source = resolve(MODELS[kind], text=TEXT, checkpoint=str(write(kind, tmp_path)))
    assert (source.size, source.err_bound) == ("checkpoint", None)
    program = source.compile()
    assert [spec.kind for spec in program.inputs] == (["onehot", "bool"] if kind in ENCODERS else ["onehot"])
    with torch.inference_mode():
        plain = source.module(*source.call)
    with ThreadTrio(program) as trio:
        done = trio.infer(source.call)
    assert errors(plain, done.output)[0] <= BOUND[kind]
    assert done.report.cost == program.cost


@pytest.mark.parametrize("kind", CONFIGS)
def test_texts_need_a_checkpoint_with_a_tokenizer(kind: str, tmp_path: Path) -> None:
    entry = registry.get(MODELS[kind])
    assert entry.from_text is not None
    with pytest.raises(ModelError, match=f"{MODELS[kind]} needs its checkpoint: name a local folder or a hub id"):
        entry.from_text(TEXT, None, None)
    (write(kind, tmp_path) / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        entry.from_text(TEXT, None, str(tmp_path))
    assert resolve(MODELS[kind], checkpoint=str(tmp_path), seq=4).calls  # ids can be given without one
    with pytest.raises(UserError, match="the text is empty"):
        entry.from_text(" ", None, str(write(kind, tmp_path)))


def test_more_positions_than_the_context() -> None:
    for model in MODELS.values():
        with pytest.raises(ModelError, match="takes 1 to 64 positions, not 65"):
            resolve(model, seq=65)
