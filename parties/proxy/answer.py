"""One answer: tokens from the parties, text from them here, and the way out in the middle."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import anyio
from anyio.to_thread import run_sync

from hush.parties.proxy.backend import Backend, Tokens
from hush.parties.proxy.language import Language
from hush.parties.proxy.reading import Reader


@dataclass(frozen=True, slots=True, repr=False)
class Ask:
    """A prompt, and how it is to be answered. `strip`: without the space before the first word."""

    model: str
    ids: Sequence[int]
    new: int
    temperature: float
    top_k: int | None
    stops: Sequence[str]
    fixed_length: bool
    strip: bool = False


class Answer:
    """The answer to an ask, as pieces of text; then `reason` and `made` say how it ended and how many tokens it has.

    Blocking calls run in threads. Leaving `pieces`, by an error or by cancellation, closes the generation at once, in
    the middle of a turn too, and the parties forget the session.
    """

    def __init__(self, backend: Backend, language: Language, ask: Ask) -> None:
        self._backend, self._language, self._ask = backend, language, ask
        self.reason, self.made = "length", 0

    @property
    def model(self) -> str:
        """Who is asked."""
        return self._ask.model

    async def pieces(self) -> AsyncGenerator[str]:
        """Text as it becomes certain."""
        ask = self._ask
        reader = Reader(self._language.following(ask.ids), ask.stops, strip=ask.strip)
        stream = await run_sync(self._begin)
        try:
            while (token := await run_sync(next, stream, None, abandon_on_cancel=True)) is not None:
                if reader.stopped:
                    continue  # of fixed length: the parties are not to learn where it stopped
                self.made += 1
                if text := reader.feed(token):
                    yield text
                if reader.stopped and not ask.fixed_length:
                    break
        finally:
            closing = threading.Thread(target=stream.close)  # a thread of its own: nothing can cancel it
            closing.start()
            with anyio.CancelScope(shield=True):
                await run_sync(closing.join)
        if rest := reader.finish():
            yield rest
        if stream.stopped or reader.stopped:
            self.reason = "stop"

    def _begin(self) -> Tokens:
        ask = self._ask
        return self._backend.generate(
            ask.model,
            ask.ids,
            max_new_tokens=ask.new,
            temperature=ask.temperature,
            top_k=ask.top_k,
            stop=self._language.stop_ids,
            fixed_length=ask.fixed_length,
        )
