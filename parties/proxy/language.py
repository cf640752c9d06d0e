"""A model's language: text to tokens and back, with what marks a conversation and its end. All of it stays here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from hush.models import minilm
from hush.models.checkpoint import Checkpoint, find_checkpoint, from_source
from hush.mpc.errors import ModelError, UserError
from hush.parties.proxy.reading import Decode

Message = Mapping[str, str]
PACKAGES = {"minilm": minilm.PACKAGE}  # installed packages that carry a model's checkpoint
FILES = ("*.json", "*.jinja")  # of a hub id: a tokenizer needs no weights
ROLES = ("system", "user", "assistant")
_TAIL = 6  # tokens of the prompt that an answer is decoded after, for the space before its first word


@dataclass(frozen=True)
class Language:
    """Tokenizer, chat template and stop tokens of a checkpoint's folder."""

    checkpoint: Checkpoint

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """As the checkpoint has it."""
        try:
            return self.checkpoint.tokenizer
        except ModelError:
            raise
        except Exception as error:  # tokenizers raises nothing more precise
            raise ModelError(f"{self.checkpoint.folder}: tokenizer.json cannot be read: {error}") from None

    # ------------------------------------------------------------------ text
    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids, with those that the tokenizer puts around a text if `special`."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=special).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text, without special tokens."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def following(self, prompt: Sequence[int]) -> Decode:
        """How to decode what comes after a prompt. Alone, a first word would lose the space before it."""
        tail = list(prompt[-_TAIL:])
        before = self.decode(tail).rstrip("\ufffd")

        def decode(ids: Sequence[int]) -> str:
            whole = self.decode([*tail, *ids])
            return whole[len(before) :] if whole.startswith(before) else self.decode(ids)

        return decode

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer: those of generation_config.json, config.json and tokenizer_config.json."""
        found: set[int] = set()
        for name in ("generation_config.json", "config.json"):
            value = self._json(name).get("eos_token_id")
            found |= {int(i) for i in (value if isinstance(value, list) else [value]) if isinstance(i, int)}
        named = self.special.get("eos_token")
        known = None if named is None else self.tokenizer.token_to_id(named)
        return tuple(sorted(found if known is None else found | {known}))

    @property
    def pad_id(self) -> int:
        """What texts are padded with; where nothing is declared, 0: the mask hides it."""
        value = self._json("config.json").get("pad_token_id")
        return value if isinstance(value, int) and value >= 0 else 0

    # ------------------------------------------------------------------ conversations
    def conversation(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation up to where its answer begins: by the checkpoint's chat template, else `role: text`."""
        if self.template is None:
            return self.encode(plain(messages))
        try:
            from hush.parties.proxy.template import render
        except ImportError:
            raise UserError("the model has a chat template, which needs: pip install 'hush[proxy]'") from None
        return self.encode(render(self.template, messages, self.special), special=False)

    @property
    def turns(self) -> tuple[str, ...]:
        """Stop strings of a conversation without a template: the model goes on with the other's turn."""
        return () if self.template is not None else tuple(f"\n{role}:" for role in ROLES)

    @cached_property
    def template(self) -> str | None:
        """`chat_template.jinja`, else `chat_template` of tokenizer_config.json, of several the one called default."""
        path = self.checkpoint.folder / "chat_template.jinja"
        if path.is_file():
            return path.read_text()
        found = self._json("tokenizer_config.json").get("chat_template")
        if isinstance(found, list):
            found = next((t.get("template") for t in found if t.get("name") == "default"), None)
        return found if isinstance(found, str) else None

    @cached_property
    def special(self) -> dict[str, str]:
        """Special tokens by their role, as templates use them: bos_token, eos_token and the like."""
        found = {}
        for name, value in self._json("tokenizer_config.json").items():
            token = value.get("content") if isinstance(value, dict) else value
            if name.endswith("_token") and isinstance(token, str):
                found[name] = token
        return found

    def _json(self, name: str) -> dict[str, Any]:
        """A file that need not be there."""
        path = self.checkpoint.folder / name
        if not path.is_file():
            return {}
        try:
            value = json.loads(path.read_text())
        except ValueError as error:
            raise ModelError(f"{path} is not valid JSON: {error}") from None
        return value if isinstance(value, dict) else {}


def plain(messages: Sequence[Message]) -> str:
    """A conversation for a model without a chat format: a line `role: text` each, and `assistant:` to go on from."""
    return "".join(f"{m['role']}: {m['content']}\n" for m in messages) + "assistant:"


@dataclass
class Languages:
    """The languages of models: `sources` has a folder or hub id by model; others are found by their name."""

    sources: Mapping[str, str] = field(default_factory=dict)
    _known: dict[str, Language] = field(default_factory=dict)

    def of(self, model: str) -> Language:
        """ModelError if it has no tokenizer here."""
        if model not in self._known:
            language = Language(self._find(model))
            _ = language.tokenizer
            self._known[model] = language
        return self._known[model]

    def _find(self, model: str) -> Checkpoint:
        if model in self.sources:
            return from_source(self.sources[model], FILES)
        if model in PACKAGES:
            return find_checkpoint(model, PACKAGES[model])
        if re.fullmatch(r"[\w.-]+", model) and (Path(model) / "tokenizer.json").is_file():
            return Checkpoint(Path(model))
        raise ModelError(f"{model} has no tokenizer here: start with --tokenizer {model}=FOLDER (or a hub id)")


def parse_sources(given: Sequence[str]) -> dict[str, str]:
    """`MODEL=FOLDER` options. UserError for anything else."""
    found = {}
    for item in given:
        model, equals, source = item.partition("=")
        if not (model and equals and source):
            raise UserError(f"--tokenizer {item}: say MODEL=FOLDER, or MODEL=OWNER/NAME for a hub id")
        found[model] = source
    return found
