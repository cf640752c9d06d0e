"""The endpoints: requests to prompts, prompts to answers, one at a time for each model."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import anyio
from anyio.to_thread import run_sync
from starlette.responses import JSONResponse, Response

from hush.parties.proxy import replies
from hush.parties.proxy.answer import Answer, Ask
from hush.parties.proxy.backend import Backend, Facts
from hush.parties.proxy.language import Language, Languages
from hush.parties.proxy.refusals import invalid, too_long, unknown_model
from hush.parties.proxy.replies import Chats, Completions, Usage
from hush.parties.proxy.requests import ChatCompletion, Completion, Embedding, Generating, Text, parse
from hush.parties.proxy.wire import EventStream

SHORT = 16  # new tokens of a completion that does not say: OpenAI's default


@dataclass(frozen=True, slots=True)
class Policy:
    """`new`: tokens of a chat's answer that does not say. `fixed_length`: hide from the parties where answers end."""

    new: int = 256
    fixed_length: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Prompt:
    """What an answer follows: ids, with the text to repeat before it (`echo`)."""

    ids: list[int]
    echo: str = ""


class Endpoints:
    """What the proxy answers. Requests for one model queue; a caller that hangs up leaves the queue."""

    def __init__(self, backend: Backend, languages: Languages, policy: Policy) -> None:
        self._backend, self._languages, self._policy = backend, languages, policy
        self._started = int(time.time())
        self._queues: dict[str, anyio.Lock] = {}

    def _queue(self, model: str) -> anyio.Lock:
        return self._queues.setdefault(model, anyio.Lock())

    # ------------------------------------------------------------------ models
    async def models(self, body: bytes, model: str) -> Response:
        """GET /v1/models: what is deployed."""
        found = await run_sync(self._backend.models)
        data = [replies.described(m.name, m.digest, self._started) for m in found]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, body: bytes, model: str) -> Response:
        """GET /v1/models/MODEL."""
        found = await run_sync(self._backend.models)
        for m in found:
            if m.name == model:
                return JSONResponse(replies.described(m.name, m.digest, self._started))
        raise unknown_model(model, ", ".join(m.name for m in found) or "none")

    # ------------------------------------------------------------------ generation
    async def completions(self, body: bytes, model: str) -> Response:
        """POST /v1/completions."""
        request = parse(Completion, body)
        facts, language = await self._known(request.model)
        prompts = [_prompt(text, language, echo=bool(request.echo)) for text in request.texts]
        asks = []
        for prompt in prompts:
            new = _answer_length(facts, len(prompt.ids), request.max_tokens, SHORT, "prompt")
            asks.append(self._ask(request, prompt, new, request.stop))
        return await self._generate(request, Completions(request.model), language, prompts, asks)

    async def chat(self, body: bytes, model: str) -> Response:
        """POST /v1/chat/completions."""
        request = parse(ChatCompletion, body)
        facts, language = await self._known(request.model)
        ids = await run_sync(language.conversation, [m.plain() for m in request.messages])
        prompt, asked = Prompt(ids), request.max_completion_tokens or request.max_tokens
        new = _answer_length(facts, len(ids), asked, self._policy.new, "messages")
        ask = self._ask(request, prompt, new, [*request.stop, *language.turns], strip=True)
        return await self._generate(request, Chats(request.model), language, [prompt], [ask])

    async def _known(self, model: str) -> tuple[Facts, Language]:
        facts = await run_sync(self._backend.facts, model)
        return facts, await run_sync(self._languages.of, model)

    def _ask(self, request: Generating, prompt: Prompt, new: int, stops: Sequence[str], *, strip: bool = False) -> Ask:
        fixed = self._policy.fixed_length if request.fixed_length is None else request.fixed_length
        temperature = 1.0 if request.temperature is None else request.temperature
        return Ask(request.model, prompt.ids, new, temperature, request.top_k, stops, fixed, strip)

    async def _generate(
        self,
        request: Generating,
        form: Completions | Chats,
        language: Language,
        prompts: Sequence[Prompt],
        asks: Sequence[Ask],
    ) -> Response:
        answers = [Answer(self._backend, language, ask) for ask in asks]
        usage = Usage(sum(len(prompt.ids) for prompt in prompts))
        if not request.stream:
            texts = await self._whole(prompts, answers, usage)
            return JSONResponse(form.whole(texts, usage))
        bill = request.stream_options is not None and request.stream_options.include_usage
        events = self._events(form, prompts, answers, usage, bill)
        # nothing is sent before there is text: until then, what goes wrong has a status
        return EventStream(await anext(events), events)

    async def _whole(self, prompts: Sequence[Prompt], answers: Sequence[Answer], usage: Usage) -> list[tuple[str, str]]:
        """Text and reason of each choice."""
        texts = []
        for prompt, answer in zip(prompts, answers, strict=True):
            async with self._queue(answer.model), aclosing(answer.pieces()) as pieces:
                text = prompt.echo + "".join([piece async for piece in pieces])
            texts.append((text, answer.reason))
            usage.made += answer.made
        return texts

    async def _events(
        self,
        form: Completions | Chats,
        prompts: Sequence[Prompt],
        answers: Sequence[Answer],
        usage: Usage,
        bill: bool,
    ) -> AsyncGenerator[bytes]:
        """Server-sent events of each choice, one after the other."""
        for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            before = [*form.opening(index), *([form.piece(index, prompt.echo)] if prompt.echo else [])]
            async with self._queue(answer.model), aclosing(answer.pieces()) as pieces:
                async for text in pieces:
                    for reply in (*before, form.piece(index, text)):
                        yield replies.event(reply)
                    before = []
            for reply in (*before, form.end(index, answer.reason)):
                yield replies.event(reply)
            usage.made += answer.made
        if bill:
            yield replies.event(form.bill(usage))
        yield replies.DONE

    # ------------------------------------------------------------------ embeddings
    async def embeddings(self, body: bytes, model: str) -> Response:
        """POST /v1/embeddings: the texts one after the other."""
        request = parse(Embedding, body)
        facts, language = await self._known(request.model)
        if facts.context is not None:
            raise invalid(f"{request.model} generates: ask it at /v1/completions", "model")
        texts = [_prompt(text, language).ids for text in request.texts]
        for ids in texts:
            _check_length(facts, len(ids), "input")
        vectors = []
        for ids in texts:
            async with self._queue(request.model):
                vectors.append(await run_sync(self._backend.embed, request.model, ids, language.pad_id))
        if request.dimensions not in (None, len(vectors[0])):
            text = f"dimensions: {request.model} gives {len(vectors[0])}"
            raise invalid(text, "dimensions", "unsupported_parameter")
        tokens = sum(len(ids) for ids in texts)
        return JSONResponse(replies.embeddings(request.model, vectors, tokens, request.encoding_format))


