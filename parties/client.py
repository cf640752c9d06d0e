"""The client: private inference on three running parties.

    client = hush.connect("client.toml")
    embedding = client.infer("minilm", ids, mask)

Inputs are checked, encoded and shared here; no party sees more than two of three shares. A failed inference is never
tried again by itself: the error says which party failed and why.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from hush.mpc.compiler import Program, parse
from hush.mpc.errors import AbortReason, PartyError
from hush.mpc.functions.sampling import Choice
from hush.parties.conference import Parties
from hush.parties.config import ClientConfig, Config, as_client
from hush.parties.generation import Asked, Generation
from hush.parties.provider import deploy, remove
from hush.parties.remote import Inference, Progress, Session
from hush.parties.report import RunReport
from hush.parties.request import Request

__all__ = [
    "AsyncClient",
    "Client",
    "DeployedModel",
    "Generation",
    "Inference",
    "Session",
    "connect",
    "connect_async",
    "deploy",
    "remove",
]


@dataclass(frozen=True, slots=True)
class DeployedModel:
    """A model that all three parties hold alike."""

    name: str
    digest: str


class Client:
    """Inference on three parties. One session a model, opened at first use; calls on one model wait for each other."""

    def __init__(self, config: ClientConfig) -> None:
        self._parties = Parties(config, config.identity("client"))
        self._answer = config.answer_s
        self._programs: dict[str, Program] = {}
        self._sessions: dict[str, Session] = {}
        self._lock = threading.RLock()
        self.last_report: RunReport | None = None

    def models(self) -> list[DeployedModel]:
        """The models that all three parties hold alike. PartyError if one cannot be asked."""
        held = [{(m.name, m.program, m.deployment) for m in info.models} for info in self._parties.info()]
        return [DeployedModel(name, digest.hex()) for name, digest, _ in sorted(set.intersection(*held))]

    def program(self, model: str) -> Program:
        """The program of a deployed model: what the parties agree on, its bytes checked against its digest."""
        with self._lock:
            if model not in self._programs:
                self._programs[model] = self._fetch(model)
            return self._programs[model]

    def use(self, model: str, program: Program) -> None:
        """Insist on a program that this client has from elsewhere, instead of asking the parties for theirs."""
        with self._lock:
            self._programs[model] = program
            self._drop(model)

    def forget(self, model: str) -> None:
        """Ask the parties for a model's program again when it is next needed: it may have been deployed anew."""
        with self._lock:
            self._programs.pop(model, None)
            self._drop(model)

    def infer(self, model: str, *args: Any, **kwargs: Any) -> Any:
        """The module's output for these arguments; what it cost is in `last_report`. Errors as in `Session.infer`."""
        return self.run(model, args, kwargs).output

    def run(
        self,
        model: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None = None,
        *,
        progress: Progress | None = None,
    ) -> Inference:
        """`infer` with its report, and `progress` told each layer as the parties reach it."""
        with self._lock:
            done = self.session(model).infer(args, kwargs, progress)
            self.last_report = done.report
            return done

    def generate(
        self,
        model: str,
        ids: Sequence[int],
        *,
        max_new_tokens: int = 32,
        temperature: float = 0.0,
        top_k: int | None = None,
        stop: Sequence[int] = (),
        fixed_length: bool = False,
        progress: Progress | None = None,
    ) -> Generation:
        """The tokens that follow a prompt, one by one, in a session of their own: `for token in client.generate(...)`.

        Greedy at temperature 0; else drawn on shares from the softmax of logits / temperature, from the `top_k` largest
        alone if given. The parties learn the padded length of the prompt, the number of turns, and how is chosen.
        `stop` tokens are checked here; with `fixed_length` the parties do not learn where the answer stopped. UserError
        for a prompt that does not fit, before anything leaves this machine; PartyError as in `infer`.
        """
        asked = Asked(max_new_tokens, Choice(temperature, top_k), frozenset(stop), fixed_length)
        program = self.program(model)
        opened: list[Session] = []
        over = threading.Event()

        def infer(args: Sequence[Any], watch: Progress | None, request: Request) -> Inference:
            if not opened:
                opened.append(Session(self._parties, model, program, self._answer))
            if over.is_set():  # closed by another thread while it was being opened
                opened[0].close()
            return opened[0].infer(args, None, watch, request)

        def close() -> None:
            over.set()
            for session in opened:
                session.close()

        made = Generation(program, ids, asked, infer, close)
        made.progress = progress
        return made

    def session(self, model: str) -> Session:
        """The open session of a model: a new one if there is none, or if it has failed."""
        with self._lock:
            found = self._sessions.get(model)
            if found is None or found.broken:
                self._drop(model)
                found = Session(self._parties, model, self.program(model), self._answer)
                self._sessions[model] = found
            return found

    def close(self) -> None:
        """Close all sessions and connections."""
        with self._lock:
            for model in list(self._sessions):
                self._drop(model)
            self._parties.close()

    def _drop(self, model: str) -> None:
        old = self._sessions.pop(model, None)
        if old is not None:
            old.close()

    def _fetch(self, model: str) -> Program:
        held = [{m.name: (m.program, m.deployment) for m in info.models} for info in self._parties.info()]
        for party, models in enumerate(held):
            if model not in models:
                known = ", ".join(sorted(models)) or "none"
                raise PartyError(party, AbortReason.UNKNOWN_MODEL, f"{model!r} is not deployed; it has {known}")
        kinds = [models[model] for models in held]
        if len(set(kinds)) != 1:
            odd = next((i for i in range(3) if kinds.count(kinds[i]) == 1 and len(set(kinds)) == 2), None)
            raise PartyError(odd, AbortReason.DIGEST, f"the parties hold different deployments of {model!r}")
        digest = kinds[0][0]
        data = self._parties.program(0, digest)
        if hashlib.sha256(data).digest() != digest:
            raise PartyError(0, AbortReason.DIGEST, "it sent another program than it announced")
        return parse(data, model)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """`Client` for asyncio: the same calls, in threads."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def last_report(self) -> RunReport | None:
        """What the last inference cost."""
        return self._client.last_report

    async def infer(self, model: str, *args: Any, **kwargs: Any) -> Any:
        """`Client.infer`."""
        return await asyncio.to_thread(self._client.infer, model, *args, **kwargs)

    async def run(
        self,
        model: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None = None,
        *,
        progress: Progress | None = None,
    ) -> Inference:
        """`Client.run`; `progress` is called from another thread."""
        return await asyncio.to_thread(self._client.run, model, args, kwargs, progress=progress)

    async def generate(self, model: str, ids: Sequence[int], **options: Any) -> AsyncIterator[int]:
        """`Client.generate`; leaving the loop, or cancelling it, frees the session."""
        stream = await asyncio.to_thread(self._client.generate, model, ids, **options)
        try:
            while (token := await asyncio.to_thread(next, stream, None)) is not None:
                yield token
        finally:
            await asyncio.to_thread(stream.close)

    async def models(self) -> list[DeployedModel]:
        """`Client.models`."""
        return await asyncio.to_thread(self._client.models)

    async def close(self) -> None:
        """`Client.close`."""
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def connect(config: Config) -> Client:
    """A client from its configuration or the path of its file. ConfigError if that cannot serve."""
    return Client(as_client(config))


async def connect_async(config: Config) -> AsyncClient:
    """`connect` for asyncio."""
    return AsyncClient(await asyncio.to_thread(connect, config))
