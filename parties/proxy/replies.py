"""The bodies of answers, as OpenAI's clients read them."""

from __future__ import annotations

import base64
import json
import secrets
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Reply = dict[str, Any]
DONE = b"data: [DONE]\n\n"


@dataclass(slots=True)
class Usage:
    """Tokens of a request: read, and made."""

    prompt: int = 0
    made: int = 0

    def reply(self) -> Reply:
        """As OpenAI counts."""
        total = self.prompt + self.made
        return {"prompt_tokens": self.prompt, "completion_tokens": self.made, "total_tokens": total}


@dataclass(frozen=True, slots=True)
class Completions:
    """Answers of /v1/completions."""

    model: str
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, texts: Sequence[tuple[str, str]], usage: Usage) -> Reply:
        """From (text, finish_reason) of each choice."""
        choices = [self._choice(i, text, reason) for i, (text, reason) in enumerate(texts)]
        return self._head() | {"choices": choices, "usage": usage.reply()}

    def opening(self, index: int) -> list[Reply]:
        """Chunks before a choice's text: none."""
        return []

    def piece(self, index: int, text: str) -> Reply:
        """A chunk with text."""
        return self._head() | {"choices": [self._choice(index, text, None)]}

    def end(self, index: int, reason: str) -> Reply:
        """A choice's last chunk."""
        return self._head() | {"choices": [self._choice(index, "", reason)]}

    def bill(self, usage: Usage) -> Reply:
        """The chunk with what it took."""
        return self._head() | {"choices": [], "usage": usage.reply()}

    def _head(self) -> Reply:
        return {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}

    def _choice(self, index: int, text: str, reason: str | None) -> Reply:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


@dataclass(frozen=True, slots=True)
class Chats:
    """Answers of /v1/chat/completions."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, texts: Sequence[tuple[str, str]], usage: Usage) -> Reply:
        """From (text, finish_reason) of each choice."""
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": reason,
            }
            for i, (text, reason) in enumerate(texts)
        ]
        return self._head("chat.completion") | {"choices": choices, "usage": usage.reply()}

    def opening(self, index: int) -> list[Reply]:
        """The chunk that says who speaks."""
        return [self._chunk(index, {"role": "assistant", "content": ""}, None)]

    def piece(self, index: int, text: str) -> Reply:
        """A chunk with text."""
        return self._chunk(index, {"content": text}, None)

    def end(self, index: int, reason: str) -> Reply:
        """A choice's last chunk."""
        return self._chunk(index, {}, reason)

    def bill(self, usage: Usage) -> Reply:
        """The chunk with what it took."""
        return self._head("chat.completion.chunk") | {"choices": [], "usage": usage.reply()}

    def _chunk(self, index: int, delta: Reply, reason: str | None) -> Reply:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._head("chat.completion.chunk") | {"choices": [choice]}

    def _head(self, kind: str) -> Reply:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def embeddings(model: str, vectors: Sequence[Sequence[float]], tokens: int, encoding: str) -> Reply:
    """Of /v1/embeddings: numbers, or base64 of little-endian float32."""
    shown = [_packed(vector) if encoding == "base64" else list(vector) for vector in vectors]
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(shown)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def described(name: str, digest: str, created: int) -> Reply:
    """Of /v1/models: a model, with the digest of its program, which the parties agree on."""
    return {"id": name, "object": "model", "created": created, "owned_by": "hush", "digest": digest}


def event(reply: Reply) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(reply, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
