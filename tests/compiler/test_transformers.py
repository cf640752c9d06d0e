"""More of transformers' architectures, small and random: encoders, decoders, encoder-decoders, vision and speech, with
secret masks, on shares within their bounds of plaintext and at the predicted cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.programs import check

transformers = pytest.importorskip("transformers")

Case = tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]
_IDS = torch.tensor([[3, 17, 42, 8, 29, 4]])
_TARGET = torch.tensor([[3, 5, 9]])
_MASK = {"attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0]])}
_RANGE = {"initializer_range": 0.1}
_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_TEXT = {"vocab_size": 50, "max_position_embeddings": 16, **_SIZES}
_ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
_IMAGE = {"image_size": 8, "patch_size": 4, **_SIZES}
_PAIR = {
    "vocab_size": 50, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "init_std": 0.1,
}  # fmt: skip

# Largest error over all float outputs, whose size is of order 1. What is above comes of one function's own declared
# error, which the residual stream and the norms behind it enlarge: SiLU's, 0.006, and CLIP's GELU's, 0.0035. The whole
# CLIP's logits are cosines, off by 2e-3 at most, times its published initial scale exp(2.6592) = 14.3.
BOUND, SILU, QUICK_GELU = 5e-3, 2e-2, 1.5e-2
CLIP_LOGITS = 14.3 * 2e-3


def _made(name: str, config: str, args: tuple[Any, ...], more: dict[str, Any] | None = None, **sizes: Any) -> Case:
    network = getattr(transformers, name)(getattr(transformers, config)(**sizes))
    return network, args, more or {}


def _distilbert() -> Case:
    sizes = {"vocab_size": 50, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 16}
    return _made("DistilBertModel", "DistilBertConfig", (_IDS,), _MASK, **sizes, **_RANGE)


def _opt() -> Case:
    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64}
    rest = {"max_position_embeddings": 16, "word_embed_proj_dim": 16, "init_std": 0.1}
    return _made("OPTForCausalLM", "OPTConfig", (_IDS,), _MASK, **sizes, **rest)


def _decoder(family: str, **more: Any) -> Case:
    return _made(f"{family}ForCausalLM", f"{family}Config", (_IDS,), **_TEXT, **_ENDS, **_RANGE, **more)


def _bart(name: str, **more: Any) -> Case:
    return _made(name, "BartConfig", (_IDS,), more, max_position_embeddings=16, **_PAIR)


def _t5(**more: Any) -> Case:
    sizes = {"vocab_size": 50, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    given = {"decoder_input_ids": _TARGET, **_MASK}
    return _made("T5ForConditionalGeneration", "T5Config", (_IDS,), given, decoder_start_token_id=0, **sizes, **more)


_CLIP_TEXT = {"projection_dim": 16, "eos_token_id": 49, "bos_token_id": 48, "pad_token_id": 1, **_TEXT}
_CLIP_VISION = {"projection_dim": 16, **_IMAGE}
_CAPTION = torch.tensor([[48, 17, 42, 8, 49, 1]])


def _clip() -> Case:
    sizes = {"text_config": _CLIP_TEXT, "vision_config": _CLIP_VISION, "projection_dim": 16}
    return _made("CLIPModel", "CLIPConfig", (_CAPTION, torch.randn(2, 3, 8, 8)), **sizes)


_SPEECH = {
    "num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": 10, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 3, **_PAIR,
}  # fmt: skip


def _whisper() -> Case:
    given = {"decoder_input_ids": _TARGET}
    name = "WhisperForConditionalGeneration"
    return _made(name, "WhisperConfig", (torch.randn(1, 8, 16),), given, **_SPEECH)


def _whisper_decoder() -> Case:
    from transformers.models.whisper.modeling_whisper import WhisperDecoder

    states = {"encoder_hidden_states": torch.randn(1, 8, 32)}
    return WhisperDecoder(transformers.WhisperConfig(**_SPEECH)), (_TARGET,), states


CASES: dict[str, tuple[Callable[[], Case], float]] = {
    "distilbert": (_distilbert, BOUND),
    "roberta": (
        lambda: _made("RobertaForSequenceClassification", "RobertaConfig", (_IDS,), _MASK, **_TEXT, **_RANGE),
        BOUND,
    ),
    "opt": (_opt, BOUND),
    "gpt-neox": (lambda: _decoder("GPTNeoX"), BOUND),
    "mistral": (lambda: _decoder("Mistral", num_key_value_heads=1, sliding_window=4), SILU),
    "qwen2": (lambda: _decoder("Qwen2", num_key_value_heads=1), SILU),
    "gemma": (lambda: _decoder("Gemma", num_key_value_heads=1, head_dim=16), BOUND),
    "phi": (lambda: _decoder("Phi"), BOUND),
    "albert": (
        lambda: _made("AlbertModel", "AlbertConfig", (_IDS,), _MASK, embedding_size=16, **_TEXT, **_RANGE),
        BOUND,
    ),
    "electra": (
        lambda: _made("ElectraForPreTraining", "ElectraConfig", (_IDS,), _MASK, embedding_size=16, **_TEXT, **_RANGE),
        BOUND,
    ),
    "bart": (lambda: _bart("BartModel", decoder_input_ids=_TARGET, **_MASK), BOUND),
    "bart-shifts-its-ids": (lambda: _bart("BartForConditionalGeneration"), BOUND),
    "t5": (_t5, BOUND),
    "t5-gated": (lambda: _t5(feed_forward_proj="gated-gelu"), BOUND),
    "deit": (
        lambda: _made("DeiTForImageClassification", "DeiTConfig", (torch.randn(1, 3, 8, 8),), **_IMAGE, **_RANGE),
        BOUND,
    ),
    "clip-text": (lambda: _made("CLIPTextModel", "CLIPTextConfig", (_CAPTION,), **_CLIP_TEXT), QUICK_GELU),
    "clip-vision": (
        lambda: _made("CLIPVisionModel", "CLIPVisionConfig", (torch.randn(1, 3, 8, 8),), **_CLIP_VISION),
        QUICK_GELU,
    ),
    "clip": (_clip, CLIP_LOGITS),
    "whisper": (_whisper, BOUND),
    "whisper-decoder": (_whisper_decoder, BOUND),
}


@pytest.mark.parametrize("name", CASES)
def test_architecture_runs_on_shares_within_its_bound_at_the_predicted_cost(name: str) -> None:
    build, bound = CASES[name]
    torch.manual_seed(7)
    module, args, kwargs = build()
    if getattr(module.config, "use_cache", False):
        kwargs = {**kwargs, "use_cache": False}
    program = check(module, args, kwargs, bound=bound)
    assert program.cost is not None
    assert program.cost.rounds > 50
