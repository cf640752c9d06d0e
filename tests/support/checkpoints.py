"""Small checkpoints in the HF layout, written from our own networks' shapes, with a tokenizer of whole words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

from hush.models import bert, gpt2, llama, roberta
from hush.models.language import Family

WORDS = ("a", "cat", "sat", "on", "the", "mat", "privacy", "matters", ".")
_SIZES = {"vocab_size": 23, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {**_SIZES, "max_position_embeddings": 24},
    "roberta": {**_SIZES, "max_position_embeddings": 26, "type_vocab_size": 1, "pad_token_id": 1},
    "gpt2": {"vocab_size": 23, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 24},
    "llama": {**_SIZES, "num_key_value_heads": 1, "max_position_embeddings": 24},
}
FAMILIES: dict[str, Family] = {m.FAMILY.kind: m.FAMILY for m in (bert, roberta, gpt2, llama)}
MODELS = {"bert": "bert-base", "roberta": "roberta-base", "gpt2": "gpt2-base", "llama": "llama-7b"}
_READ: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "bert": bert.BertConfig.from_json,
    "roberta": roberta.RobertaConfig.from_json,
    "gpt2": gpt2.GPT2Config.from_json,
    "llama": llama.LlamaConfig.from_json,
}


def weights_of(kind: str, **config: Any) -> dict[str, Tensor]:
    """Random weights under the network's own names, of order 1 where they are looked up."""
    with torch.device("meta"):
        shapes = {n: p.shape for n, p in FAMILIES[kind].network(_READ[kind](CONFIGS[kind] | config)).named_parameters()}
    numbers = torch.Generator().manual_seed(7)
    scale = {name: 1.0 if "embed" in name or name.startswith("w") else 0.2 for name in shapes}
    return {
        name: torch.randn(shape, generator=numbers) * scale[name] + (len(shape) == 1 and name.endswith("weight"))
        for name, shape in shapes.items()
    }


def write(kind: str, folder: Path, weights: Mapping[str, Tensor] | None = None, **config: Any) -> Path:
    """A folder with config.json, model.safetensors and tokenizer.json."""
    (folder / "config.json").write_text(json.dumps({"model_type": kind} | CONFIGS[kind] | config))
    save_file(dict(weights_of(kind) if weights is None else weights), str(folder / "model.safetensors"))
    tokenizer = Tokenizer(models.WordLevel({w: i + 5 for i, w in enumerate(WORDS)} | {"?": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