def _prompt(text: Text, language: Language, *, echo: bool = False) -> Prompt:
    if isinstance(text, str):
        return Prompt(language.encode(text), text if echo else "")
    return Prompt(text, language.decode(text) if echo else "")


def _answer_length(facts: Facts, length: int, asked: int | None, default: int, param: str) -> int:
    """New tokens after a prompt of so many. Refusal of what the model was not deployed for, before it is asked."""
    if facts.context is None:
        raise invalid("this model does not generate: ask it at /v1/embeddings", "model")
    _check_length(facts, length, param)
    longest = facts.longest_answer(length)
    if asked is not None and asked > longest:
        text = f"{asked} new tokens after this prompt, as it is padded, exceed this model's context of {facts.context}"
        raise too_long(f"{text}: ask for at most {longest}", "max_tokens")
    return min(default, longest) if asked is None else asked


def _check_length(facts: Facts, length: int, param: str) -> None:
    if length == 0:
        raise invalid(f"{param} is empty: give at least one token", param)
    if length > facts.room:
        text = f"{param} has {length} tokens, and this model was deployed for {facts.room}: shorten it"
        raise too_long(text, param)
    if not facts.takes(length):
        exact = " or ".join(map(str, facts.rooms))
        raise invalid(f"{param} has {length} tokens, and this model was deployed for exactly {exact}", param)
