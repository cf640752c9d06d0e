"""What an HF checkpoint's `config.json` says about a model's inputs: texts, first decoder tokens, drawn examples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hush.models.checkpoint import Checkpoint
from hush.models.text import tokenise
from hush.mpc.errors import ModelError
from hush.parties.cli.inputs import arrange

Facts = Mapping[str, Any]
_PARTS = ("text_config", "vision_config", "decoder", "encoder")
_SHIFTS_ITS_INPUT = ("ForSequenceClassification", "ForQuestionAnswering")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
_SAMPLES = 4000  # of sound, where nothing says how many
_SIDE = 224  # of an image, where nothing says how large


def fact(facts: Facts, *names: str) -> Any:
    """The first of these entries that a configuration has, its parts' included; None if it has none."""
    for part in (facts, *(facts.get(name) or {} for name in _PARTS)):
        for name in names:
            if part.get(name) is not None:
                return part[name]
    return None


def positions(facts: Facts) -> int | None:
    """How many tokens a text may have; None for a model of relative positions that does not say."""
    found = fact(facts, *_POSITIONS)
    return found if isinstance(found, int) and found > 0 else None


def padding(facts: Facts) -> int:
    """The id that texts are padded with."""
    found = fact(facts, "pad_token_id")
    return found if isinstance(found, int) and 0 <= found < vocabulary(facts) else 0


def vocabulary(facts: Facts) -> int:
    """How many tokens there are."""
    return int(fact(facts, "vocab_size") or 2**31)


def decodes(facts: Facts) -> bool:
    """Whether a decoder is to be given its first token: some heads make its input from the text themselves."""
    heads = facts.get("architectures") or [""]
    return bool(facts.get("is_encoder_decoder")) and not str(heads[0]).endswith(_SHIFTS_ITS_INPUT)


def decoder_ids(checkpoint: Checkpoint, facts: Facts) -> Tensor:
    """[1, 1]: the id that a decoder starts from; ModelError if the checkpoint does not name one."""
    for source in (_generation(checkpoint.folder), facts):
        found = fact(source, "decoder_start_token_id")
        if isinstance(found, int):
            return torch.tensor([[found]])
    found = fact(facts, "bos_token_id", "pad_token_id")
    if not isinstance(found, int):
        raise ModelError(f"{checkpoint.folder} names no decoder_start_token_id: give decoder_input_ids by --input")
    return torch.tensor([[found]])


def _generation(folder: Path) -> Facts:
    path = folder / "generation_config.json"
    try:
        found = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from None
    return found if isinstance(found, dict) else {}


def text_call(checkpoint: Checkpoint, takes: list[str], text: str, length: int | None) -> tuple[Any, ...]:
    """Arguments of an HF model for a text, padded to `length` (default: the text's bucket)."""
    facts = checkpoint.config
    ids, mask = tokenise(checkpoint.tokenizer, text, length, padding(facts))
    named = text_arguments(checkpoint, facts, ids, mask)
    return arrange({n: t for n, t in named.items() if n in takes}, takes, checkpoint.folder)


def text_arguments(checkpoint: Checkpoint, facts: Facts, ids: Tensor, mask: Tensor) -> dict[str | int, Tensor]:
    """A text's arguments by name: ids and mask, and for a decoder behind an encoder its first token."""
    named: dict[str | int, Tensor] = {"input_ids": ids, "attention_mask": mask.long()}
    if decodes(facts):
        named["decoder_input_ids"] = decoder_ids(checkpoint, facts)
    return named


def drawn(facts: Facts, name: str, length: int | None, seed: int) -> Tensor | None:
    """A random argument of the shape that the configuration asks for; None for a name that it says nothing about."""
    generator = torch.Generator().manual_seed(seed)  # a public example: nothing secret is drawn from it
    if name == "input_ids":
        return torch.randint(vocabulary(facts), (1, length or min(16, positions(facts) or 16)), generator=generator)
    shape = _shape(facts, name, length)
    return None if shape is None else torch.randn(shape, generator=generator)


def _shape(facts: Facts, name: str, length: int | None) -> tuple[int, ...] | None:
    if name == "pixel_values":
        return _image(facts.get("vision_config") or facts.get("encoder") or facts)
    if name == "input_features":
        if fact(facts, "num_mel_bins") is not None:
            return (1, fact(facts, "num_mel_bins"), length or 2 * (fact(facts, "max_source_positions") or 1500))
        width = fact(facts, "input_feat_per_channel", "feature_projection_input_dim", "feature_size")
        return None if width is None else (1, length or 64, width)
    if name == "input_values":
        if facts.get("num_mel_bins") and facts.get("max_length"):
            return (1, facts["max_length"], facts["num_mel_bins"])
        return (1, length or _SAMPLES)
    if name == "past_values" and facts.get("context_length"):
        return (1, facts["context_length"], facts.get("num_input_channels") or 1)
    return None


def _image(facts: Facts) -> tuple[int, ...]:
    size = facts.get("image_size") or facts.get("input_size") or _SIDE
    if isinstance(size, Mapping):
        size = [size["height"], size["width"]]
    sides = (size, size) if isinstance(size, int) else tuple(size)
    channels = facts.get("num_channels") or facts.get("in_channels") or 3
    frames = (facts["num_frames"],) if facts.get("num_frames") else ()
    return (1, *frames, int(channels), *map(int, sides))
