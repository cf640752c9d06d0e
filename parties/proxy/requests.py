"""The bodies of requests, checked. What cannot be done on shares is refused by name, never left out in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from hush.parties.proxy.refusals import invalid

Ids = list[Annotated[int, Field(strict=True)]]
Text = str | Ids
NEUTRAL: Mapping[str, tuple[Any, ...]] = {  # what may be asked as long as it asks for nothing
    "audio": (),
    "best_of": (1,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "top_p": (1,),
    "verbosity": (),
    "web_search_options": (),
}
MESSAGE_NOTES = ("annotations", "name", "refusal")  # of a message, beside role and content
IGNORED = ("metadata", "prompt_cache_key", "safety_identifier", "service_tier", "user")  # notes to a service


def _listed(value: Any) -> Any:
    return [] if value is None else [value] if isinstance(value, str) else value


class StreamOptions(BaseModel):
    """How to stream."""

    include_usage: bool = False
    include_obfuscation: bool = False  # padding against eavesdroppers: there are none on loopback


class _Request(BaseModel):
    model_config = ConfigDict(extra="allow")

    model: Annotated[str, Field(min_length=1)]


class Generating(_Request):
    """What completions and chat completions have in common. Defaults are OpenAI's."""

    temperature: Annotated[float | None, Field(ge=0)] = None
    top_k: Annotated[int | None, Field(ge=1)] = None
    seed: int | None = None
    stop: Annotated[list[str], BeforeValidator(_listed), Field(max_length=16)] = []
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    fixed_length: bool | None = None


class Completion(Generating):
    """POST /v1/completions."""

    prompt: Annotated[str | list[str] | Ids | list[Ids], Field(min_length=1)]
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    echo: bool | None = None

    @property
    def texts(self) -> list[Text]:
        """One choice each."""
        return _each(self.prompt)


class TextPart(BaseModel):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def plain(self) -> dict[str, str]:
        """As templates know it: a developer speaks for the system."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class ChatCompletion(Generating):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None


class Embedding(_Request):
    """POST /v1/embeddings."""

    input: Annotated[str | list[str] | Ids | list[Ids], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int | None, Field(ge=1)] = None

    @property
    def texts(self) -> list[Text]:
        """One vector each."""
        return _each(self.input)


R = TypeVar("R", bound=_Request)


def parse(kind: type[R], body: bytes) -> R:
    """A request from its JSON. Refusal names the parameter at fault, and quotes nothing of the body."""
    try:
        request = kind.model_validate_json(body)
    except ValidationError as error:
        param, fault = _fault(error)
        raise invalid(f"{param or 'body'}: {fault}", param) from None
    for name, value in (request.model_extra or {}).items():
        _neutral(name, value)
    if isinstance(request, Generating) and request.seed is not None and request.temperature != 0:
        text = "seed: the noise of a draw comes from the parties, and no seed repeats it; temperature 0 repeats itself"
        raise invalid(text, "seed", "unsupported_parameter")
    if isinstance(request, ChatCompletion):
        _plain_messages(request.messages)
    return request


def _plain_messages(messages: Sequence[Message]) -> None:
    """Text alone: no calls of tools, no audio."""
    for i, message in enumerate(messages):
        for name, value in (message.model_extra or {}).items():
            if value and name not in MESSAGE_NOTES:
                where = f"messages.{i}.{name}"
                raise invalid(f"{where} is not supported: messages are text", where, "unsupported_parameter")


def _neutral(name: str, value: Any) -> None:
    if value is None or name in IGNORED:
        return
    if name not in NEUTRAL:
        raise invalid(f"Unrecognized request argument supplied: {name}", name, "unknown_parameter")
    allowed = NEUTRAL[name]
    if not any(value == item and isinstance(value, bool) == isinstance(item, bool) for item in allowed):
        instead = "leave it out" if not allowed else f"leave it out or say {' or '.join(map(repr, allowed))}"
        raise invalid(f"{name} is not supported by inference on shares: {instead}", name, "unsupported_parameter")


def _fault(error: ValidationError) -> tuple[str | None, str]:
    """Place and text of a fault: of the branches that were tried of a union, the one that came furthest."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    places = [[str(part) for part in fault["loc"] if not _is_branch(part)] for fault in found]
    at = max(range(len(found)), key=lambda i: len(places[i]))
    return ".".join(places[at]) or None, found[at]["msg"]


def _is_branch(part: int | str) -> bool:
    """Whether a place in pydantic's path is the branch of a union that it tried, not a name of the request."""
    return isinstance(part, str) and (part in ("str", "int") or "[" in part or part == "TextPart")


def _each(value: str | list[str] | list[int] | list[list[int]]) -> list[Text]:
    if isinstance(value, str):
        return [value]
    if all(isinstance(item, int) for item in value):
        return [[item for item in value if isinstance(item, int)]]
    return [item for item in value if not isinstance(item, int)]
