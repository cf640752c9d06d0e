"""Three parties as threads of this process, over memory: the same computation as over gRPC, without its cost."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import torch

from hush.mpc.compiler import Program
from hush.mpc.errors import AbortReason, PartyError
from hush.mpc.prg import KEY_BYTES, Stream
from hush.mpc.ring import backends
from hush.mpc.transport import Buffer, Transport, memory_trio
from hush.parties import shares
from hush.parties.device_memory import Amount, Card, Room, Tenant, cards
from hush.parties.engine import Engine, Outcome
from hush.parties.forget import forget
from hush.parties.placement import Placed
from hush.parties.remote import Inference, Progress, decoded
from hush.parties.report import combine
from hush.parties.request import ALONE, Request
from hush.parties.shaping import shape
from hush.parties.streamed import streamed
from hush.parties.wire import frame_bytes
from hush.protocols.replicated.sharing import reconstruct


class ThreadTrio:
    """A session of three threads for one program that holds its weights. `backend`: of all, or of each of the three.

    `device_memory`: of a GPU, for all that compute there together; by default what is free. `seeds`: whether weights
    that may stay seeds there do; by default where they do not fit otherwise.
    """

    def __init__(
        self,
        program: Program,
        *,
        net: str = "none",
        backend: str | Sequence[str | None] | None = None,
        deadline: float = 600.0,
        device_memory: Amount | None = None,
        seeds: bool | None = None,
    ) -> None:
        self._program = program
        kinds = [backend] * 3 if backend is None or isinstance(backend, str) else list(backend)
        keys = [os.urandom(KEY_BYTES) for _ in range(3)]  # keys[i]: parties i and i+1
        self._links: list[Transport] = [shape(t, net) for t in memory_trio(deadline)]
        self._tenant = Tenant()
        rooms = self._rooms(cards(kinds, device_memory), seeds)
        self._engines = [
            Engine(i, Stream(keys[i]), Stream(keys[i - 1]), self._links[i], program, kinds[i], room=rooms[i])
            for i in range(3)
        ]
        for engine, kind, room in zip(self._engines, kinds, rooms, strict=True):
            if seeds and room is None and backends.get(kind).seeds:  # kernels of a GPU, and none: Triton's interpreter
                engine.placed = Placed(backends.get(kind), streamed(program))
        self._pool = ThreadPoolExecutor(3, thread_name_prefix="hush-party")
        self._deal_weights([backends.get(kind).seeds for kind in kinds])

    def _rooms(self, cards_: Sequence[Card | None], seeds: bool | None) -> list[Room | None]:
        """Each party's, those on one GPU in what is free there together."""
        rooms: list[Room | None] = [None] * len(cards_)
        for one in {id(c): c for c in cards_ if c is not None}.values():
            here = [i for i, c in enumerate(cards_) if c is one]
            for i, room in zip(here, one.claims(here, self._program, self._tenant, seeds=seeds), strict=True):
                rooms[i] = room
        return rooms

    def _deal_weights(self, seeds: Sequence[bool]) -> None:
        """Deal them one by one and place each at once: a large model lies as a whole only where it is used."""
        program, dtypes = self._program, shares.public_dtypes(self._program)
        for index, frames in enumerate(shares.weight_frames(program)):
            for i, engine in enumerate(self._engines):
                frame = frame_bytes(frames[i])
                value = shares.unpack_weight(i, program, dtypes, index, frame, seeded=seeds[i])
                engine.take(program.weight_specs[index].name, value)

    def infer(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        request: Request = ALONE,
    ) -> Inference:
        """One inference, as `hush.parties.remote.Session.infer`."""
        taken = request.inputs(self._program)
        encoded = [] if taken is None else taken.encode_inputs(args, kwargs)
        begin = time.perf_counter()
        dealt = [] if taken is None else [spec for spec in taken.inputs if spec.dealt]
        pairs = zip(encoded, dealt, strict=True)
        frames = [shares.deal_input(spec, elements, self._program.ring) for elements, spec in pairs]
        outcomes = self._run([[f[i] for f in frames] for i in range(3)], progress, request)
        elements = [reconstruct(triple) for triple in zip(*(o.outputs for o in outcomes), strict=True)]
        output = decoded(self._program, elements)
        traffic = sum(len(part) for f in frames for own in f for part in own)
        traffic += 3 * sum(shares.output_sizes(self._program))
        return Inference(output, combine([o.report for o in outcomes], time.perf_counter() - begin, traffic))

    def _run(
        self, frames: Sequence[Sequence[Sequence[Buffer]]], progress: Progress | None, request: Request
    ) -> list[Outcome]:
        before = torch.get_num_threads()
        try:
            jobs = [
                self._pool.submit(self._party, i, frames[i], progress if i == 0 else None, request) for i in range(3)
            ]
            errors = [e for e in (job.exception() for job in jobs) if e is not None]
            for error in errors:
                forget(error)  # whoever keeps it would keep the run's tensors
            if errors:
                raise next((e for e in errors if not isinstance(e, PartyError)), errors[0])
            return [job.result() for job in jobs]
        finally:
            torch.set_num_threads(before)

    def _party(
        self, index: int, frames: Sequence[Sequence[Buffer]], progress: Progress | None, request: Request
    ) -> Outcome:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // 3))
        rest = iter(frames)
        engine = self._engines[index]
        try:
            inputs = engine.receive_inputs(lambda nbytes: frame_bytes(next(rest)), request)
            return engine.infer(inputs, {}, progress, request)
        except BaseException:
            self._links[index].close(AbortReason.INTERNAL)
            raise

    def close(self) -> None:
        """Stop the threads."""
        for link in self._links:
            link.close()
        self._pool.shutdown()
        for engine in self._engines:
            engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
